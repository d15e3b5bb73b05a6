"""The second stage: rows of symbols and fitted models, the same bits in batch and stream, against independent oracles."""

import warnings
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hmmlearn.hmm import GaussianHMM
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.features.conftest import COLUMNS, bars_of, random_bars, random_panel
from tests.features.test_parity import SLOW, bits, panels, streamed
from tidemill.domain.errors import InputError, IntegrityError
from tidemill.features.api import FeatureSet, compute, explain, feature_set
from tidemill.features.declaration import Feature, feature
from tidemill.features.expression import Expression
from tidemill.features.kernels.markov import filter_series, fit_series, improve_series
from tidemill.features.operators import close, cs_rank, cs_zscore, delta, ema, hmm, hour_sine, log, mean, ref, volume
from tidemill.features.stages import fits_of
from tidemill.features.state import FeatureState
from tidemill.features.stream import FeatureStream

CHANGE = log(close / ref(close, 1))
QUICK = {"refit": 20, "window": 60, "minimum": 30}
MIXED = FeatureSet(
    (
        Feature("rank", cs_rank(delta(close, 3))),
        Feature("score", cs_zscore(ema(volume, 4))),
        Feature("calm", hmm(CHANGE, 2, 1, **QUICK)),
        Feature("state", hmm(CHANGE, 2, **QUICK)),
        Feature("wild", cs_rank(hmm(CHANGE, 3, 3, **QUICK))),
        Feature("hour", hour_sine + close),
        Feature("plain", mean(close, 5)),
    )
)
Floats = NDArray[np.float64]


def one(name: str, expression: Expression) -> FeatureSet:
    return FeatureSet((Feature(name, expression),))


def switching(length: int, states: int, seed: int) -> Floats:
    """Returns whose deviation jumps between 0.5 %, 2 % and 5 %."""
    rng = np.random.default_rng(seed)
    state = np.zeros(length, dtype=np.int64)
    for t in range(1, length):
        state[t] = rng.integers(states) if rng.random() < 0.03 else state[t - 1]
    return rng.normal(0.0, np.array([0.005, 0.02, 0.05])[state])


def returns_panel(changes: Floats, symbol: str = "A") -> pl.DataFrame:
    """Bars whose log returns are `changes`."""
    prices = 100.0 * np.exp(np.cumsum(np.concatenate([[0.0], changes])))
    columns = dict.fromkeys(COLUMNS, prices)
    return bars_of(symbol, np.arange(len(prices)), {**columns, "volume": np.ones(len(prices))})


# --- both kinds of operators, batch and stream


@SLOW
@given(panels, st.sets(st.integers(0, 160), max_size=3))
def test_the_second_stage_gives_the_same_bits_in_batch_and_stream(bars: pl.DataFrame, cuts: set[int]) -> None:
    symbols = bars["symbol"].unique().sort().to_list()
    if not symbols:
        return
    batch, after = compute(bars, MIXED)
    stream, left = streamed(bars, MIXED, symbols[::-1], cuts)
    assert np.array_equal(bits(batch.select(MIXED.names).to_numpy()), bits(stream.to_numpy()))
    assert np.array_equal(bits(after.slots), bits(left.select(after.symbols).slots))


@SLOW
@given(panels, st.integers(0, 160))
def test_the_second_stage_may_be_cut_anywhere_and_what_follows_changes_nothing(bars: pl.DataFrame, cut: int) -> None:
    times = bars["open_time"].unique().sort()
    if len(times) < 2:
        return
    border = times[cut % len(times)]
    whole, _ = compute(bars, MIXED)
    first, state = compute(bars.filter(pl.col("open_time") < border), MIXED)
    second, _ = compute(bars.filter(pl.col("open_time") >= border), MIXED, FeatureState.from_bytes(state.to_bytes()))
    parts = pl.concat([first, second]).sort("symbol", "open_time")
    assert np.array_equal(bits(whole.select(MIXED.names).to_numpy()), bits(parts.select(MIXED.names).to_numpy()))


def test_such_an_operator_stands_outermost_or_is_refused_with_its_name() -> None:
    for wrong in (cs_rank(close) + 1.0, mean(cs_zscore(close), 3), hmm(cs_rank(close), 2, 1), cs_rank(cs_zscore(close))):
        with pytest.raises(InputError, match="outermost operator"):
            compute(random_panel(1), one("wrong", wrong))
        with pytest.raises(InputError, match="outermost operator"):
            feature("wrong_place", wrong)


def test_the_fingerprint_and_the_explanation_hold_the_second_stage() -> None:
    assert one("a", cs_rank(close)).fingerprint != one("a", cs_zscore(close)).fingerprint != one("a", close).fingerprint
    assert one("a", hmm(CHANGE, 2, 1)).fingerprint != one("a", hmm(CHANGE, 2, 1, refit=100)).fingerprint
    told = explain("cs_rank_roc_20")
    assert told.formula == "cs_rank((close / ref(close, 20)) - 1)"
    assert (told.lookback, told.recursive) == (21, False)
    assert explain("hmm_2_1").recursive
    assert explain("vol_percentile_20_126").lookback == 146


def test_the_state_of_another_second_stage_is_refused() -> None:
    bars = random_panel(2)
    _, state = compute(bars, one("a", hmm(CHANGE, 2, 1, **QUICK)))
    with pytest.raises(IntegrityError, match="another feature set"):
        FeatureStream(one("a", hmm(CHANGE, 3, 1, **QUICK)), ("S0",), state)


# --- across symbols


def test_ranks_and_scores_are_those_of_pandas_row_by_row() -> None:
    bars = random_panel(3, symbols=12, slots=90, missing=0.1, absent=0.3)
    rounded = bars.with_columns(pl.col("volume").log10().floor())  # many ties
    features = FeatureSet((Feature("rank", cs_rank(volume)), Feature("score", cs_zscore(log(close)))))
    frame, _ = compute(rounded, features)
    joined = frame.join(rounded, on=("symbol", "open_time")).to_pandas()
    for _, row in joined.groupby("open_time"):
        logs = np.log(row["close"])
        usable = row["volume"].where(np.isfinite(row["volume"]))
        wanted = usable.rank(pct=True)
        assert np.allclose(row["rank"], wanted, rtol=1e-15, equal_nan=True)
        score = (logs - logs.mean()) / logs.std(ddof=1)
        assert np.allclose(row["score"], score, rtol=1e-9, atol=1e-12, equal_nan=True)


def test_a_row_without_spread_has_no_score_and_a_symbol_alone_has_rank_one() -> None:
    features = FeatureSet((Feature("rank", cs_rank(close)), Feature("score", cs_zscore(close))))
    alone = FeatureStream(features, ("A", "B", "C"))
    row = [5.0, 7.0, 9.0]
    alone_result = alone.step(row, row, row, row, row, present=[False, True, False])
    assert np.isnan(alone_result[[0, 2]]).all()
    assert alone_result[1, 0] == 1.0
    assert np.isnan(alone_result[1, 1])
    same = [0.1, 0.1, 0.1]
    equal = alone.step(same, same, same, same, same)
    assert (equal[:, 0] == 2.0 / 3.0).all()
    assert np.isnan(equal[:, 1]).all()


def test_nan_takes_no_part_in_a_row_and_extremes_never_give_infinity() -> None:
    features = FeatureSet((Feature("rank", cs_rank(close)), Feature("score", cs_zscore(close))))
    values = [np.nan, 1e149, -1e149, 1e-300, np.inf, 0.0]
    result = FeatureStream(features, tuple("ABCDEF")).step(values, values, values, values, values)
    assert np.isnan(result[[0, 4]]).all()
    assert result[[2, 5, 3, 1], 0].tolist() == [0.25, 0.5, 0.75, 1.0]
    assert not np.isinf(result).any()


def test_the_order_of_symbols_changes_no_bit_of_a_row() -> None:
    rng = np.random.default_rng(4)
    values = rng.lognormal(0, 3, 200)
    features = one("score", cs_zscore(close))
    plain = FeatureStream(features, tuple(map(str, range(200)))).step(*[values] * 5)[:, 0].copy()
    order = rng.permutation(200)
    mixed = FeatureStream(features, tuple(map(str, order))).step(*[values[order]] * 5)[:, 0]
    assert np.array_equal(bits(plain[order]), bits(mixed))


@pytest.mark.parametrize("column", ["dataset", "venue", "interval"])
def test_rows_of_two_datasets_are_never_compared(column: str) -> None:
    bars = random_panel(5, symbols=2, slots=20).with_columns(
        pl.when(pl.col("symbol") == "S0").then(pl.lit("a")).otherwise(pl.lit("b")).alias(column)
    )
    with pytest.raises(InputError, match="never mix datasets"):
        compute(bars, one("rank", cs_rank(close)))
    compute(bars, one("own", mean(close, 3)))


# --- the hidden Markov model


@pytest.mark.parametrize("states", [2, 3])
def test_filtered_probabilities_and_likelihood_are_those_of_hmmlearn(states: int) -> None:
    x, theta, oracle = _started(states)
    filtered = np.empty((len(x), states))
    likelihood = filter_series(x, states, theta, filtered)
    assert likelihood == pytest.approx(oracle.score(x[:, None]), rel=1e-12)
    for t in (0, 1, 7, 100, len(x) - 1):
        # The last smoothed probability of a prefix is its filtered one.
        assert filtered[t] == pytest.approx(oracle.predict_proba(x[: t + 1, None])[-1], abs=1e-12)


@pytest.mark.parametrize("states", [2, 3])
def test_the_steps_of_the_fit_are_those_of_hmmlearn(states: int) -> None:
    x, theta, oracle = _started(states)
    improve_series(x, states, theta, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle.fit(x[:, None])
    wanted = [oracle.startprob_, oracle.transmat_.ravel(), oracle.means_.ravel(), oracle.covars_.ravel()]
    assert theta == pytest.approx(np.concatenate(wanted), rel=1e-9, abs=1e-12)


def _started(states: int) -> tuple[Floats, Floats, GaussianHMM]:
    """Returns, parameters, and hmmlearn's model with the same, about to take three steps without priors."""
    x = switching(800, states, seed=states)
    oracle = GaussianHMM(
        states, "diag", covars_prior=0, min_covar=0, init_params="", n_iter=3, tol=-np.inf, implementation="scaling"
    )
    oracle.startprob_ = np.full(states, 1.0 / states)
    oracle.transmat_ = np.full((states, states), 0.2 / (states - 1))
    np.fill_diagonal(oracle.transmat_, 0.8)
    oracle.means_ = np.linspace(-0.001, 0.001, states)[:, None]
    variances = x.var() * np.array([0.3, 1.0, 3.0])[:states]
    oracle.covars_ = variances[:, None]
    parts = [oracle.startprob_, oracle.transmat_.ravel(), oracle.means_.ravel(), variances]
    return x, np.concatenate(parts), oracle


@pytest.mark.parametrize("states", [2, 3])
def test_a_fit_is_at_least_as_likely_as_hmmlearn_s_own_and_finds_the_planted_deviations(states: int) -> None:
    x = switching(4_000, states, seed=7)
    theta = np.empty(states * (states + 3))
    likelihood = fit_series(x, states, theta)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle = GaussianHMM(states, "diag", covars_prior=0, n_iter=100, tol=1e-3, random_state=1).fit(100.0 * x[:, None])
    assert likelihood >= oracle.score(100.0 * x[:, None]) + len(x) * np.log(100.0) - 1.0
    assert np.sqrt(theta[-states:]) == pytest.approx([0.005, 0.02, 0.05][:states], rel=0.15)


def test_the_schedule_of_fits_follows_a_symbol_s_own_bars_and_every_fit_ends_before_it_applies() -> None:
    changes = switching(150, 2, seed=9)
    features = one("calm", hmm(CHANGE, 2, 1, refit=40, window=60, minimum=30, purge=5))
    frame, _ = compute(returns_panel(changes), features)
    values = frame["calm"].to_numpy()
    # The first return is that of bar 1; 35 returns are needed before the 36th, of bar 36, is scored.
    assert np.isnan(values[:36]).all()
    assert np.isfinite(values[36:]).all()
    for applies, returns in ((36, 35), (76, 75), (116, 115)):
        fitted = changes[max(0, returns - 65) : returns - 5][-60:]
        theta = np.empty(10)
        fit_series(fitted, 2, theta)
        heard = changes[max(0, returns - 65) : returns]
        filtered = np.empty((len(heard) + 1, 2))
        filter_series(
            np.append(heard, np.diff(np.log(returns_panel(changes)["close"].to_numpy()))[applies - 1]), 2, theta, filtered
        )
        assert values[applies] == pytest.approx(filtered[-1, 0], abs=1e-9)


def test_altered_bars_after_the_cut_off_leave_the_fit_as_it_was() -> None:
    changes = switching(120, 2, seed=10)
    altered = changes.copy()
    altered[100:] *= -30.0
    features = one("calm", hmm(CHANGE, 2, 1, **QUICK))
    before, _ = compute(returns_panel(changes), features)
    after, _ = compute(returns_panel(altered), features)
    assert np.array_equal(bits(before["calm"].to_numpy()[:101]), bits(after["calm"].to_numpy()[:101]))
    assert not np.array_equal(before["calm"].to_numpy()[101:], after["calm"].to_numpy()[101:])


def test_probabilities_are_ordered_by_variance_and_sum_to_one() -> None:
    features = FeatureSet(tuple(Feature(f"p{state}", hmm(CHANGE, 3, state, **QUICK)) for state in (0, 1, 2, 3)))
    bars = returns_panel(switching(400, 3, seed=11))
    frame, state = compute(bars, features)
    known = frame.drop_nans().drop("symbol", "open_time").to_numpy()
    assert known[:, 1:].sum(axis=1) == pytest.approx(np.ones(len(known)))
    assert np.array_equal(known[:, 0], known[:, 1:].argmax(axis=1) + 1.0)
    program = features.program
    (fit,) = fits_of(state, program.stages, program.slots)
    assert (np.diff(fit.variances) >= 0.0).all()
    assert fit.transitions.sum(axis=1) == pytest.approx(np.ones(3))
    assert (fit.values, fit.purge, fit.seen) == (60, 1, 400)
    # Fits apply at returns 31, 51, 71 …, the last one at 391, which is the return of bar 391 + 1.
    assert fit.applies_from == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=392)


@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
def test_a_constant_or_missing_series_has_no_states_and_a_later_one_does(value: float) -> None:
    flat = np.full(60, value)
    features = one("calm", hmm(close, 2, 1, **QUICK))
    bars = random_bars(np.random.default_rng(12), 150)
    prices = np.concatenate([flat, bars["close"]])
    frame, _ = compute(bars_of("A", np.arange(210), dict.fromkeys(COLUMNS, prices)), features)
    assert frame["calm"].head(60).is_nan().all()
    assert frame["calm"].tail(60).is_finite().all()


def test_a_short_series_has_no_state() -> None:
    frame, state = compute(returns_panel(switching(30, 2, seed=13)), one("calm", hmm(CHANGE, 2, 1, **QUICK)))
    assert frame["calm"].is_nan().all()
    program = one("calm", hmm(CHANGE, 2, 1, **QUICK)).program
    assert fits_of(state, program.stages, program.slots) == []


def test_a_missing_value_advances_nothing() -> None:
    changes = switching(120, 2, seed=14)
    bars = returns_panel(changes)
    features = one("calm", hmm(volume, 2, 1, **QUICK))
    noisy = bars.with_columns(pl.Series("volume", np.abs(np.random.default_rng(15).normal(5, 2, bars.height))))
    holes = noisy.with_columns(pl.when(pl.int_range(pl.len()) % 7 == 3).then(float("nan")).otherwise("volume").alias("volume"))
    sparse, _ = compute(holes, features)
    dense, _ = compute(holes.filter(pl.col("volume").is_not_nan()), features)
    kept = sparse.filter(pl.Series(holes["volume"].is_not_nan()))
    assert np.array_equal(bits(kept["calm"].to_numpy()), bits(dense["calm"].to_numpy()))
    assert sparse["calm"].to_numpy()[3::7].tolist() == pytest.approx([np.nan] * len(range(3, sparse.height, 7)), nan_ok=True)


@pytest.mark.parametrize(
    ("states", "state", "numbers"),
    [(4, 1, {}), (2, 3, {}), (2, True, {}), (2, 1, {"minimum": 5}), (2, 1, {"window": 100}), (2, 1, {"purge": 400})],
)
def test_an_impossible_model_is_refused(states: int, state: int, numbers: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"hidden Markov|model needs"):
        hmm(close, states, state, **numbers)


def test_every_feature_of_the_set_regime_is_known_after_its_look_back_on_ordinary_bars() -> None:
    bars = bars_of("A", np.arange(700), random_bars(np.random.default_rng(16), 700))
    frame, _ = compute(bars, feature_set("regime"))
    assert frame.drop("symbol", "open_time").tail(300).select(pl.all().is_finite().all()).row(0) == (True,) * 11
    assert set(frame["vol_state_20_126"].drop_nans().unique()) == {0.0, 1.0, 2.0}
    assert set(frame["trend_state_20_100"].drop_nans().unique()) <= {-1.0, 0.0, 1.0}
    assert frame["vol_percentile_20_126"].drop_nans().is_between(0.0, 1.0).all()
