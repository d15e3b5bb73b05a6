"""Neutralisation: a step after any strategy that takes the bet on sectors, or on the market, out of its weights.

Only sizes change: a side is scaled down until both are equal, so nothing is bought or shorted that the strategy did not choose,
and neither a cap nor what the venue allows can be broken.

- By sector, while something can be short: in each sector long equals short; a sector with one side alone is closed. While
  nothing can be short: each sector gets the share of the book that it has of the symbols, and no position grows beyond the
  largest one of its time.
- By beta: the betas of the long and of the short side, times their weights, are equal; with one side alone the book is closed.
  Beta is that of the last `window` bars to the equal-weight market of all bars, known at the time; unknown counts as 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from tidemill.domain.errors import InputError
from tidemill.domain.experiment import NeutraliseSpec
from tidemill.domain.intervals import Interval
from tidemill.domain.market import Instrument
from tidemill.strategies.base import Carried, Universe, Weighed

if TYPE_CHECKING:
    import polars as pl

    from tidemill.strategies.base import Floats

NO_SECTOR = "(none)"


def checked(spec: NeutraliseSpec) -> NeutraliseSpec:
    """`spec` unchanged if it can be followed, else InputError."""
    if spec.by == "sector" and not (spec.sectors or spec.sector_file):
        raise InputError("Neutralising by sector needs `sectors` (symbol: sector) or a `sector_file` of symbol, sector.")
    if spec.by == "beta" and not 2 <= spec.least <= spec.window <= 10_000:
        raise InputError("Neutralising by beta needs 2 ≤ least ≤ window ≤ 10,000 bars.")
    return spec


def with_sectors(spec: NeutraliseSpec, table: pl.DataFrame) -> NeutraliseSpec:
    """`spec` with the sectors of a table of `symbol, sector` in place of its file. InputError for a wrong table."""
    missing = [name for name in ("symbol", "sector") if name not in table.columns]
    if missing:
        raise InputError(f"The sector file lacks the column {', '.join(missing)}; it needs symbol and sector.")
    rows = table.select("symbol", "sector").drop_nulls()
    if rows["symbol"].is_duplicated().any():
        raise InputError("The sector file names a symbol more than once. Keep one row of each.")
    return msgspec.structs.replace(spec, sectors={str(s): str(k) for s, k in rows.iter_rows()}, sector_file=None)


class Neutral:
    """Neutralisation under way, over the symbols of a universe; a slot is a step, whatever came before it is in `state`.

    Raises InputError where a neutral book cannot exist.
    """

    def __init__(self, spec: NeutraliseSpec, universe: Universe, state: Carried | None = None) -> None:
        import numpy as np

        from tidemill.strategies.past import PastReturns

        self._spec, self._universe, self._closed = checked(spec), universe, 0
        if spec.by == "beta":
            if not universe.can_short.any():
                raise InputError(
                    "Neutralising by beta needs symbols that can be sold short; this venue allows it for none of these."
                )
            self._past = PastReturns(universe.symbols, spec.window, state)
        else:
            named = [spec.sectors.get(symbol, NO_SECTOR) for symbol in universe.symbols]
            place = {sector: at for at, sector in enumerate(sorted(set(named)))}
            self._group, self._groups = np.array([place[sector] for sector in named], dtype=np.int64), len(place)

    @property
    def notes(self) -> tuple[str, ...]:
        """How often something was closed."""
        what = "a sector" if self._spec.by == "sector" else "the book"
        times = f"{self._closed:,} time{'s' * (self._closed != 1)}"
        return (f"{times} {what} was closed, since one of its sides alone cannot be neutral.",) if self._closed else ()

    def scan(self, weights: Floats, close: Floats) -> Floats:
        """Weights made neutral slot by slot; NaN takes no part and stays. Both [slots, symbols]; close: adjusted."""
        made = weights.copy()
        return self._by_beta(made, close) if self._spec.by == "beta" else self._by_sector(made)

    def state(self) -> Carried:
        """What another goes on from."""
        return Carried(self._universe.symbols, self._past.arrays if self._spec.by == "beta" else {})

    def _by_sector(self, weights: Floats) -> Floats:
        from tidemill.strategies.neutral_kernel import neutral_by_group

        self._closed += neutral_by_group(weights, self._group, self._groups, self._universe.can_short)
        return weights

    def _by_beta(self, weights: Floats, close: Floats) -> Floats:
        import numpy as np

        from tidemill.strategies.neutral_kernel import neutral_by_exposure
        from tidemill.strategies.past import betas

        for weight, closes in zip(weights, close, strict=True):
            self._past.push(closes)
            if not np.isnan(weight).all():
                beta = betas(self._past.window, self._spec.least)
                self._closed += neutral_by_exposure(weight, np.where(np.isnan(beta), 1.0, beta))
        return weights


def neutralised(
    weights: pl.DataFrame,
    spec: NeutraliseSpec,
    instruments: Mapping[str, Instrument],
    bars: pl.DataFrame | None,
    interval: Interval,
) -> Weighed:
    """`weights` (symbol, open_time, weight) made neutral time by time; nulls stay null and take no part.

    bars: adjusted; needed for beta alone. Raises InputError where a neutral book cannot exist.
    """
    import polars as pl

    from tidemill.strategies.slots import book_slots

    if spec.by == "beta" and bars is None:
        raise InputError("Neutralising by beta needs bars beside the predictions.")
    if weights.is_empty():
        return Weighed(weights)
    asked = weights.rename({"weight": "prediction"})
    axes, universe, slots = book_slots(asked, bars if spec.by == "beta" else None, None, instruments, interval, None)
    neutral = Neutral(spec, universe)
    cells = axes.cells(weights)
    made = neutral.scan(slots.prediction, slots.close).reshape(-1)[cells]
    return Weighed(weights.with_columns(pl.Series("weight", made).fill_nan(None)), neutral.notes)
