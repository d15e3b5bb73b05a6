import math

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.models.panels import day
from tidemill.domain.errors import InputError
from tidemill.models.ensemble import ENGINE, combine, wide
from tidemill.models.inference import stream

NAMES = ("momentum", "ridge", "lightgbm")


def scores(rows: list[tuple[str, int, str, float | None]]) -> pl.DataFrame:
    """Predictions from (symbol, day, engine, prediction)."""
    return pl.DataFrame(
        [(symbol, day(number), name, value) for symbol, number, name, value in rows],
        schema={"symbol": pl.String, "open_time": pl.Datetime("us", "UTC"), "engine": pl.String, "prediction": pl.Float64},
        orient="row",
    )


def ensemble(
    rows: list[tuple[str, int, str, float | None]], names: tuple[str, ...] = NAMES
) -> dict[tuple[str, int], float | None]:
    return {(symbol, (time - day(0)).days): value for symbol, time, value in combine(scores(rows), names).rows()}


def test_five_symbols_get_the_ranks_minus_two_to_two_over_the_root_of_two() -> None:
    made = ensemble(
        [(name, 0, "ridge", value) for name, value in zip("ABCDE", [0.1, 0.5, -0.3, 0.2, 9.0], strict=True)], ("ridge",)
    )
    ranks = {"A": -1, "B": 1, "C": -2, "D": 0, "E": 2}
    assert made == {(name, 0): pytest.approx(rank / math.sqrt(2.0)) for name, rank in ranks.items()}


def test_the_scale_of_an_engine_does_not_matter() -> None:
    small = [("A", 0, "ridge", 1e-6), ("B", 0, "ridge", 2e-6), ("A", 0, "momentum", 5.0), ("B", 0, "momentum", 4.0)]
    assert ensemble(small, ("ridge", "momentum")) == {("A", 0): 0.0, ("B", 0): 0.0}


def test_one_symbol_or_equal_predictions_score_zero() -> None:
    assert ensemble([("A", 0, "ridge", 0.7)], ("ridge",)) == {("A", 0): 0.0}
    assert set(ensemble([(name, 0, "ridge", 0.7) for name in "ABC"], ("ridge",)).values()) == {0.0}


def test_a_row_that_fewer_than_half_of_the_engines_scored_is_null() -> None:
    rows: list[tuple[str, int, str, float | None]] = [("A", 0, "ridge", 1.0), ("B", 0, "ridge", 2.0), ("A", 0, "momentum", 1.0)]
    made = ensemble([*rows, ("B", 0, "momentum", None)])
    assert made["A", 0] is not None
    assert made["B", 0] is None


def test_a_missing_engine_leaves_the_mean_of_the_others() -> None:
    rows = [(symbol, 0, name, float(value)) for name in ("momentum", "ridge") for value, symbol in enumerate("ABC")]
    assert ensemble(rows) == ensemble(rows, ("momentum", "ridge"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None])
def test_a_prediction_that_is_not_finite_counts_as_missing(bad: float | None) -> None:
    rows: list[tuple[str, int, str, float | None]] = [("A", 0, "ridge", 1.0), ("B", 0, "ridge", 2.0)]
    assert ensemble([*rows, ("C", 0, "ridge", bad)], ("ridge",)) == ensemble(rows, ("ridge",)) | {("C", 0): None}


@given(
    st.lists(
        st.tuples(st.sampled_from("ABCDE"), st.integers(0, 3), st.sampled_from(NAMES), st.integers(-3, 3)),
        unique_by=lambda r: r[:3],
    )
)
def test_it_agrees_with_ranks_counted_by_hand_in_any_order_of_rows(rows: list[tuple[str, int, str, int]]) -> None:
    made = ensemble([(symbol, number, name, float(value)) for symbol, number, name, value in reversed(rows)])
    for symbol, number in {row[:2] for row in rows}:
        standard = []
        for name in NAMES:
            others = [value for _, at, engine_name, value in rows if at == number and engine_name == name]
            own = [value for one, at, engine_name, value in rows if (one, at, engine_name) == (symbol, number, name)]
            if own:
                rank = sum(other < own[0] for other in others) + (sum(other == own[0] for other in others) + 1) / 2
                spread = math.sqrt((len(others) ** 2 - 1) / 12)
                standard.append((rank - (len(others) + 1) / 2) / spread if spread else 0.0)
        expected = sum(standard) / len(standard) if len(standard) >= 2 else None
        assert made[symbol, number] == (None if expected is None else pytest.approx(expected, abs=1e-12))


def test_splitting_by_time_and_permuting_symbols_changes_no_bit() -> None:
    chance = np.random.default_rng(1)
    rows = [(f"S{s}", number, name, float(chance.normal())) for s in range(9) for number in range(6) for name in NAMES]
    whole = combine(scores(rows), NAMES)
    parts = [combine(scores([row for row in rows if row[1] == number]), NAMES) for number in range(6)]
    assert pl.concat(parts).sort("symbol", "open_time").equals(whole)
    renamed = combine(scores([(f"Z{9 - int(s[1:])}", *rest) for s, *rest in rows]), NAMES)  # type: ignore[misc]
    back = renamed.with_columns(("S" + (9 - pl.col("symbol").str.slice(1).cast(pl.Int32)).cast(pl.String)).alias("symbol"))
    assert back.sort("symbol", "open_time").equals(whole)


def test_its_artifact_names_the_engines_and_equal_weights() -> None:
    made = ENGINE.fit(pl.DataFrame(), features=NAMES, params={}, seed=7)
    assert made.inputs.features == NAMES
    assert made.tensors["weights"].tolist() == pytest.approx([1 / 3] * 3)
    assert made.hash == ENGINE.fit(pl.DataFrame(), features=NAMES, params={}, seed=7).hash


def test_two_predictions_of_one_engine_for_one_bar_are_refused() -> None:
    with pytest.raises(InputError, match="two predictions"):
        wide(scores([("A", 0, "ridge", 1.0), ("A", 0, "ridge", 2.0)]), NAMES)


def test_no_engines_at_all_are_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        ENGINE.fit(pl.DataFrame(), features=(), params={}, seed=7)


def test_no_predictions_make_an_empty_ensemble() -> None:
    assert combine(scores([]), NAMES).is_empty()


@example([[-1.0, -1.0, -1.0], [-1.0, -1.0, -1.0], [-1.0, 0.0, -1.0]], [0.0, 0.6211529572999922, 0.21428519953220843])
@given(
    st.lists(st.lists(st.sampled_from([math.nan, math.inf, -1.0, 0.0, 0.5, 2.0, 1e-9]), min_size=3, max_size=3), min_size=1),
    st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3).filter(lambda weights: sum(weights) > 0.1),
)
def test_a_bar_time_steps_to_the_bits_of_the_batch(rows: list[list[float]], shares: list[float]) -> None:
    values, names = np.array(rows), ("one", "two", "three")
    weights = [share / sum(shares) for share in shares]
    frame = pl.DataFrame(
        {
            "symbol": [f"S{number:03d}" for number in range(len(values))],
            "open_time": pl.Series([day(0)] * len(values), dtype=pl.Datetime("us", "UTC")),
            **{name: values[:, at] for at, name in enumerate(names)},
        }
    )
    made = ENGINE.fit(frame, features=names, params={"weights": weights}, seed=0)
    expected = ENGINE.predict(made, frame)["prediction"].fill_null(math.nan).to_numpy()
    assert np.array_equal(stream(made, frame["symbol"].to_list()).step(values), expected, equal_nan=True)
