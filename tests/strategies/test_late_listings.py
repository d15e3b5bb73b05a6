"""A symbol that is listed later changes no earlier signal: not by its number, not by what it allows, not by a bit."""

from itertools import product

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backtest.panels import DAY, FREE, TIME, day, instrument
from tidemill.backtest.by_strategy import backtest_strategy
from tidemill.backtest.sweep import sweep_strategy
from tidemill.domain.experiment import NeutraliseSpec
from tidemill.strategies.registry import strategy, weigh

SLOTS = 48
PARAMS = {
    "quantile": {"quantile": 0.3, "every": 3, "max_weight": 1.0},
    "long_only_top_k": {"k": 3, "every": 3, "max_weight": 1.0},
    "inverse_volatility": {"window": 12, "least": 6, "every": 6, "quantile": 0.4, "max_weight": 1.0},
    "mean_variance": {"window": 12, "least": 6, "every": 12, "quantile": 0.4, "max_weight": 1.0},
    "sma_cross": {"fast": 2, "slow": 5},
}
NEUTRAL = {
    "nothing": None,
    "sector": NeutraliseSpec(by="sector", sectors={f"S{number:02d}": "ab"[number % 2] for number in range(12)}),
    "beta": NeutraliseSpec(by="beta", window=12, least=4),
}
# What is neutral is taken out of the weights of any strategy in the same way: of the slowest one that is long.
LONG = {("mean_variance", "sector"), ("mean_variance", "beta")}
CASES = [pytest.param(*case, marks=[pytest.mark.long] if case in LONG else []) for case in product(PARAMS, NEUTRAL)]


def panel(symbols: list[str], listed: dict[str, int], seed: int) -> pl.DataFrame:
    """Bars with predictions beside them; what a symbol shows does not depend on which others there are."""
    frames = []
    for symbol in symbols:
        random = np.random.default_rng((seed, int(symbol[1:])))
        first, rows = listed.get(symbol, 0), SLOTS
        close = 100.0 * np.exp(np.cumsum(random.normal(0.0, 0.02, rows)))
        frame = pl.DataFrame({
            "symbol": [symbol] * rows,
            "open_time": pl.Series([day(at) for at in range(rows)], dtype=TIME),
            "open": close, "close": close, "volume": [1e9] * rows,
            "prediction": random.normal(size=rows),
        })  # fmt: skip
        frames.append(frame[first:])
    return pl.concat(frames)


def signals(name: str, frame: pl.DataFrame, can_short: list[str], neutralise: NeutraliseSpec | None) -> pl.DataFrame:
    bars, needs = frame.drop("prediction"), strategy(name).needs
    inputs = bars if needs == "bars" else frame.select("symbol", "open_time", "prediction")
    venue = {symbol: instrument(symbol, can_short=symbol in can_short) for symbol in frame["symbol"].unique()}
    return weigh(name, inputs, PARAMS[name], venue, DAY, bars=bars, neutralise=neutralise).weights


@st.composite
def universes(draw: st.DrawFn) -> tuple[list[str], list[str], int, list[str]]:
    """Symbols from the start, those listed later, when, and those that can be short."""
    names = draw(st.permutations([f"S{number:02d}" for number in range(12)]))
    first = draw(st.integers(1, 10))
    late = draw(st.integers(1, 12 - first))
    shorts = draw(st.sampled_from([names, [], names[first:], names[:first]]))
    return sorted(names[:first]), sorted(names[first : first + late]), draw(st.integers(8, 40)), list(shorts)


@pytest.mark.parametrize(("name", "neutral"), CASES)
@given(universe=universes(), seed=st.integers(0, 1_000))
@settings(max_examples=15, deadline=None)
def test_a_symbol_that_is_listed_later_changes_no_earlier_signal(
    name: str, neutral: str, universe: tuple[list[str], list[str], int, list[str]], seed: int
) -> None:
    early, late, at, shorts = universe
    if neutral == "beta" and not set(shorts) & set(early):
        shorts = [*shorts, early[0]]  # else there is nothing to make neutral with, which is refused
    alone = panel(early, {}, seed)
    both = panel(sorted(early + late), dict.fromkeys(late, at), seed)
    before = pl.col("open_time") < day(at)
    order = ("open_time", "symbol")
    expected = signals(name, alone, shorts, NEUTRAL[neutral]).filter(before).sort(order)
    assert signals(name, both, shorts, NEUTRAL[neutral]).filter(before).sort(order).equals(expected)


@given(seed=st.integers(0, 1_000), at=st.integers(8, 40))
@settings(max_examples=10, deadline=None)
def test_the_account_of_a_moving_average_cross_is_the_same_until_a_symbol_is_listed(seed: int, at: int) -> None:
    early, listed = ["S00", "S03"], {"S01": at, "S07": min(at + 3, SLOTS - 1)}
    common = {"interval": DAY, "instruments": {}, "costs": FREE}
    alone, both = (frame.drop("prediction") for frame in (panel(early, {}, seed), panel([*early, *listed], listed, seed)))
    both = both.sort("symbol", "open_time")
    expected = backtest_strategy("sma_cross", PARAMS["sma_cross"], alone, **common).equity["equity"]  # type: ignore[arg-type]  # the same for both
    found = backtest_strategy("sma_cross", PARAMS["sma_cross"], both, **common).equity["equity"]  # type: ignore[arg-type]  # the same for both
    assert found[: at + 1].equals(expected[: at + 1])
    swept = sweep_strategy("sma_cross", {"fast": [2], "slow": [5]}, both, **common)  # type: ignore[arg-type]  # the same for both
    assert swept.equity[:, 0].tobytes() == found.to_numpy().tobytes()


def test_a_share_counts_the_symbols_that_are_listed_by_then() -> None:
    frame = panel(["S00", "S01", "S02", "S03"], {"S02": 20, "S03": 30}, 3)
    weights = signals("sma_cross", frame, [], None).filter(pl.col("weight") > 0.0)
    listed = (pl.col("open_time") >= day(20)).cast(pl.Int64) + (pl.col("open_time") >= day(30)).cast(pl.Int64)
    assert weights.select(pl.col("weight") == 1.0 / (2 + listed)).to_series().all()
    assert weights["weight"].unique().len() == 3
