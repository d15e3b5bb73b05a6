"""The backtest command: bars from a file, a strategy or weights, results as figures and files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from tidemill.domain.errors import InputError
from tidemill.domain.experiment import CostSpec
from tidemill.domain.intervals import Interval
from tidemill.domain.market import Calendar, Instrument, slug
from tidemill.engine.backtest import BacktestResult, backtest
from tidemill.engine.result import summary
from tidemill.market.calendars import infer_calendar
from tidemill.market.files import STOCK_BORROW_BPS
from tidemill.market.tables import stem
from tidemill.research.columns import read_weights
from tidemill.research.counted_backtests import Evaluated, counted
from tidemill.research.frames import interval_of, read_bars
from tidemill.strategies.registry import strategy as strategy_named
from tidemill.strategies.registry import target_weights

if TYPE_CHECKING:
    from tidemill.research.workspace import Workspace

    Ledger = Callable[[], AbstractContextManager[Workspace]]


def weights_from(frame: pl.DataFrame, origin: str) -> pl.DataFrame:
    """symbol, open_time, weight as the kernel takes them. InputError for a missing column or a time that is none."""
    if "open_time" not in frame.columns:
        frame = frame.rename({name: "open_time" for name in ("date", "ts", "time") if name in frame.columns})
    missing = [name for name in ("symbol", "open_time", "weight") if name not in frame.columns]
    if missing:
        raise InputError(f"{origin} lacks the column {', '.join(missing)}; it has {', '.join(frame.columns)}.")
    kind = frame.schema["open_time"]
    if kind == pl.String or not kind.is_temporal():
        raise InputError(f"The times of {origin} cannot be read. Write them as 2024-01-31 or 2024-01-31T09:30.")
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


def _instruments(bars: pl.DataFrame, interval: Interval, can_short: bool | None) -> dict[str, Instrument]:
    """What the symbols of a file may do: stocks, told by New York's calendar, can be sold short; spot cannot."""
    calendar = infer_calendar(bars, interval)
    short = calendar is Calendar.XNYS if can_short is None else can_short
    return {
        symbol: Instrument(
            venue="file", symbol=symbol, calendar=calendar, can_short=short, borrow_bps=STOCK_BORROW_BPS if short else 0.0
        )
        for symbol in bars["symbol"].unique().to_list()
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
    source: str | None = None,
    ledger: Ledger | None = None,
) -> BacktestResult:
    """Weights, or a strategy that works on bars, over bars that need no adjusting. InputError unless exactly one is given.

    ledger: opens the workspace whose ledger counts the result as a trial; None leaves it uncounted. source: name of the file.
    """
    if (strategy is None) == (weights is None):
        raise InputError("Give either weights or the name of a strategy.")
    length = interval or interval_of(bars.select("symbol", "open_time").sort("symbol", "open_time"))
    instruments = _instruments(bars, length, can_short)
    costs = CostSpec(fee_bps=fee_bps, slippage_bps=slippage_bps, capital=capital)
    given = weights_from(weights, "the weights") if weights is not None else None
    if given is not None:
        result = backtest(bars, given, interval=length, instruments=instruments, costs=costs)
    else:
        chosen = strategy_named(str(strategy))
        if chosen.needs != "bars":
            raise InputError(f"The strategy {strategy} works on predictions. Use it in an experiment, or give weights.")
        targets = target_weights(chosen.name, bars, params, instruments)
        result = backtest(bars, targets, interval=length, instruments=instruments, costs=costs, resize=chosen.resize)
    if ledger is None:
        return result
    shorts = any(instrument.can_short for instrument in instruments.values())
    of = Evaluated(
        bars=bars,
        interval=length,
        costs=costs,
        strategy=strategy,
        params=params,
        weights=given,
        source=source,
        choices={"can_short": shorts},
    )
    return counted(ledger, result, of)


def run_backtest(
    source: Path,
    *,
    strategy: str | None,
    weights: Path | None,
    params: Mapping[str, Any],
    fee_bps: float,
    slippage_bps: float,
    output: Path | None,
    ledger: Ledger | None = None,
) -> dict[str, Any]:
    """What `tidemill backtest` answers: final_equity, trades, fees, max_drawdown, equity and what it was run on.

    trial: its id in the ledger; None where it was not counted, which a note then says.
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
        source=slug(stem(source)),
        ledger=ledger,
    )
    if output is not None:
        write_result(result, output)
    return {
        **summary(result),
        "slippage": result.slippage,
        "borrow": result.borrow,
        "turnover": result.turnover,
        "bars": bars.height,
        "refused_rows": refused,
        "interval": str(interval),
        "trial": result.trial,
        "notes": list(result.notes),
    }


def write_result(result: BacktestResult, folder: Path) -> None:
    """trades.parquet, equity.parquet and positions.parquet in `folder`, which is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in (("trades", result.trades), ("equity", result.equity), ("positions", result.positions)):
            temporary = folder / f".{name}.partial"
            frame.write_parquet(temporary)
            temporary.replace(folder / f"{name}.parquet")
    except OSError as exc:
        raise InputError(f"{folder} cannot be written: {exc.strerror}. Choose another --output.") from exc
