"""Compiling ahead of the first run: set-up calls this, so that nobody waits for it later."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from tidemill.domain.market import Instrument


def warm() -> None:
    """Compile the kernels of backtest and strategies into the cache (seconds; milliseconds when they are there)."""
    import polars as pl

    from tidemill.backtest.by_strategy import backtest_strategy
    from tidemill.backtest.sweep import sweep_strategy
    from tidemill.calendars import ALWAYS
    from tidemill.domain.intervals import EPOCH, Interval
    from tidemill.domain.market import Instrument

    day = Interval.parse("1d")
    bars = pl.DataFrame(
        {
            "symbol": ["WARM"] * 4,
            "open_time": pl.Series([EPOCH + day.delta * at for at in range(4)]).cast(pl.Datetime("us", "UTC")),
            "open": [1.0, 1.0, 2.0, 2.0],
            "close": [1.0, 2.0, 2.0, 2.0],
            "volume": [1e9] * 4,
        }
    )
    made = backtest_strategy("sma_cross", {"fast": 1, "slow": 2}, bars, interval=day, instruments={})
    _ = made.positions, made.contributions  # worked out, and so compiled, when they are asked for
    # Symbols of more than one calendar have a scan of their own.
    both = pl.concat([bars, bars.with_columns(symbol=pl.lit("WARMER"))])
    clock = {"WARM": Instrument(venue="none", symbol="WARM", calendar=ALWAYS)}
    mixed = backtest_strategy("sma_cross", {"fast": 1, "slow": 2}, both, interval=day, instruments=clock)
    _ = mixed.contributions
    _warm_strategies(bars, Instrument(venue="none", symbol="WARM", calendar=ALWAYS, can_short=True))
    sweep_strategy("sma_cross", {"fast": [1], "slow": [2]}, bars, interval=day, instruments={}, threads=1)


def _warm_strategies(bars: pl.DataFrame, instrument: Instrument) -> None:
    from tidemill.domain.experiment import NeutraliseSpec
    from tidemill.domain.intervals import Interval
    from tidemill.strategies.registry import weigh

    day, known = Interval.parse("1d"), {instrument.symbol: instrument}
    predictions = bars.rename({"close": "prediction"}).select("symbol", "open_time", "prediction")
    weigh("sma_cross", bars, {}, known, day)
    weigh("long_only_top_k", predictions, {}, known, day)
    weigh("inverse_volatility", predictions, {}, known, day, bars=bars)
    for neutral in (NeutraliseSpec(by="sector", sectors={"WARM": "none"}), NeutraliseSpec(by="beta", window=2, least=2)):
        weigh("quantile", predictions, {}, known, day, bars=bars, neutralise=neutral)
