"""A book of coins and stocks ranks all of them at each time: while a market is closed, its newest predictions stand."""

from collections.abc import Mapping
from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backtest.panels import DAY, FREE, TIME, day, instrument, one
from tests.strategies.weights import target_weights
from tidemill.backtest.by_strategy import backtest_strategy
from tidemill.calendars import ALWAYS, XNYS
from tidemill.domain.market import Instrument
from tidemill.strategies.custom import custom_strategy
from tidemill.strategies.registry import Strategies, weigh

# Day 0 was Monday, 1 January 2024, on which New York was closed, as it was on day 14, Martin Luther King day.
FRIDAY, SATURDAY, SUNDAY, MONDAY = 4, 5, 6, 7
SLOTS = 21
SESSIONS = frozenset(at for at in range(SLOTS) if at % 7 < 5 and at not in {0, 14})
COINS, STOCKS = ("BTC", "ETH"), ("KO", "PEP", "XOM")
BOTH: Mapping[str, Instrument] = {
    **{symbol: instrument(symbol, calendar=ALWAYS) for symbol in COINS},
    **{symbol: instrument(symbol, calendar=XNYS, can_short=True) for symbol in STOCKS},
}
SCORE = {"BTC": 1.0, "ETH": 2.0, "KO": 5.0, "PEP": 3.0, "XOM": -4.0}
EACH = {"every": 1, "quantile": 0.2, "max_weight": 1.0}


def own_days(symbol: str) -> frozenset[int]:
    return frozenset(range(SLOTS)) if symbol in COINS else SESSIONS


def frame(rows: Mapping[tuple[str, int], float | None], hours: Mapping[str, int] | None = None) -> pl.DataFrame:
    """(symbol, day) → prediction; hours: after midnight, of the symbols that are stamped otherwise."""
    flat = [(symbol, day(at) + timedelta(hours=(hours or {}).get(symbol, 0)), value) for (symbol, at), value in rows.items()]
    return pl.DataFrame(flat, schema={"symbol": pl.String, "open_time": TIME, "prediction": pl.Float64}, orient="row")


def whole(**changed: float | None) -> dict[tuple[str, int], float | None]:
    """The same prediction at each own slot; NAME_DAY=value changes one."""
    rows: dict[tuple[str, int], float | None] = {(symbol, at): SCORE[symbol] for symbol in SCORE for at in own_days(symbol)}
    for name, value in changed.items():
        symbol, at = name.split("_")
        rows[symbol, int(at)] = value
    return rows


def at(weights: pl.DataFrame, number: int) -> dict[str, float]:
    return dict(weights.filter(pl.col("open_time") == day(number)).select("symbol", "weight").iter_rows())


@pytest.mark.parametrize("name", ["quantile", "long_only_top_k"])
def test_at_a_weekend_the_predictions_of_friday_stand_for_the_stocks(name: str) -> None:
    params = {"every": 1, "max_weight": 1.0, **({"k": 1} if name == "long_only_top_k" else {"quantile": 0.2})}
    weights = target_weights(name, frame(whole()), params, BOTH)
    for closed in (SATURDAY, SUNDAY, 14):
        assert at(weights, closed) == at(weights, FRIDAY)
    assert at(weights, SUNDAY)["KO"] > 0.0
    changed = target_weights(name, frame(whole(BTC_6=9.0)), params, BOTH)
    assert (at(changed, SUNDAY)["BTC"] > 0.0, at(changed, SUNDAY)["KO"]) == (True, 0.0)
    assert at(changed, MONDAY) == at(weights, MONDAY)


def test_a_slot_of_its_own_without_a_prediction_closes_and_stays_so_over_the_weekend() -> None:
    rows = whole()
    del rows["KO", FRIDAY]  # rejected, or no bar
    rows["PEP", FRIDAY] = None
    weights = target_weights("quantile", frame(rows), EACH, BOTH)
    assert at(weights, 3)["KO"] > 0.0
    for closed in (FRIDAY, SATURDAY, SUNDAY):
        assert (at(weights, closed)["KO"], at(weights, closed)["PEP"]) == (0.0, 0.0)
        assert at(weights, closed)["ETH"] > 0.0
    assert at(weights, MONDAY)["KO"] > 0.0


def test_bars_tell_the_slots_of_a_market_all_of_whose_predictions_are_rejected() -> None:
    """Stamped at five in the morning, where the calendar expects midnight and so cannot tell."""
    hours = dict.fromkeys(STOCKS, 5)
    rows = {key: value for key, value in whole().items() if key[0] in COINS or key[1] != 3}
    there = frame(whole(), hours)
    kept = target_weights("quantile", frame(rows, hours), EACH, BOTH)
    closed = target_weights("quantile", frame(rows, hours), EACH, BOTH, there=there)
    assert at(kept, FRIDAY)["KO"] == 0.5  # nothing says that Thursday was a session
    assert at(closed, FRIDAY)["KO"] == 0.0


def test_a_session_at_which_no_stock_has_a_prediction_closes_all_of_them() -> None:
    rows = {key: value for key, value in whole().items() if key[0] in COINS or key[1] != 2}
    weights = at(target_weights("quantile", frame(rows), EACH, BOTH), 2)
    assert {weights[symbol] for symbol in STOCKS} == {0.0}


def test_every_counts_the_times_of_both() -> None:
    weights = target_weights("quantile", frame(whole()), {**EACH, "every": 6}, BOTH)
    assert weights["open_time"].unique().sort().to_list() == [day(0), day(SATURDAY + 1), day(12), day(18)]


def test_a_rebalancing_at_a_weekend_sells_no_stock_and_buys_on_monday() -> None:
    market = pl.concat([one(symbol, [10.0] * SLOTS) for symbol in SCORE]).filter(
        pl.col("symbol").is_in(COINS) | pl.col("open_time").is_in([day(number) for number in sorted(SESSIONS)])
    )
    rows = {key: value for key, value in whole(KO_4=-9.0).items() if key[1] <= SUNDAY}
    result = backtest_strategy("quantile", EACH, market, interval=DAY, instruments=BOTH, costs=FREE, predictions=frame(rows))
    made = result.fills.filter(~pl.col("settled")).select("time", "symbol", "side").rows()
    # On day 0 nothing is known of the stocks; from Tuesday's close on KO is best and XOM worst, from Friday's PEP and KO.
    assert made == [
        (day(1), "ETH", "buy"),
        (day(2), "ETH", "sell"),
        (day(2), "XOM", "sell"),
        (day(2), "KO", "buy"),
        (day(MONDAY), "KO", "sell"),
        (day(MONDAY), "PEP", "buy"),
        (day(MONDAY), "XOM", "buy"),
    ]


def test_stocks_that_are_stamped_at_another_hour_have_their_slots_there_alone() -> None:
    hours = dict.fromkeys(STOCKS, 5)
    weights = target_weights("quantile", frame(whole(), hours), EACH, BOTH)
    held = weights.filter(pl.col("open_time") >= day(2)).group_by("symbol").agg(pl.col("weight").unique())
    found = dict(held.iter_rows())
    assert found == {"BTC": [0.0], "ETH": [0.0], "KO": [0.5], "PEP": [0.0], "XOM": [-0.5]}


def test_a_strategy_of_ones_own_sees_what_stands() -> None:
    seen: list[pl.DataFrame] = []

    def keep(predictions: pl.DataFrame) -> pl.DataFrame:
        seen.append(predictions)
        return predictions.select("symbol", "open_time", weight=pl.lit(0.1))

    weigh("own", frame(whole()), {}, BOTH, DAY, known=Strategies({"own": custom_strategy("own", keep)}))
    sunday = seen[0].filter(pl.col("open_time") == day(SUNDAY))
    assert dict(sunday.select("symbol", "prediction").iter_rows()) == SCORE


def test_a_panel_of_one_calendar_is_seen_as_it_is() -> None:
    rows = {key: value for key, value in whole().items() if key[0] in STOCKS}
    seen: list[pl.DataFrame] = []

    def keep(predictions: pl.DataFrame) -> pl.DataFrame:
        seen.append(predictions)
        return predictions.select("symbol", "open_time", weight=pl.lit(0.1))

    weigh("own", frame(rows), {}, BOTH, DAY, known=Strategies({"own": custom_strategy("own", keep)}))
    assert seen[0].equals(frame(rows))


def expected(rows: Mapping[tuple[str, int], float | None]) -> dict[tuple[str, int], float]:
    """The newest own slot of each by a plain walk; of all opinions the best is long, and the worst short where it may."""
    listed = {symbol: min(at for name, at in rows if name == symbol) for symbol, _ in rows}
    made: dict[tuple[str, int], float] = {}
    for now in range(SLOTS):
        newest = {symbol: max((at for at in own_days(symbol) if at <= now), default=-1) for symbol in listed}
        known = {symbol: rows.get((symbol, newest[symbol])) for symbol in listed if listed[symbol] <= now}
        opinions = sorted((-value, symbol) for symbol, value in known.items() if value is not None)
        if not opinions:
            continue
        ranked = [symbol for _, symbol in opinions]
        made |= {(symbol, now): 0.0 for symbol in known}
        if len(opinions) == 1:
            value, symbol = -opinions[0][0], ranked[0]
            made[symbol, now] = 1.0 if value > 0 else -1.0 if value < 0 and BOTH[symbol].can_short else 0.0
        elif opinions[0][0] < opinions[-1][0]:
            both = any(BOTH[symbol].can_short for symbol in ranked)
            if BOTH[ranked[-1]].can_short:
                made[ranked[-1], now] = -0.5
            made[ranked[0], now] = 0.5 if both else 1.0
    return made


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_weights_are_those_of_a_plain_walk_and_nothing_later_changes_them(data: st.DataObject) -> None:
    value = st.one_of(st.none(), st.sampled_from([-2.0, -1.0, 1.0, 2.0, 3.0]))
    rows: dict[tuple[str, int], float | None] = {}
    for symbol in SCORE:
        first = data.draw(st.integers(0, 8))
        for number in sorted(own_days(symbol)):
            if number >= first and data.draw(st.integers(0, 5)):
                rows[symbol, number] = data.draw(value)
    predictions = frame(rows).sort("symbol", "open_time")
    there = frame(whole())
    weights = target_weights("quantile", predictions, EACH, BOTH, there=there)
    found = {(symbol, (time - day(0)).days): weight for symbol, time, weight in weights.iter_rows()}
    assert found == pytest.approx(expected(rows))
    cut = pl.col("open_time") < day(data.draw(st.integers(1, SLOTS)))
    early = target_weights("quantile", predictions.filter(cut), EACH, BOTH, there=there.filter(cut))
    assert early.equals(weights.filter(cut))
