"""Corporate actions: what the sample's adjusted close tells, and that adjusting looks neither ahead nor back."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import cast

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.calendars import XNYS
from tidemill.domain.errors import InputError
from tidemill.domain.intervals import Interval
from tidemill.domain.market import BAR_COLUMNS
from tidemill.market.adjustments import ADJUSTMENT_SCHEMA, adjust, derive_adjustments
from tidemill.market.sample import SampleSource
from tidemill.quality.bars import Validated, validate_bars

DAY = Interval.parse("1d")
START = datetime(2024, 1, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture(scope="module")
def sample() -> Validated:
    async def collect() -> pl.DataFrame:
        return pl.concat([frame async for frame in SampleSource().bars([], DAY, None, None)])

    return validate_bars(asyncio.run(collect()), interval=DAY, calendar=XNYS, now=day("2026-01-01"), source="sample")


@pytest.fixture(scope="module")
def actions(sample: Validated) -> pl.DataFrame:
    return derive_adjustments(cast(pl.DataFrame, sample.adjusted))


@pytest.fixture(scope="module")
def adjusted(sample: Validated, actions: pl.DataFrame) -> pl.DataFrame:
    return adjust(sample.good, actions)


def returns(bars: pl.DataFrame, symbol: str) -> dict[datetime, float]:
    moves = bars.filter(symbol=symbol).select("open_time", pl.col("close") / pl.col("close").shift() - 1)
    return dict(moves.drop_nulls().iter_rows())


# --- the sample ------------------------------------------------------------------------------------------------------------


def test_the_splits_of_the_sample_are_these_three(actions: pl.DataFrame) -> None:
    splits = actions.filter(kind="split").select("symbol", "ex_time", "value").rows()
    assert splits == [("AAPL", day("2000-06-21"), 2.0), ("AAPL", day("2005-02-28"), 2.0), ("MSFT", day("2003-02-18"), 2.0)]


def test_its_dividends_are_the_amounts_that_were_declared(actions: pl.DataFrame) -> None:
    paid = actions.filter(kind="dividend")
    amounts = {
        (symbol, ex_time.date().isoformat()): value
        for symbol, ex_time, value in paid.select("symbol", "ex_time", "value").iter_rows()
    }
    assert amounts["AAPL", "2012-08-09"] == 2.65
    assert amounts["MSFT", "2004-11-15"] == 3.08  # 3.00 special and 0.08 ordinary
    assert amounts["IBM", "2000-05-08"] == 0.13
    assert dict(paid["symbol"].value_counts().iter_rows()) == {"AAPL": 3, "IBM": 52, "MSFT": 37}
    assert all(abs(value - round(value, 3)) < 1e-9 for value in amounts.values())


@pytest.mark.parametrize(
    ("symbol", "when", "raw"), [("AAPL", "2000-06-21", -0.45), ("AAPL", "2005-02-28", -0.50), ("MSFT", "2003-02-18", -0.48)]
)
def test_a_split_makes_no_jump_in_adjusted_returns(
    sample: Validated, adjusted: pl.DataFrame, symbol: str, when: str, raw: float
) -> None:
    assert returns(sample.good, symbol)[day(when)] == pytest.approx(raw, abs=0.02)
    assert abs(returns(adjusted, symbol)[day(when)]) < 0.11


def test_the_real_fall_of_aapl_on_2000_09_29_stays(adjusted: pl.DataFrame) -> None:
    assert returns(adjusted, "AAPL")[day("2000-09-29")] == pytest.approx(-0.5187, abs=1e-4)
    worst = min(returns(adjusted, "AAPL").values())
    assert worst == returns(adjusted, "AAPL")[day("2000-09-29")]


def test_adjusted_returns_are_those_of_the_sources_adjusted_close(sample: Validated, adjusted: pl.DataFrame) -> None:
    told = cast(pl.DataFrame, sample.adjusted).select("symbol", "open_time", "adjusted_close")
    ratio = adjusted.join(told, on=["symbol", "open_time"]).select(
        "symbol", (pl.col("close") / pl.col("adjusted_close")).alias("ratio")
    )
    spread = ratio.group_by("symbol").agg((pl.col("ratio").max() / pl.col("ratio").min() - 1).alias("spread"))
    assert spread.height == 5
    assert spread["spread"].max() < 1e-9  # type: ignore[operator]  # a float column


def test_volume_follows_splits_and_money_traded_follows_none(sample: Validated, adjusted: pl.DataFrame) -> None:
    both = sample.good.join(adjusted, on=["symbol", "open_time"], suffix="_adjusted").filter(symbol="AAPL")
    after = both.filter(pl.col("open_time") >= day("2005-02-28"))
    assert (after["volume"] / after["volume_adjusted"]).unique().to_list() == [4.0]
    before_dividends = both.filter(pl.col("open_time") < day("2012-08-09"))
    traded = before_dividends["close"] * before_dividends["volume"]
    assert (before_dividends["close_adjusted"] * before_dividends["volume_adjusted"]).to_numpy() == pytest.approx(
        traded.to_numpy()
    )


@settings(max_examples=25, deadline=None)
@given(cut=st.datetimes(datetime(2000, 3, 2), datetime(2013, 3, 1)), data=st.data())
def test_an_adjusted_bar_does_not_depend_on_what_comes_later(
    sample: Validated, actions: pl.DataFrame, adjusted: pl.DataFrame, cut: datetime, data: st.DataObject
) -> None:
    moment = cut.replace(tzinfo=UTC)
    known = actions.filter(pl.col("known_at") <= moment)
    cut_bars = sample.good.filter(pl.col("known_at") <= moment)
    past = adjusted.filter(pl.col("known_at") <= moment)
    assert adjust(cut_bars, known).equals(past)
    assert adjust(cut_bars, actions).equals(past)
    symbol = data.draw(st.sampled_from(["AAPL", "MSFT"]))
    assert adjust(sample.good.filter(symbol=symbol), actions).equals(adjusted.filter(symbol=symbol))


def test_the_first_bar_of_each_symbol_keeps_its_raw_price(sample: Validated, adjusted: pl.DataFrame) -> None:
    firsts = [bars.group_by("symbol", maintain_order=True).first().select(BAR_COLUMNS) for bars in (sample.good, adjusted)]
    assert firsts[0].equals(firsts[1])


def test_an_adjusted_close_in_cents_tells_the_same_actions_and_no_phantom_ones(
    sample: Validated, actions: pl.DataFrame
) -> None:
    coarse = cast(pl.DataFrame, sample.adjusted).with_columns(pl.col("adjusted_close").round(2))
    found = derive_adjustments(coarse)
    assert found.select("symbol", "kind").equals(actions.select("symbol", "kind"))
    assert found.filter(kind="split").equals(actions.filter(kind="split"))
    late = (found["ex_time"] - actions["ex_time"]).dt.total_days()
    assert late.min() >= 0  # type: ignore[operator]  # an integer column
    assert late.max() <= 7  # type: ignore[operator]  # an integer column
    assert (found["value"] - actions["value"]).abs().max() < 0.01  # type: ignore[operator]  # a float column


# --- made series -----------------------------------------------------------------------------------------------------------


def series(closes: list[float], factors: list[float], decimals: int = 12, symbol: str = "AB") -> pl.DataFrame:
    """Bars whose adjusted close is close · factor, rounded."""
    times = [START + timedelta(days=n) for n in range(len(closes))]
    return pl.DataFrame(
        {
            "symbol": [symbol] * len(closes), "open_time": times, "close": closes,
            "adjusted_close": [round(close * factor, decimals) for close, factor in zip(closes, factors, strict=True)],
            "known_at": [time + timedelta(days=1) for time in times],
        },
        schema_overrides={"open_time": TIME, "known_at": TIME, "close": pl.Float64, "adjusted_close": pl.Float64},
    )  # fmt: skip


def drifting(rows: int, seed: int = 3, level: float = 80.0) -> list[float]:
    steps = np.random.default_rng(seed).normal(0, 0.02, rows)
    return [round(float(price), 2) for price in level * np.exp(np.cumsum(steps))]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    level=st.sampled_from([2.0, 15.0, 80.0, 900.0]),
    decimals=st.integers(2, 6),
    factor=st.floats(0.05, 1.0),
)
def test_rounding_alone_never_makes_an_action(seed: int, level: float, decimals: int, factor: float) -> None:
    assert derive_adjustments(series(drifting(300, seed, level), [factor] * 300, decimals)).height == 0


@pytest.mark.parametrize("ratio", [2.0, 3.0, 1.5, 4 / 3, 7.0, 10.0, 20.0, 0.1, 0.5, 1 / 30, 1.05])
@pytest.mark.parametrize("decimals", [2, 4, 12])
def test_simple_ratios_are_splits(ratio: float, decimals: int) -> None:
    closes = drifting(200)
    closes = closes[:120] + [round(close / ratio, 4) for close in closes[120:]]
    found = derive_adjustments(series(closes, [1.0] * 120 + [ratio] * 80, decimals))
    if ratio == 1.05 and decimals == 2:
        assert found["kind"].to_list() == ["dividend"]  # cents cannot tell a 5 % stock dividend from cash
    else:
        assert found.select("kind", "ex_time").rows() == [("split", START + timedelta(days=120))]
        assert found["value"].to_list() == pytest.approx([ratio])


def test_a_split_with_a_dividend_on_the_same_day_is_both() -> None:
    closes = drifting(200)
    closes = closes[:100] + [round(close / 2, 2) for close in closes[100:]]
    ratio = (2 * closes[100] + 0.5) / closes[100]
    found = derive_adjustments(series(closes, [1.0] * 100 + [ratio] * 100), basis="ex_close")
    assert dict(found.select("kind", "value").iter_rows()) == pytest.approx({"split": 2.0, "dividend": 0.5})


def test_a_spin_off_is_cash_in_kind() -> None:
    closes = drifting(200)
    found = derive_adjustments(series(closes, [1.0] * 100 + [2.376] * 100), basis="ex_close")
    assert found["kind"].to_list() == ["dividend"]
    assert found["value"].to_list() == pytest.approx([1.376 * closes[100]])


def test_the_sources_way_to_turn_cash_into_a_factor_is_recognised() -> None:
    closes = drifting(1_000)
    ex_days = range(50, 1_000, 60)
    for basis in ("ex_close", "previous_close"):
        factors = [1.0]
        for n in range(1, 1_000):
            ex_close, previous = (closes[n] + 0.42) / closes[n], closes[n - 1] / (closes[n - 1] - 0.42)
            factors.append(factors[-1] * ((ex_close if basis == "ex_close" else previous) if n in ex_days else 1.0))
        found = derive_adjustments(series(closes, factors))
        assert found["value"].to_list() == pytest.approx([0.42] * len(ex_days))
        assert found["ex_time"].to_list() == [START + timedelta(days=n) for n in ex_days]


def test_an_adjusted_close_that_is_wrong_for_a_day_is_no_action() -> None:
    factors = [1.0] * 200
    factors[90] = 1.07
    assert derive_adjustments(series(drifting(200), factors)).height == 0


def test_noise_that_no_rounding_explains_makes_no_dividends() -> None:
    noise = np.random.default_rng(5).normal(1.0, 0.01, 400)
    assert derive_adjustments(series(drifting(400), [float(value) for value in noise])).filter(kind="dividend").height == 0


def test_frames_without_prices_or_rows_tell_nothing() -> None:
    bars = series([10.0, 11.0, 12.0], [1.0, 1.0, 1.0])
    for empty in (
        bars.clear(),
        bars.with_columns(adjusted_close=pl.lit(None, pl.Float64)),
        bars.with_columns(close=pl.lit(float("nan"))),
    ):
        assert derive_adjustments(empty).schema == ADJUSTMENT_SCHEMA
        assert derive_adjustments(empty).height == 0
    assert derive_adjustments(bars.head(1)).height == 0
    with pytest.raises(InputError, match="adjusted_close"):
        derive_adjustments(bars.drop("adjusted_close"))


def bars_of(closes: list[float]) -> pl.DataFrame:
    bars = series(closes, [1.0] * len(closes)).drop("adjusted_close")
    same = {name: pl.col("close") for name in ("open", "high", "low")}
    return bars.with_columns(**same, volume=pl.lit(100.0), quote_volume=100.0 * pl.col("close")).select(BAR_COLUMNS)


def told(*rows: tuple[str, int, float, int]) -> pl.DataFrame:
    """(kind, ex day, value, day from whose bar on it is known)."""
    return pl.DataFrame(
        [("AB", kind, START + timedelta(days=ex), value, START + timedelta(days=known + 1)) for kind, ex, value, known in rows],
        schema=ADJUSTMENT_SCHEMA,
        orient="row",
    )


def test_a_return_across_an_ex_day_is_what_a_holder_got() -> None:
    adjusted = adjust(bars_of([100.0, 51.0, 50.0]), told(("split", 1, 2.0, 0), ("dividend", 1, 4.0, 0)))
    assert adjusted["close"].to_list() == pytest.approx([100.0, 2 * 51.0 + 4.0, (2 * 51.0 + 4.0) / 51.0 * 50.0])
    assert adjusted["volume"].to_list() == [100.0, 50.0, 50.0]
    price = adjusted["quote_volume"] / adjusted["volume"]
    assert price.to_list() == pytest.approx(adjusted["close"].to_list())


def test_an_action_told_late_counts_only_from_the_bar_at_which_it_was_known() -> None:
    adjusted = adjust(bars_of([100.0, 50.0, 50.0, 50.0]), told(("split", 1, 2.0, 2)))
    assert adjusted["close"].to_list() == [100.0, 50.0, 100.0, 100.0]


def test_an_ex_day_without_a_bar_counts_from_the_next_bar() -> None:
    bars = bars_of([100.0, 99.0, 50.0, 50.0]).filter(pl.col("close") != 99.0)
    assert adjust(bars, told(("split", 1, 2.0, 0)))["close"].to_list() == [100.0, 100.0, 100.0]


def test_actions_outside_the_bars_and_of_other_symbols_change_nothing() -> None:
    bars = bars_of([100.0, 99.0])
    outside = told(("split", 0, 2.0, 0), ("dividend", -5, 1.0, 0), ("split", 9, 2.0, 0))
    foreign = told(("split", 1, 2.0, 0)).with_columns(symbol=pl.lit("ZZ"))
    for none in (outside, foreign, told()):
        assert adjust(bars, none).equals(bars)
    assert adjust(bars.clear(), told(("split", 1, 2.0, 0))).height == 0
