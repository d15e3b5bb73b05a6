"""Compiling ahead of the first run: set-up calls this, so that nobody waits for it later."""

from __future__ import annotations


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
    sweep_strategy("sma_cross", {"fast": [1], "slow": [2]}, bars, interval=day, instruments={}, threads=1)
