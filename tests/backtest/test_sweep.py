"""Sweeps: every run equals the single backtest to the bit, whatever the panel looks like."""

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backtest.panels import DAY, FREE, Market, instrument, one
from tidemill.backtest.by_strategy import backtest_strategy
from tidemill.backtest.sweep import sweep_strategy
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.strategies import sma_kernel
from tidemill.strategies.base import Strategy
from tidemill.strategies.registry import Strategies

GRID = {"fast": [1, 2, 5], "slow": [3, 5, 9]}


def regular(symbols: int = 3, slots: int = 40, seed: int = 0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    return pl.concat([one(f"S{at}", np.exp(random.normal(3, 0.1, slots))) for at in range(symbols)])


@given(seed=st.integers(0, 10_000), gaps=st.booleans(), threads=st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_each_run_is_the_single_backtest_to_the_bit(seed: int, gaps: bool, threads: int) -> None:
    market = Market(seed)
    bars = market.bars if gaps else regular(seed=seed)
    common = {"interval": DAY, "instruments": market.instruments, "costs": market.costs, "adjustments": market.actions}
    made = sweep_strategy("sma_cross", GRID, bars, threads=threads, **common)  # type: ignore[arg-type]  # the same for both
    assert made.skipped == 2  # 5 is not below 3, nor below 5
    for at, config in enumerate(made.configs):
        single = backtest_strategy("sma_cross", config, bars, **common)  # type: ignore[arg-type]  # the same for both
        assert made.equity[:, at].tobytes() == single.equity["equity"].to_numpy().tobytes()
        figures = made.figures[at]
        assert (figures.final_equity, figures.trades, figures.fees) == (single.final_equity, single.trades.height, single.fees)
        assert (figures.borrow, figures.turnover, figures.max_drawdown) == (single.borrow, single.turnover, single.max_drawdown)
        np.testing.assert_array_equal(made.returns[:, at], single.returns["return"].to_numpy())


def test_means_that_do_not_fit_into_memory_together_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    bars = regular()
    whole = sweep_strategy("sma_cross", GRID, bars, interval=DAY, instruments={}, costs=FREE)
    monkeypatch.setattr(sma_kernel, "_MEANS_AT_ONCE", 1)
    parts = sweep_strategy("sma_cross", GRID, bars, interval=DAY, instruments={}, costs=FREE)
    assert parts.configs == whole.configs
    np.testing.assert_array_equal(parts.equity, whole.equity)


def test_a_strategy_of_ones_own_can_be_swept_without_a_fast_door() -> None:
    above = msgspec.defstruct("Above", [("level", float, 1.0)], frozen=True, kw_only=True)

    def weigh(bars: pl.DataFrame, params: object, _: object) -> pl.DataFrame:
        held = (pl.col("close") > params.level).cast(pl.Float64) / 3  # type: ignore[attr-defined]  # of `above`
        return bars.select("symbol", "open_time", held.alias("weight"))

    own = Strategy(name="above_level", about="", needs="bars", params=above, weigh=weigh)
    known = Strategies({own.name: own})
    bars, levels = regular(), {"level": [18.0, 20.0, "22"]}
    made = sweep_strategy("above_level", levels, bars, interval=DAY, instruments={}, costs=FREE, known=known)
    for at, level in enumerate((18.0, 20.0, 22.0)):
        single = backtest_strategy("above_level", {"level": level}, bars, interval=DAY, instruments={}, costs=FREE, known=known)
        np.testing.assert_array_equal(made.equity[:, at], single.equity["equity"].to_numpy())


def test_grids_that_make_no_sense_are_refused() -> None:
    given = {"interval": DAY, "instruments": {"A": instrument("A")}, "costs": FREE}
    bars = regular()
    with pytest.raises(UnknownNameError, match="fast, slow"):
        sweep_strategy("sma_cross", {"window": [1]}, bars, **given)  # type: ignore[arg-type]  # as above
    with pytest.raises(InputError, match="gives no value"):
        sweep_strategy("sma_cross", {"fast": []}, bars, **given)  # type: ignore[arg-type]  # as above
    with pytest.raises(InputError, match="below slow"):
        sweep_strategy("sma_cross", {"fast": [9], "slow": [3, 5]}, bars, **given)  # type: ignore[arg-type]  # as above
    with pytest.raises(InputError, match="combinations"):
        sweep_strategy("sma_cross", {}, bars, **given)  # type: ignore[arg-type]  # as above
    with pytest.raises(InputError, match="combinations"):
        sweep_strategy("sma_cross", {"fast": range(400), "slow": range(400)}, bars, **given)  # type: ignore[arg-type]  # as above
    with pytest.raises(InputError, match="strategy over bars"):
        sweep_strategy("quantile", {"every": [1]}, bars, **given)  # type: ignore[arg-type]  # as above
