"""The sweep: every combination of a strategy's parameters over the same bars, each a trial in the ledger."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from tidemill.backtest.sweep import MOST_RUNS, Sweep, sweep_strategy
from tidemill.domain.errors import InputError, UnavailableError
from tidemill.domain.experiment import CostSpec
from tidemill.domain.intervals import Interval
from tidemill.domain.market import slug
from tidemill.durable import replacing
from tidemill.evaluation.backtest import bars_interval, instruments_for, over_bars
from tidemill.evaluation.counted_backtests import UNCOUNTED, Evaluated, sweep_trials
from tidemill.market.panel_files import read_bars
from tidemill.market.tables import stem
from tidemill.metrics.returns import sharpe
from tidemill.strategies.registry import SHIPPED_STRATEGIES, Strategies
from tidemill.study.counting import record_trials

if TYPE_CHECKING:
    from tidemill.evaluation.backtest import Ledger


class Swept(NamedTuple):
    """runs: one row for each combination, in the order of the grid: its parameters, `trial` (its id in the ledger, null where
    it could not be counted), `sharpe` (annualised, null where not defined) and the totals of `backtest.sweep.Figures`. skipped:
    combinations that the strategy refuses. notes: sentences for a person.
    """

    runs: pl.DataFrame
    skipped: int
    notes: tuple[str, ...]


def grid_of(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Parameter → values of `fast=5:50:5` (from, to and included, step), `fast=5/10/20` or `fast=5`; several may be joined by
    commas. InputError for anything else.
    """
    grid: dict[str, list[Any]] = {}
    for part in (piece.strip() for text in texts for piece in text.split(",")):
        name, separator, values = part.partition("=")
        if not (name and separator and values):
            raise InputError(f"The sweep {part!r} is not name=values. Write for example fast=5:50:5 or fast=5/10/20.")
        if name in grid:
            raise InputError(f"The sweep names {name} twice. Give all of its values at once.")
        grid[name] = _range(part, values) if ":" in values else [_number(value) for value in values.split("/")]
    return grid


def _range(part: str, values: str) -> list[Any]:
    try:
        start, stop, step = (Decimal(value) for value in (*values.split(":"), "1")[:3])
        count = int((stop - start) / step) + 1 if step > 0 else 0
    except (ValueError, InvalidOperation, OverflowError) as exc:
        raise InputError(f"The sweep {part!r} cannot be read. Write from:to:step, such as fast=5:50:5.") from exc
    if not 0 < count <= MOST_RUNS or values.count(":") > 2:
        raise InputError(f"The sweep {part!r} names no value, or too many. Write from:to:step, such as fast=5:50:5.")
    return [_number(str(start + step * at)) for at in range(count)]


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)


def sweep_frame(
    bars: pl.DataFrame,
    strategy: str,
    grid: Mapping[str, Sequence[Any]],
    *,
    fee_bps: float,
    slippage_bps: float,
    capital: float = 1_000_000.0,
    can_short: bool | None = None,
    interval: Interval | None = None,
    source: str | None = None,
    ledger: Ledger | None = None,
    known: Strategies = SHIPPED_STRATEGIES,
) -> Swept:
    """Backtests of a strategy over bars for every combination of `grid`; the rest as in `backtest_frame`.

    A run is the same trial as the single backtest of its parameters, and has the same figures to the bit.
    """
    over_bars(strategy, known)
    length = bars_interval(bars, interval)
    instruments = instruments_for(bars, length, can_short)
    costs = CostSpec(fee_bps=fee_bps, slippage_bps=slippage_bps, capital=capital)
    made = sweep_strategy(strategy, grid, bars, interval=length, instruments=instruments, costs=costs, known=known)
    shorts = any(instrument.can_short for instrument in instruments.values())
    of = Evaluated(
        bars=bars,
        interval=length,
        costs=costs,
        strategy=strategy,
        known=known,
        source=source,
        instruments=instruments,
        choices={"can_short": shorts},
    )
    ids, notes = _count(made, of, ledger)
    if made.skipped:
        notes.append(f"{made.skipped:,} combinations were left out, since {strategy} does not take them.")
    return Swept(_runs(made, ids, of.periods_per_year(made.times[1:])), made.skipped, tuple(notes))


def _count(made: Sweep, of: Evaluated, ledger: Ledger | None) -> tuple[list[str | None], list[str]]:
    if ledger is None:
        return [None] * len(made.configs), []
    try:
        with ledger() as workspace:
            return list(record_trials(workspace, sweep_trials(made, of)).trial_ids), []
    except UnavailableError as exc:
        return [None] * len(made.configs), [f"{UNCOUNTED}{exc}"]


def _runs(made: Sweep, ids: Sequence[str | None], year: float) -> pl.DataFrame:
    returns = made.returns
    ratios = [sharpe(returns[:, at], year) for at in range(returns.shape[1])]
    parameters = pl.DataFrame(list(made.configs), infer_schema_length=None)
    figures = pl.DataFrame([figure._asdict() for figure in made.figures])
    told = pl.DataFrame(
        {
            "trial": pl.Series(list(ids), dtype=pl.String),
            "sharpe": pl.Series([ratio if math.isfinite(ratio) else None for ratio in ratios], dtype=pl.Float64),
        }
    )
    return parameters.hstack(told).hstack(figures)


def run_sweep(
    source: Path,
    *,
    strategy: str,
    grid: Mapping[str, Sequence[Any]],
    fee_bps: float,
    slippage_bps: float,
    output: Path | None,
    ledger: Ledger | None = None,
    known: Strategies = SHIPPED_STRATEGIES,
) -> dict[str, Any]:
    """What `tidemill backtest --sweep` answers: `runs` by Sharpe ratio, best first, how many, and what they were run on."""
    bars, interval, refused = read_bars(source)
    made = sweep_frame(
        bars,
        strategy,
        grid,
        fee_bps=fee_bps,
        slippage_bps=slippage_bps,
        interval=interval,
        source=slug(stem(source)),
        ledger=ledger,
        known=known,
    )
    runs = made.runs.sort("sharpe", descending=True, nulls_last=True, maintain_order=True)
    if output is not None:
        _write(runs, output)
    counted = runs["trial"].drop_nulls().n_unique()
    return {
        "runs": runs.to_dicts(),
        "trials": counted,
        "skipped": made.skipped,
        "bars": bars.height,
        "refused_rows": refused,
        "interval": str(interval),
        "notes": list(made.notes),
    }


def _write(runs: pl.DataFrame, folder: Path) -> None:
    """sweep.parquet in `folder`, which is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "sweep.parquet") as temporary:
            runs.write_parquet(temporary)
    except OSError as exc:
        raise InputError(f"{folder} cannot be written: {exc.strerror}. Choose another --output.") from exc
