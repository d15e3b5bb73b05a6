"""Every kind of look-ahead is caught with the value that shows it, and nothing that keeps to the past is accused."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from tests.features.conftest import bars_of, random_bars, random_panel
from tests.strategies.weights import target_weights
from tidemill.calendars import ALWAYS, XNYS
from tidemill.domain.errors import DeadlineError, InputError
from tidemill.domain.intervals import Interval
from tidemill.domain.market import Instrument
from tidemill.features.api import FeatureSet, feature_set
from tidemill.features.declaration import Feature, shipped
from tidemill.features.operators import close, ema, mean, ref, std, volume
from tidemill.validation.causality.features import prove_features
from tidemill.validation.causality.folds import prove_folds
from tidemill.validation.causality.proof import Effort, Proof
from tidemill.validation.causality.prove import prove
from tidemill.validation.splits import Fold

S, T = "symbol", "open_time"
C = pl.col("close")
DAY, HOUR = Interval.parse("1d"), Interval.parse("1h")
QUICK = Effort(cuts=4, warm=24, span=24)
Compute = Callable[[pl.DataFrame], pl.DataFrame]


@pytest.fixture(scope="module")
def panel() -> pl.DataFrame:
    """Five symbols, four of them listed later, with absent slots, unknown cells and idle bars."""
    return random_panel(21, symbols=5, slots=160)


def answering(**columns: pl.Expr) -> Compute:
    return lambda bars: bars.select(S, T, *(expression.alias(name) for name, expression in columns.items()))


def refuted(proof: Proof) -> dict[str, str]:
    return {one.feature: one.why for one in proof.refuted}


# --- what must be caught ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lookback", [2, None])
def test_the_next_bar_is_caught_with_a_value_that_it_changed(panel: pl.DataFrame, lookback: int | None) -> None:
    proof = prove(answering(next=C.shift(-1).over(S), now=C * 2.0), panel, lookback=lookback, effort=QUICK)
    assert proof.proven == ("now",)
    (found,) = proof.refuted
    assert found.feature == "next"
    assert "its value changes with" in found.why
    assert panel.filter((pl.col(S) == found.symbol) & (pl.col(T) == found.time)).height == 1


def test_an_expression_that_looks_ahead_is_refuted_and_its_causal_neighbour_is_proven(panel: pl.DataFrame) -> None:
    chosen = FeatureSet(
        (
            Feature("next", ref(close, -1)),
            Feature("later_mean", mean(ref(volume, -3), 5)),
            Feature("smooth_next", ema(ref(close, -2), 4)),
            Feature("undone", ref(ref(close, -1), 1)),
            Feature("ok", mean(close, 5) - ref(close, 2)),
        )
    )
    proof = prove_features(chosen, panel, effort=QUICK)
    assert proof.proven == ("ok",)
    assert list(refuted(proof)) == ["next", "later_mean", "smooth_next", "undone"]
    assert all("its value changes with" in why for name, why in refuted(proof).items() if name != "undone")
    # It comes back to its own bar, so no value shows it; it cannot be shipped all the same.
    assert "its expression looks ahead" in refuted(proof)["undone"]


@pytest.mark.parametrize("lookback", [5, None])
def test_a_centred_window_is_caught(panel: pl.DataFrame, lookback: int | None) -> None:
    centred = answering(centred=C.rolling_mean(5, center=True).over(S), median=C.rolling_median(5, center=True).over(S))
    assert set(refuted(prove(centred, panel, lookback=lookback, effort=QUICK))) == {"centred", "median"}


def test_scaling_by_the_whole_sample_is_caught(panel: pl.DataFrame) -> None:
    scaled = answering(
        mean=C / C.fill_nan(None).mean().over(S), rank=C.rank().over(S), high=(C - C.fill_nan(None).max().over(S)) >= 0.0
    )
    assert set(refuted(prove(scaled, panel, effort=QUICK))) == {"mean", "rank", "high"}


def hourly(symbols: int = 2, hours: int = 200) -> pl.DataFrame:
    random, start = np.random.default_rng(4), int(datetime(2024, 3, 1, tzinfo=UTC).timestamp())
    frames = []
    for number in range(symbols):
        made = bars_of(f"H{number}", np.zeros(hours, dtype=np.int64), random_bars(random, hours))
        times = pl.Series(T, (start + np.arange(hours) * 3_600) * 1_000_000).cast(pl.Datetime("us", "UTC"))
        frames.append(made.with_columns(times))
    return pl.concat(frames)


def four_hours(label: str) -> Compute:
    """The close of a 4-hour bar joined to hourly ones by its label: the start, or the end, at which it is known."""

    def compute(bars: pl.DataFrame) -> pl.DataFrame:
        made = bars.sort(S, T).group_by_dynamic(T, every="4h", group_by=S, label="left").agg(C.last().alias("coarse"))
        known = pl.col(T) if label == "start" else pl.col(T) + pl.duration(hours=3)  # the open of the hour that ends it
        whole = made.with_columns(known.alias(T)).sort(T)
        return bars.sort(T).join_asof(whole, on=T, by=S, check_sortedness=False).sort(S, T).select(S, T, "coarse")

    return compute


def test_a_resample_that_labels_a_bar_with_its_start_is_caught_and_one_that_waits_for_its_end_is_not() -> None:
    bars = hourly()
    assert set(refuted(prove(four_hours("start"), bars, effort=QUICK))) == {"coarse"}
    # A bar of which some hours are missing yet is not known: rows from its last hour on hold it.
    full = prove(four_hours("end"), bars, effort=QUICK)
    assert full.proven == ("coarse",), full.refuted


def test_a_resampled_row_that_stands_at_its_start_is_caught_unless_it_says_when_it_was_known() -> None:
    def resampled(stated: bool) -> Compute:
        def compute(bars: pl.DataFrame) -> pl.DataFrame:
            made = bars.sort(S, T).group_by_dynamic(T, every="4h", group_by=S).agg(C.last().alias("coarse"))
            return made.with_columns((pl.col(T) + pl.duration(hours=4)).alias("known_at")) if stated else made

        return compute

    assert set(refuted(prove(resampled(stated=False), hourly(), effort=QUICK))) == {"coarse"}
    assert prove(resampled(stated=True), hourly(), effort=QUICK).holds


def joined(column: str) -> Callable[..., pl.DataFrame]:
    """The newest value of a daily index at the close of each hour, by the time it is stamped with or by when it was known."""

    def compute(bars: pl.DataFrame, index: pl.DataFrame) -> pl.DataFrame:
        closing = bars.with_columns((pl.col(T) + pl.duration(hours=1)).alias("at")).sort("at")
        values = index.select(pl.col(column).alias("at"), "mood").sort("at")
        return closing.join_asof(values, on="at").sort(S, T).select(S, T, "mood")

    return compute


def test_a_join_on_event_time_is_caught_and_one_on_known_time_is_not() -> None:
    bars = hourly(hours=240)
    stamps = [datetime(2024, 2, 28, tzinfo=UTC) + timedelta(days=day) for day in range(12)]
    index = pl.DataFrame({"stamp": stamps, "mood": np.arange(12.0) ** 2 % 37}).cast({"stamp": pl.Datetime("us", "UTC")})
    index = index.with_columns((pl.col("stamp") + pl.duration(days=1)).alias("known_at"))
    assert set(refuted(prove(joined("stamp"), bars, beside={"index": index}, effort=QUICK))) == {"mood"}
    assert prove(joined("known_at"), bars, beside={"index": index}, effort=QUICK).proven == ("mood",)


def test_a_bar_that_was_known_late_may_not_be_used_before() -> None:
    late = pl.col(T) + pl.when(pl.col(S) == "H1").then(pl.duration(hours=30)).otherwise(pl.duration(hours=1))
    bars = hourly(hours=120).with_columns(late.alias("known_at"))
    across = answering(market=C.mean().over(T))
    alone = answering(own=C.shift(1).over(S))
    assert set(refuted(prove(across, bars, interval=HOUR, effort=QUICK))) == {"market"}
    assert prove(alone, bars, interval=HOUR, effort=QUICK).holds


def rare(bars: pl.DataFrame) -> pl.DataFrame:
    """The close, but at one bar in a thousand the next one's."""
    chosen = (pl.int_range(pl.len()).over(S) % 1_000) == 613
    return bars.select(S, T, pl.when(chosen).then(C.shift(-1).over(S)).otherwise(C).alias("rare"))


def test_a_leak_on_one_bar_in_a_thousand_is_found_by_the_comb_alone() -> None:
    bars = random_panel(8, symbols=1, slots=1_100, absent=0.0)
    assert prove(rare, bars, lookback=1, effort=Effort(cuts=6, every_bar=False, living=0)).holds
    proof = prove(rare, bars, lookback=1, effort=Effort(cuts=6))
    (found,) = proof.refuted
    assert found.time == bars[T][613]


def test_a_rare_leak_is_found_by_windows_where_no_look_back_is_stated() -> None:
    bars = random_panel(8, symbols=1, slots=150, absent=0.0)

    def leaking(bars: pl.DataFrame) -> pl.DataFrame:
        chosen = pl.col(T) == bars_time
        return bars.select(S, T, pl.when(chosen).then(C.shift(-1).over(S)).otherwise(C).alias("rare"))

    bars_time = bars[T][77]
    assert prove(leaking, bars, effort=Effort(cuts=2, every_bar=False, living=0)).holds
    (found,) = prove(leaking, bars, effort=Effort(cuts=2, warm=16, span=16)).refuted
    assert found.time == bars_time


@pytest.mark.parametrize("lookback", [2, None])
def test_a_panel_that_is_too_large_to_be_altered_whole_is_searched_where_features_live(lookback: int | None) -> None:
    bars = random_panel(8, symbols=6, slots=400, absent=0.0)
    alone, rarely = pl.col(S) == "S3", (pl.int_range(pl.len()).over(S) % 40) == 13
    later = C.shift(-1).over(S)
    leaks = {"of_one": pl.when(alone).then(later).otherwise(1.0), "rarely": pl.when(rarely).then(later).otherwise(C)}
    proof = prove(answering(**leaks, now=C), bars, lookback=lookback, effort=Effort(altered=500, slots=64))
    assert {one.feature for one in proof.ahead} == set(leaks)
    assert proof.proven == ("now",)


def test_a_leak_of_a_direction_alone_is_found() -> None:
    bars = random_panel(13, symbols=2, slots=150)
    signed = answering(up=(C.shift(-1).over(S) > C).cast(pl.Float64))
    assert set(refuted(prove(signed, bars, lookback=1, effort=Effort(cuts=0)))) == {"up"}


@pytest.mark.parametrize("lookback", [1, None])
def test_what_depends_on_symbols_that_are_listed_later_is_caught(panel: pl.DataFrame, lookback: int | None) -> None:
    crowd = answering(share=C / pl.col(S).n_unique(), rank=C.rank().over(T))
    proof = prove(crowd, panel, lookback=lookback, effort=QUICK)
    assert proof.proven == ("rank",)
    assert set(refuted(proof)) == {"share"}
    assert "share" in proof.cross_sectional


def test_rows_that_come_or_go_with_later_bars_are_caught(panel: pl.DataFrame) -> None:
    proof = prove(lambda bars: bars.select(S, T, x=C).filter(pl.int_range(pl.len()).over(S) < pl.len().over(S) - 3), panel)
    assert "the row itself comes or goes" in refuted(proof)["x"]


def test_another_answer_for_the_same_bars_is_caught(panel: pl.DataFrame) -> None:
    random = np.random.default_rng(1)
    proof = prove(lambda bars: bars.select(S, T, noise=pl.Series(random.random(bars.height))), panel, effort=QUICK)
    assert "a second computation on the same bars" in refuted(proof)["noise"]


def test_what_fails_on_a_shorter_history_is_refuted_by_that(panel: pl.DataFrame) -> None:
    def needs_all(bars: pl.DataFrame) -> pl.DataFrame:
        if bars.height < panel.height:
            raise ValueError("not enough bars")
        return bars.select(S, T, x=C)

    (found,) = prove(needs_all, panel, effort=QUICK).refuted
    assert found.fails
    assert "it fails on what was known at" in found.why


def test_what_is_rounded_by_how_many_bars_there_are_is_not_said_to_look_ahead(panel: pl.DataFrame) -> None:
    """As polars does, which divides by a scalar of a group as a product with its reciprocal, but not in a group of one row."""
    even = 1.0 + 2.0**-52 * (pl.len() % 2)
    proof = prove(answering(x=C * even, y=C), panel, effort=QUICK)
    assert proof.proven == ("y",)
    assert not proof.ahead
    assert "its last bits change with" in proof.failing[0].why


def test_one_column_of_twenty_that_leaks_is_refuted_and_nineteen_are_proven(panel: pl.DataFrame) -> None:
    honest = {f"c{number}": C.shift(number % 5).over(S) * float(number + 1) for number in range(20)}
    proof = prove(answering(**honest | {"c7": C.shift(-1).over(S)}), panel, effort=QUICK)
    assert [one.feature for one in proof.ahead] == ["c7"]
    assert proof.proven == tuple(name for name in honest if name != "c7")


def test_a_column_that_is_not_there_on_fewer_bars_fails_and_its_neighbours_are_proven(panel: pl.DataFrame) -> None:
    def some_missing(bars: pl.DataFrame) -> pl.DataFrame:
        made = bars.select(S, T, a=C, b=C.shift(1).over(S), c=C * 3.0)
        return made if bars.height > 300 else made.drop("b")

    proof = prove(some_missing, panel, effort=QUICK)
    assert proof.proven == ("a", "c")
    assert [(one.feature, one.fails) for one in proof.refuted] == [("b", True)]
    assert "has no column" in proof.refuted[0].why


def test_a_function_that_fails_on_some_bars_and_looks_ahead_on_others_is_said_to_look_ahead(panel: pl.DataFrame) -> None:
    def short(bars: pl.DataFrame) -> pl.DataFrame:
        if bars.height < 100:
            raise ValueError("not enough bars")
        return bars.select(S, T, x=C.shift(-1).over(S))

    assert [one.feature for one in prove(short, panel, effort=QUICK).ahead] == ["x"]


def test_a_function_that_needs_more_bars_than_a_window_has_is_judged_by_cuts(panel: pl.DataFrame) -> None:
    def many(bars: pl.DataFrame) -> pl.DataFrame:
        if bars["open_time"].n_unique() < 60:
            raise ValueError("not enough bars")
        return bars.select(S, T, x=C)

    late = panel.filter(pl.col(T) >= panel[T].min())
    proof = prove(many, late, effort=Effort(cuts=0, warm=10, span=20))
    assert all(one.fails for one in proof.refuted)


def test_what_lives_on_the_last_slot_alone_is_neither_proven_nor_refuted(panel: pl.DataFrame) -> None:
    last = panel[T].max()
    proof = prove(answering(x=pl.when(pl.col(T) == last).then(C), y=C), panel, effort=QUICK)
    assert proof.proven == ("y",)
    assert [one.feature for one in proof.unjudged] == ["x"]
    assert not proof.holds


# --- fits ---------------------------------------------------------------------------------------------------------------


def folds(bars: pl.DataFrame) -> list[Fold]:
    grid = bars[T].unique().sort().to_list()
    return [Fold(number, grid[0], grid[at - 5], grid[at], grid[at + 20]) for number, at in enumerate((60, 80, 100))]


def window_mean(bars: pl.DataFrame, fold: Fold) -> str:
    inside = bars.filter(pl.col(T).is_between(fold.train_start, fold.train_end, closed="left"))
    return repr(inside.select(C.fill_nan(None).mean()).item())


def test_a_fit_on_data_after_the_split_is_caught_at_the_border_of_its_fold(panel: pl.DataFrame) -> None:
    honest = prove_folds("ridge", window_mean, panel, folds(panel), interval=DAY)
    assert honest.proven == ("ridge",)
    leaking = prove_folds(
        "ridge", lambda bars, fold: repr(bars.select(C.fill_nan(None).mean()).item()), panel, folds(panel), interval=DAY
    )
    (found,) = leaking.refuted
    assert found.time == folds(panel)[0].test_start
    assert "fold 0" in found.why


def test_a_fit_that_takes_one_bar_too_many_in_one_fold_is_caught(panel: pl.DataFrame) -> None:
    def one_too_many(bars: pl.DataFrame, fold: Fold) -> str:
        return window_mean(bars, Fold(0, fold.train_start, fold.test_end if fold.number == 2 else fold.train_end, *[T] * 2))  # type: ignore[list-item]

    (found,) = prove_folds("ridge", one_too_many, panel, folds(panel), interval=DAY).refuted
    assert "fold 2" in found.why


def test_a_model_that_is_not_what_a_refit_gives_is_refuted(panel: pl.DataFrame) -> None:
    stored = {0: "another"}
    assert not prove_folds("ridge", window_mean, panel, folds(panel), interval=DAY, stored=stored).holds


def test_predictions_of_a_model_fitted_on_the_whole_sample_are_caught(panel: pl.DataFrame) -> None:
    def fitted(bars: pl.DataFrame) -> pl.DataFrame:
        change = bars.with_columns(
            x=(C / C.shift(1).over(S)).log().fill_nan(None), y=(C.shift(-1).over(S) / C).log().fill_nan(None)
        )
        slope = change.select(pl.cov("x", "y") / pl.col("x").var()).item()
        return change.select(S, T, prediction=pl.col("x") * slope)

    assert set(refuted(prove(fitted, panel, effort=QUICK))) == {"prediction"}


# --- what must not be accused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(shipped().sets))
def test_no_shipped_feature_is_accused(name: str) -> None:
    bars = random_panel(6, symbols=5, slots=420, missing=0.02, absent=0.1, idle=0.1)
    proof = prove_features(feature_set(name), bars)
    assert (proof.refuted, proof.longer) == ((), ())
    assert proof.proven == feature_set(name).names


def test_recursive_functions_without_a_look_back_are_proven(panel: pl.DataFrame) -> None:
    filled = C.fill_nan(None).forward_fill().over(S)
    proof = prove(
        answering(total=C.fill_nan(0.0).cum_sum().over(S), smooth=filled.ewm_mean(span=9).over(S)), panel, effort=QUICK
    )
    assert proof.holds, proof.refuted


def test_a_look_back_that_is_stated_too_short_is_told_and_no_look_ahead(panel: pl.DataFrame) -> None:
    proof = prove(answering(far=C.shift(30).over(S), near=C.shift(3).over(S)), panel, lookback=4, effort=QUICK)
    assert proof.proven == ("far", "near")
    assert proof.longer == ("far",)


def test_values_of_any_kind_are_compared(panel: pl.DataFrame) -> None:
    kinds = answering(
        text=pl.when(C > 1.0).then(pl.lit("high")).otherwise(pl.lit("low")),
        flag=(C - C.shift(1).over(S)) > 0.0,
        count=pl.int_range(pl.len()).over(S),
        left=pl.len().over(S) - pl.int_range(pl.len()).over(S),
    )
    proof = prove(kinds, panel, lookback=2, effort=QUICK)
    assert set(refuted(proof)) == {"left"}


@pytest.mark.parametrize("stocks", [0, 3])
@pytest.mark.parametrize("name", ["quantile", "long_only_top_k"])
def test_weights_of_a_strategy_are_proven(name: str, stocks: int) -> None:
    """The first of six symbols are `stocks`, without bars at weekends."""
    random, names = np.random.default_rng(3), [f"S{number}" for number in range(6)]
    times = pl.Series(T, np.arange(60, dtype=np.int64) * 86_400_000_000).cast(pl.Datetime("us", "UTC"))
    grid = pl.DataFrame({S: names}).join(times.to_frame(), how="cross")
    grid = grid.filter(~pl.col(S).is_in(names[:stocks]) | (pl.col(T).dt.weekday() <= 5))
    scores = grid.with_columns(pl.Series("prediction", random.normal(size=grid.height)))
    calendars = dict.fromkeys(names, ALWAYS) | dict.fromkeys(names[:stocks], XNYS)
    instruments = {
        symbol: Instrument(symbol=symbol, venue="file", calendar=calendars[symbol], can_short=True) for symbol in names
    }
    weigh = lambda frame: target_weights(name, frame, {"every": 3}, instruments)  # noqa: E731
    assert prove(weigh, scores, effort=Effort(cuts=4, warm=6, span=12)).proven == ("weight",)
    ahead = lambda frame: weigh(frame.with_columns(pl.col("prediction").shift(-1).over(S)))  # noqa: E731
    assert not prove(ahead, scores, effort=Effort(cuts=4, warm=6, span=12)).holds


# --- the door -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("compute", "words"),
    [
        (lambda bars: bars.select(S), "no column 'open_time'"),
        (lambda bars: bars.select(S, T), "no feature"),
        (lambda bars: pl.concat([bars.select(S, T, x=C)] * 2), "two rows for S0"),
        (lambda bars: bars["close"], "return a polars DataFrame"),
        (lambda bars: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_what_is_no_computation_of_features_is_refused_with_one_sentence(
    panel: pl.DataFrame, compute: Compute, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        prove(compute, panel)


def test_bars_that_cannot_be_cut_are_refused(panel: pl.DataFrame) -> None:
    with pytest.raises(InputError, match="open_time is missing"):
        prove(answering(x=C), panel.drop(T))
    with pytest.raises(InputError, match="two bars"):
        prove(answering(x=C), pl.concat([panel, panel.head(1)]))
    with pytest.raises(InputError, match="known_at"):
        prove(answering(x=C), panel, beside={"index": pl.DataFrame({"mood": [1.0]})})
    with pytest.raises(InputError, match="look-back of 0"):
        prove(answering(x=C), panel, lookback=0)


def test_a_function_that_was_stopped_is_neither_proven_nor_refuted(panel: pl.DataFrame) -> None:
    calls = iter(range(100))

    def stopped(bars: pl.DataFrame) -> pl.DataFrame:
        if next(calls) > 3:
            raise DeadlineError("It took too long.")
        return bars.select(S, T, x=C)

    with pytest.raises(DeadlineError):
        prove(stopped, panel)


def test_the_same_proof_twice_is_the_same(panel: pl.DataFrame) -> None:
    made = [prove(answering(a=C.shift(-1).over(S), b=C), panel, effort=QUICK) for _ in range(2)]
    assert made[0] == made[1]


def test_one_bar_and_one_symbol_are_enough_for_an_answer() -> None:
    bars = random_panel(1, symbols=1, slots=40, absent=0.0)
    assert prove(answering(x=C), bars.head(1), interval=DAY).proven == ("x",)
    assert prove_features(FeatureSet((Feature("s", std(close, 5)),)), bars).proven == ("s",)
