"""Strategies that rank predictions, in universes from one symbol up; the registry; the benchmark."""

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backtest.panels import DAY, FREE, TIME, day, instrument, one
from tests.strategies.weights import target_weights
from tidemill.backtest.by_strategy import backtest_strategy
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.market import Instrument
from tidemill.strategies.base import Strategy
from tidemill.strategies.benchmark import benchmark_weights
from tidemill.strategies.registry import SHIPPED_STRATEGIES, Strategies, strategy


def predictions(rows: dict[int, dict[str, float | None]]) -> pl.DataFrame:
    flat = [(symbol, day(at), value) for at, own in rows.items() for symbol, value in own.items()]
    return pl.DataFrame(flat, schema={"symbol": pl.String, "open_time": TIME, "prediction": pl.Float64}, orient="row")


def shortable(*symbols: str) -> dict[str, Instrument]:
    return {symbol: instrument(symbol, can_short=True) for symbol in symbols}


def at(weights: pl.DataFrame, number: int) -> dict[str, float]:
    return dict(weights.filter(pl.col("open_time") == day(number)).select("symbol", "weight").iter_rows())


FIVE = {"A": 5.0, "B": 4.0, "C": 3.0, "D": 2.0, "E": 1.0}


def test_five_symbols_are_long_the_best_and_short_the_worst_within_the_position_cap() -> None:
    weights = target_weights("quantile", predictions({0: FIVE}), {}, shortable(*FIVE))
    assert at(weights, 0) == {"A": 0.1, "B": 0.0, "C": 0.0, "D": 0.0, "E": -0.1}
    loose = target_weights("quantile", predictions({0: FIVE}), {"max_weight": 1.0}, shortable(*FIVE))
    assert at(loose, 0) == {"A": 0.5, "B": 0.0, "C": 0.0, "D": 0.0, "E": -0.5}


def test_where_nothing_can_be_short_all_of_gross_is_long_the_top_quantile() -> None:
    weights = target_weights("quantile", predictions({0: FIVE}), {"max_weight": 1.0, "quantile": 0.4}, {})
    assert at(weights, 0) == {"A": 0.5, "B": 0.5, "C": 0.0, "D": 0.0, "E": 0.0}


def test_only_what_can_be_short_is_short() -> None:
    weights = target_weights("quantile", predictions({0: FIVE}), {"quantile": 0.4, "max_weight": 1.0}, shortable("D"))
    assert at(weights, 0) == {"A": 0.25, "B": 0.25, "C": 0.0, "D": -0.25, "E": 0.0}


def test_rebalancing_happens_every_k_times_counted_from_the_first() -> None:
    rows = dict.fromkeys(range(12), FIVE)
    weights = target_weights("quantile", predictions(rows), {"every": 5}, shortable(*FIVE))
    assert weights.get_column("open_time").unique().sort().to_list() == [day(0), day(5), day(10)]
    longer = target_weights("quantile", predictions(rows | {12: FIVE, 15: FIVE}), {"every": 5}, shortable(*FIVE))
    assert longer.filter(pl.col("open_time") <= day(10)).equals(weights)


def test_a_symbol_without_a_prediction_is_closed_and_equal_predictions_are_no_opinion() -> None:
    weights = target_weights(
        "quantile", predictions({0: FIVE, 1: FIVE | {"A": None}, 2: dict.fromkeys(FIVE, 1.0)}), {"every": 1}, {}
    )
    assert (at(weights, 1)["A"], at(weights, 1)["B"]) == (0.0, 0.1)
    assert set(at(weights, 2).values()) == {0.0}


def test_one_symbol_alone_is_held_while_its_prediction_is_above_zero() -> None:
    rows = predictions({0: {"A": 0.1}, 1: {"A": -0.1}, 2: {"A": 0.0}})
    assert target_weights("quantile", rows, {"every": 1}, {}).get_column("weight").to_list() == [0.1, 0.0, 0.0]
    assert target_weights("quantile", rows, {"every": 1}, shortable("A")).get_column("weight").to_list() == [0.1, -0.1, 0.0]
    assert target_weights("long_only_top_k", rows, {"every": 1}, {}).get_column("weight").to_list() == [0.1, 0.0, 0.0]


def test_top_k_holds_the_best_but_at_most_half_of_the_universe() -> None:
    weights = target_weights("long_only_top_k", predictions({0: FIVE}), {"max_weight": 1.0}, {})
    assert at(weights, 0) == {"A": 0.5, "B": 0.5, "C": 0.0, "D": 0.0, "E": 0.0}
    one_of_them = target_weights("long_only_top_k", predictions({0: FIVE}), {"max_weight": 1.0, "k": 1}, {})
    assert at(one_of_them, 0)["A"] == 1.0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.one_of(st.none(), st.floats(-1, 1)), min_size=8, max_size=8), min_size=1, max_size=6),
    st.floats(0.05, 0.5),
    st.booleans(),
)
def test_weights_stay_within_gross_and_cap_and_both_sides_are_the_same_size(
    rows: list[list[float | None]], quantile: float, short: bool
) -> None:
    names = [f"S{number}" for number in range(8)]
    given_ = predictions({number: dict(zip(names, row, strict=True)) for number, row in enumerate(rows)})
    instruments = shortable(*names) if short else {}
    params = {"quantile": quantile, "every": 1, "max_weight": 0.2}
    weights = target_weights("quantile", given_, params, instruments)
    for (_,), own in weights.group_by("open_time"):
        values = own.get_column("weight")
        assert values.abs().sum() <= 1.0 + 1e-9
        assert values.abs().max() <= 0.2
        if short and (values != 0).sum() > 1:
            assert (values > 0).sum() == (values < 0).sum()


def test_no_predictions_give_no_weights() -> None:
    assert target_weights("quantile", predictions({}), {}, {}).is_empty()
    assert target_weights("quantile", predictions({0: {"A": None, "B": float("nan")}}), {}, {}).is_empty()


def test_a_strategy_over_predictions_starts_with_the_first_of_them() -> None:
    market = pl.concat([one(name, [10.0] * 8) for name in FIVE])
    result = backtest_strategy("quantile", {"every": 1}, market, interval=DAY, instruments={}, costs=FREE,
                               predictions=predictions({4: FIVE, 5: FIVE}))  # fmt: skip
    assert result.equity.get_column("time")[0] == day(4)
    assert result.fills.get_column("time").to_list() == [day(5)]
    with pytest.raises(InputError, match="needs predictions"):
        backtest_strategy("quantile", {}, market, interval=DAY, instruments={})


def test_unknown_names_and_wrong_inputs_say_what_there_is() -> None:
    assert set(SHIPPED_STRATEGIES.names()) >= {"quantile", "long_only_top_k", "sma_cross"}
    with pytest.raises(UnknownNameError, match="long_only_top_k, mean_variance, quantile, sma_cross"):
        strategy("martingale")
    with pytest.raises(UnknownNameError, match="quantile, every, gross, max_weight"):
        target_weights("quantile", predictions({0: FIVE}), {"top": 3}, {})
    with pytest.raises(InputError, match="at most 0"):
        target_weights("quantile", predictions({0: FIVE}), {"quantile": 0.7}, {})
    with pytest.raises(InputError, match="prediction"):
        target_weights("quantile", one("A", [1, 2]), {}, {})


def test_a_strategy_of_ones_own_is_known_where_it_is_given_and_nowhere_else() -> None:
    own = Strategy(name="hold_all", about="", needs="bars", params=msgspec.defstruct("None_", []), weigh=lambda bars, *_: bars)
    known = Strategies({"hold_all": own})
    assert known.find("hold_all") is own
    assert known.find("quantile") is strategy("quantile")
    with pytest.raises(UnknownNameError, match="hold_all"):
        strategy("hold_all")


def test_the_benchmark_buys_what_is_there_at_first_and_holds() -> None:
    market = pl.concat([one("A", [10, 10, 10]), one("B", [10, 10, 10]), one("C", [10, 10, 10])[1:]])
    equal = benchmark_weights(market, "equal_weight")
    assert equal.rows() == [("A", day(0), 0.5), ("B", day(0), 0.5)]
    assert benchmark_weights(market, "C").rows() == [("C", day(1), 1.0)]
    with pytest.raises(UnknownNameError, match="equal_weight, A, B, C"):
        benchmark_weights(market, "SPY")
    with pytest.raises(InputError, match="no bars"):
        benchmark_weights(market.clear(), "equal_weight")
