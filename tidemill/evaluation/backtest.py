"""The backtest command: bars from a file, a strategy or weights, results as figures and files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from tidemill.backtest.backtest import BacktestResult, backtest
from tidemill.backtest.by_strategy import backtest_strategy
from tidemill.backtest.panel import require_columns
from tidemill.backtest.result import summary
from tidemill.domain.errors import InputError
from tidemill.domain.experiment import CostSpec, NeutraliseSpec
from tidemill.domain.intervals import Interval
from tidemill.domain.market import Instrument, slug
from tidemill.durable import replacing
from tidemill.evaluation.counted_backtests import Evaluated, counted
from tidemill.market.calendars import infer_calendars
from tidemill.market.column_files import read_weights
from tidemill.market.files import file_instrument
from tidemill.market.panel_files import interval_of, read_bars
from tidemill.market.tables import stem
from tidemill.steps.trading.attribution import attribution_of
from tidemill.strategies.neutral import neutralised
from tidemill.strategies.registry import SHIPPED_STRATEGIES, Strategies
from tidemill.study.book import with_file

if TYPE_CHECKING:
    from tidemill.study.workspace import Workspace

    Ledger = Callable[[], AbstractContextManager[Workspace]]


def weights_from(frame: pl.DataFrame, origin: str) -> pl.DataFrame:
    """symbol, open_time, weight as the kernel takes them. InputError for what is not a frame, a missing column, a time that is
    none or a weight that is not a number.
    """
    _require_frame(frame, origin)
    other = next((name for name in ("date", "ts", "time") if name in frame.columns), None)
    if "open_time" not in frame.columns and other is not None:
        frame = frame.rename({other: "open_time"})
    missing = [name for name in ("symbol", "open_time", "weight") if name not in frame.columns]
    if missing:
        raise InputError(f"{origin} lacks the column {', '.join(missing)}; it has {', '.join(frame.columns)}.")
    kind = frame.schema["open_time"]
    if kind != pl.Date and not isinstance(kind, pl.Datetime):
        raise InputError(f"The times of {origin} cannot be read. Write them as 2024-01-31 or 2024-01-31T09:30.")
    if not (frame.schema["weight"].is_numeric() or frame.schema["weight"] == pl.Null):
        raise InputError(
            f"The weights of {origin} are {frame.schema['weight']}, not numbers. Give shares of equity, such as 0.1."
        )
    naive = pl.col("open_time").cast(pl.Datetime("us"))
    utc = (
        naive.dt.replace_time_zone("UTC")
        if getattr(kind, "time_zone", None) is None
        else pl.col("open_time").dt.convert_time_zone("UTC")
    )
    return frame.select(
        pl.col("symbol").cast(pl.String),
        utc.cast(pl.Datetime("us", "UTC")).alias("open_time"),
        pl.col("weight").cast(pl.Float64),
    ).sort("symbol", "open_time")


def _require_frame(frame: object, origin: str) -> None:
    if not isinstance(frame, pl.DataFrame):
        raise InputError(
            f"{origin} must be a polars frame, not {type(frame).__name__}. `polars.from_pandas` converts a pandas frame."
        )


def bars_interval(bars: pl.DataFrame, interval: Interval | None) -> Interval:
    """`interval`, or that of the bars. InputError for what is not a frame of bars."""
    _require_frame(bars, "the bars")
    require_columns(bars, ("symbol", "open_time", "open", "close", "volume"), "bars")
    return interval or interval_of(bars.select("symbol", "open_time").sort("symbol", "open_time"))


def instruments_for(bars: pl.DataFrame, interval: Interval, can_short: bool | None) -> dict[str, Instrument]:
    """What the symbols of a file may do: stocks, told by New York's calendar, can be sold short; spot cannot."""
    calendars = infer_calendars(bars.select(pl.col("symbol").cast(pl.String), "open_time"), interval)
    return {
        symbol: file_instrument("file", symbol, calendar, inferred=True, can_short=can_short)
        for symbol, calendar in calendars.items()
    }


def backtest_frame(
    bars: pl.DataFrame,
    weights: pl.DataFrame | None,
    *,
    strategy: str | None,
    params: Mapping[str, Any],
    fee_bps: float,
    slippage_bps: float,
    capital: float = 1_000_000.0,
    can_short: bool | None = None,
    interval: Interval | None = None,
    neutralise: NeutraliseSpec | None = None,
    source: str | None = None,
    ledger: Ledger | None = None,
    known: Strategies = SHIPPED_STRATEGIES,
) -> BacktestResult:
    """Weights, or a strategy that works on bars, over bars that need no adjusting. InputError unless exactly one is given.

    known: where the strategy is found. ledger: opens the workspace whose ledger counts the result as a trial; None leaves it
    uncounted. source: name of the file.
    """
    if (strategy is None) == (weights is None):
        raise InputError("Give either weights or the name of a strategy.")
    length = bars_interval(bars, interval)
    instruments = instruments_for(bars, length, can_short)
    costs = CostSpec(fee_bps=fee_bps, slippage_bps=slippage_bps, capital=capital)
    given = weights_from(weights, "the weights") if weights is not None else None
    neutral = None if neutralise is None else with_file(neutralise)
    if given is not None:
        told: tuple[str, ...] = ()
        asked = given
        if neutral is not None:
            asked, told = neutralised(given, neutral, instruments, bars, length)
        result = backtest(bars, asked, interval=length, instruments=instruments, costs=costs)
        result = dataclasses.replace(result, notes=(*told, *result.notes)) if told else result
    else:
        over_bars(str(strategy), known)
        result = backtest_strategy(
            str(strategy), params, bars, interval=length, instruments=instruments, costs=costs, neutralise=neutral, known=known
        )
    if ledger is None:
        return result
    of = Evaluated(
        bars=bars,
        interval=length,
        costs=costs,
        strategy=strategy,
        known=known,
        params=params,
        weights=given,
        source=source,
        instruments=instruments,
        choices=_choices(instruments, neutral),
    )
    return counted(ledger, result, of)


def _choices(instruments: Mapping[str, Instrument], neutralise: NeutraliseSpec | None) -> dict[str, Any]:
    """What else tells one trial from another."""
    shorts = {"can_short": any(instrument.can_short for instrument in instruments.values())}
    return shorts if neutralise is None else {**shorts, "neutralise": msgspec.to_builtins(neutralise)}


def over_bars(name: str, known: Strategies) -> None:
    """InputError unless the strategy of that name works on bars alone."""
    if known.find(name).needs != "bars":
        raise InputError(f"The strategy {name} works on predictions. Use it in an experiment, or give weights.")


def run_backtest(
    source: Path,
    *,
    strategy: str | None,
    weights: Path | None,
    params: Mapping[str, Any],
    fee_bps: float,
    slippage_bps: float,
    output: Path | None,
    neutralise: NeutraliseSpec | None = None,
    ledger: Ledger | None = None,
    known: Strategies = SHIPPED_STRATEGIES,
) -> dict[str, Any]:
    """What `tidemill backtest` answers: final_equity, trades, fees, max_drawdown, equity and what it was run on.

    trial: its id in the ledger; None where it was not counted, which a note then says. attribution: part, name, profit, return
    (`metrics.attribution`), and beta to the mean of all symbols.
    """
    bars, interval, refused = read_bars(source)
    given = read_weights(weights) if weights is not None else None
    result = backtest_frame(
        bars,
        given,
        strategy=strategy,
        params=params,
        fee_bps=fee_bps,
        slippage_bps=slippage_bps,
        interval=interval,
        neutralise=neutralise,
        source=slug(stem(source)),
        ledger=ledger,
        known=known,
    )
    if output is not None:
        write_result(result, output)
    parts, beta = attribution_of(result)
    return {
        **summary(result),
        "slippage": result.slippage,
        "borrow": result.borrow,
        "turnover": result.turnover,
        "bars": bars.height,
        "refused_rows": refused,
        "interval": str(interval),
        "trial": result.trial,
        "beta": beta,
        "attribution": parts.to_dicts(),
        "notes": list(result.notes),
    }


def write_result(result: BacktestResult, folder: Path) -> None:
    """trades.parquet, equity.parquet and positions.parquet in `folder`, which is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in (("trades", result.trades), ("equity", result.equity), ("positions", result.positions)):
            with replacing(folder / f"{name}.parquet") as temporary:
                frame.write_parquet(temporary)
    except OSError as exc:
        raise InputError(f"{folder} cannot be written: {exc.strerror}. Choose another --output.") from exc
