"""The backtest command: bars from a file, a strategy or weights, results as figures and files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from tidemill.domain.errors import InputError
from tidemill.domain.experiment import CostSpec
from tidemill.domain.intervals import Interval
from tidemill.engine.backtest import BacktestResult, backtest
from tidemill.engine.result import summary
from tidemill.research.frames import read_bars
from tidemill.strategies.registry import strategy, target_weights


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


def run_strategy(
    bars: pl.DataFrame, interval: Interval, name: str, params: Mapping[str, Any], costs: CostSpec
) -> BacktestResult:
    """A strategy that works on bars, over bars that need no adjusting."""
    chosen = strategy(name)
    if chosen.needs != "bars":
        raise InputError(f"The strategy {name} works on predictions. Use it in an experiment, or give --weights.")
    weights = target_weights(name, bars, params, {})
    return backtest(bars, weights, interval=interval, instruments={}, costs=costs, resize=chosen.resize)


def run_backtest(
    source: Path,
    *,
    strategy: str | None,
    weights: Path | None,
    params: Mapping[str, Any],
    fee_bps: float,
    slippage_bps: float,
    output: Path | None,
) -> dict[str, Any]:
    """What `tidemill backtest` answers: final_equity, trades, fees, max_drawdown, equity and what it was run on."""
    bars, interval, refused = read_bars(source)
    costs = CostSpec(fee_bps=fee_bps, slippage_bps=slippage_bps)
    if strategy is not None:
        result = run_strategy(bars, interval, strategy, params, costs)
    else:
        if weights is None or not weights.is_file():
            raise InputError(f"The weights file {weights} does not exist. Check the path.")
        given = pl.read_parquet(weights) if weights.suffix == ".parquet" else pl.read_csv(weights, try_parse_dates=True)
        result = backtest(bars, weights_from(given, str(weights)), interval=interval, instruments={}, costs=costs)
    if output is not None:
        write_result(result, output)
    return {
        **summary(result),
        "slippage": result.slippage,
        "turnover": result.turnover,
        "bars": bars.height,
        "refused_rows": refused,
        "interval": str(interval),
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
