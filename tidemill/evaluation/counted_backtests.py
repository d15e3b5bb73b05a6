"""Backtests of files and frames as trials: what they were of, so that the ledger can tell one from another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl

from tidemill.calendars import epochs, periods_per_year_of
from tidemill.domain.errors import UnavailableError
from tidemill.domain.intervals import Interval
from tidemill.metrics.returns import Floats
from tidemill.provenance import fingerprint
from tidemill.storage.content import content_version
from tidemill.storage.trials import TrialBatch
from tidemill.strategies.registry import SHIPPED_STRATEGIES, Strategies
from tidemill.study.counting import listed_by_calendar, record_trials

if TYPE_CHECKING:
    from tidemill.backtest.result import BacktestResult
    from tidemill.backtest.sweep import Sweep
    from tidemill.domain.experiment import CostSpec
    from tidemill.domain.market import Instrument
    from tidemill.study.workspace import Workspace

EXPERIMENT = "backtest"
NO_LABEL = "none"
UNCOUNTED = "This backtest is not counted in the trial ledger, because the database cannot be reached: "
_PRICES = ("symbol", "open_time", "open", "high", "low", "close", "volume")


class Evaluated(msgspec.Struct, frozen=True, kw_only=True):
    """What a backtest was of. strategy or weights (symbol, open_time, weight); source: name of the file, None for a frame.

    known: where the strategy is found. choices: whatever else decides the result and can be chosen, such as `can_short`.
    """

    bars: pl.DataFrame
    interval: Interval
    costs: CostSpec
    strategy: str | None = None
    known: Strategies = SHIPPED_STRATEGIES
    params: Mapping[str, Any] = {}
    weights: pl.DataFrame | None = None
    source: str | None = None
    instruments: Mapping[str, Instrument] = {}
    choices: Mapping[str, Any] = {}

    def periods_per_year(self, times: pl.Series) -> float:
        """Of returns at these times: slots of all its instruments together, while they were listed."""
        followed = {symbol: one.calendar for symbol, one in self.instruments.items()}
        return periods_per_year_of(self.interval, epochs(times), listed_by_calendar(followed, lambda: self.bars))


def counted(ledger: Callable[[], AbstractContextManager[Workspace]], result: BacktestResult, of: Evaluated) -> BacktestResult:
    """The result with the id of its trial; without it, and with a note that says so, when the database cannot be reached.

    ledger: opens the workspace in whose ledger it is counted; called once, and only now that there is something to count.
    """
    try:
        with ledger() as workspace:
            recorded = record_trials(workspace, backtest_trial(result, of))
    except UnavailableError as exc:
        return dataclasses.replace(result, notes=(*result.notes, f"{UNCOUNTED}{exc}"))
    return dataclasses.replace(result, trial=recorded.trial_ids[0])


def backtest_trial(result: BacktestResult, of: Evaluated) -> TrialBatch:
    """One backtest as a batch of one trial.

    Backtests of files of one name and interval compete with each other and with the runs on that file; those of frames with all
    of the same symbols and interval.
    """
    returns = np.asarray(result.returns["return"].to_numpy(), dtype=np.float64)[:, None]
    return _batch(of, "backtest", [of.params], result.returns["time"], returns)


def sweep_trials(sweep: Sweep, of: Evaluated) -> TrialBatch:
    """Every run of a sweep as a trial: the same one that a single backtest of those parameters would be."""
    return _batch(of, "sweep", sweep.configs, sweep.times[1:], sweep.returns)


def _batch(of: Evaluated, kind: str, params: Sequence[Mapping[str, Any]], times: pl.Series, returns: Floats) -> TrialBatch:
    symbols = fingerprint(of.bars["symbol"].unique().sort().to_list())[:8]
    source = of.source or f"frame-{symbols}"
    family = f"{source}.{of.interval}"
    kept = [name for name in _PRICES if name in of.bars.columns]
    return TrialBatch(
        experiment=EXPERIMENT,
        kind=kind,
        family=family,
        universe=f"{family}.u{symbols}",
        data_version=content_version(of.bars.select(kept).sort("symbol", "open_time"))[:16],
        label=NO_LABEL,
        engines=[of.strategy or "weights"] * len(params),
        configs=[_configuration(msgspec.structs.replace(of, params=own)) for own in params],
        times=times.cast(pl.Datetime("us", "UTC")),
        returns=returns,
        periods_per_year=of.periods_per_year(times),
    )


def _configuration(of: Evaluated) -> dict[str, Any]:
    if of.weights is not None:
        chosen: dict[str, Any] = {"weights": content_version(of.weights)[:16]}
    else:
        params, source = of.known.find(str(of.strategy)).parse(of.params), of.known.source(str(of.strategy))
        own = {"code": source} if source else {}
        chosen = {"strategy": {"name": of.strategy, **msgspec.to_builtins(params)}, **own}
    return {**chosen, "costs": msgspec.to_builtins(of.costs), **of.choices}
