"""Sizing by inverse volatility and by mean and variance: past only, inside its bounds, deterministic, never without weights."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from skfolio.moments import LedoitWolf

from tests.backtest.panels import DAY, TIME, day, instrument
from tests.strategies.weights import target_weights
from tidemill.domain.errors import InputError
from tidemill.domain.market import Instrument
from tidemill.strategies import optimise
from tidemill.strategies.optimise import Bounds, optimal_weights, shrunk_covariance
from tidemill.strategies.past import betas, volatility
from tidemill.strategies.registry import weigh

SYMBOLS = tuple("ABCDEFGHIJ")
SHORT = {symbol: instrument(symbol, can_short=True) for symbol in SYMBOLS}
NAMES = ("inverse_volatility", "mean_variance")
PARAMS = {"window": 40, "least": 20, "every": 10, "quantile": 0.3, "max_weight": 0.4}


def market(days: int = 80, seed: int = 3, late: int = 0) -> pl.DataFrame:
    """Ten symbols whose volatility rises from A to J; `late`: the day on which J is listed."""
    random = np.random.default_rng(seed)
    frames = []
    for number, symbol in enumerate(SYMBOLS):
        first = late if symbol == "J" else 0
        close = 100 * np.exp(np.cumsum(random.normal(0, 0.005 * (number + 1), days)))
        times = pl.Series([day(at) for at in range(first, days)], dtype=TIME)
        frames.append(pl.DataFrame({"symbol": [symbol] * len(times), "open_time": times, "close": close[first:]}))
    return pl.concat(frames)


def scores(bars: pl.DataFrame, first: int = 30, seed: int = 4) -> pl.DataFrame:
    rows = bars.filter(pl.col("open_time") >= day(first)).select("symbol", "open_time")
    return rows.with_columns(pl.Series("prediction", np.random.default_rng(seed).normal(size=rows.height)))


def returns_of(bars: pl.DataFrame) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """[days, symbols] by pandas."""
    wide = bars.to_pandas().pivot(index="open_time", columns="symbol", values="close")
    return wide.pct_change(fill_method=None).to_numpy()


@pytest.mark.parametrize("name", NAMES)
def test_what_comes_later_changes_no_weight(name: str) -> None:
    bars = market()
    predictions = scores(bars)
    whole = target_weights(name, predictions, PARAMS, SHORT, bars)
    for last in (41, 55, 72):
        cut = pl.col("open_time") <= day(last)
        early = target_weights(name, predictions.filter(cut), PARAMS, SHORT, bars.filter(cut))
        assert early.equals(whole.filter(cut))
        altered = bars.with_columns(pl.when(cut).then("close").otherwise(pl.col("close") * 3.0))
        assert target_weights(name, predictions, PARAMS, SHORT, altered).filter(cut).equals(early)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("instruments", [SHORT, {}])
def test_weights_keep_their_bounds_and_come_out_the_same_again(name: str, instruments: dict[str, Instrument]) -> None:
    bars = market()
    made = target_weights(name, scores(bars), PARAMS, instruments, bars)
    assert made.equals(target_weights(name, scores(bars), PARAMS, instruments, bars))
    by_time = made.group_by("open_time").agg(
        pl.col("weight").abs().sum().alias("gross"),
        pl.col("weight").sum().alias("net"),
        pl.col("weight").abs().max().alias("top"),
    )
    assert (by_time["gross"] <= 1.0 + 1e-9).all()
    assert (by_time["top"] <= 0.4 + 1e-9).all()
    assert (by_time["gross"] > 0.2).all()
    assert (made["weight"] >= 0.0).all() == (not instruments)
    if instruments and name == "mean_variance":
        assert by_time["net"].abs().max() < 1e-4  # type: ignore[operator]  # a float


def test_the_calmer_of_two_gets_the_larger_share() -> None:
    bars = market()
    made = target_weights("inverse_volatility", scores(bars), PARAMS | {"max_weight": 1.0}, SHORT, bars)
    time = made["open_time"].min()
    weights = {symbol: weight for symbol, at, weight in made.iter_rows() if at == time and weight > 0}
    past = returns_of(bars)[1 : int((time - day(0)).days) + 1]  # type: ignore[operator]  # a time
    sigma = dict(zip(SYMBOLS, past.std(axis=0, ddof=1), strict=True))
    inverse = {symbol: 1 / sigma[symbol] for symbol in weights}
    assert weights == pytest.approx({symbol: 0.5 * value / sum(inverse.values()) for symbol, value in inverse.items()})


@pytest.mark.parametrize("name", NAMES)
def test_a_late_listing_a_dead_symbol_and_a_hole_are_dealt_with(name: str) -> None:
    bars = market(late=35).filter(~((pl.col("symbol") == "B") & (pl.col("open_time") == day(25))))
    bars = bars.filter(~((pl.col("symbol") == "A") & (pl.col("open_time") > day(55))))
    ranks = {symbol: float(number) for number, symbol in enumerate(SYMBOLS)}
    rows = bars.filter(pl.col("open_time") >= day(30)).select("symbol", "open_time")
    predictions = rows.with_columns(pl.col("symbol").replace_strict(ranks).alias("prediction"))  # J is best, A is worst
    weights, notes = weigh(name, predictions, PARAMS, SHORT, DAY, bars=bars)
    of = {(symbol, at): weight for symbol, at, weight in weights.iter_rows()}
    assert of["J", day(40)] == 0.0  # five returns are not enough
    assert of["J", day(60)] > 0.0
    assert of["A", day(40)] < 0.0
    assert of["A", day(60)] == 0.0
    assert weights["weight"].is_finite().all()
    assert any("left out" in note for note in notes)


def test_prices_that_stand_still_get_nothing() -> None:
    bars = market().with_columns(pl.when(pl.col("symbol") == "C").then(7.0).otherwise("close").alias("close"))
    rows = bars.filter(pl.col("open_time") == day(50)).select("symbol", "open_time")
    predictions = rows.with_columns(pl.Series("prediction", [0, 0, 9, 0, 5, 0, 0, 0, 0, -1], dtype=pl.Float64))
    for name in NAMES:
        made = dict(target_weights(name, predictions, PARAMS, SHORT, bars).select("symbol", "weight").iter_rows())
        assert made["C"] == 0.0
        assert made["E"] > 0.0


def test_where_the_solver_fails_inverse_volatility_is_used_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    bars = market()
    expected = target_weights("inverse_volatility", scores(bars), PARAMS, SHORT, bars)
    monkeypatch.setattr(optimise, "_judged", lambda *_: None)
    made, notes = weigh("mean_variance", scores(bars), PARAMS, SHORT, DAY, bars=bars)
    assert any("inverse volatility was used" in note for note in notes)
    held = [dict(frame.select("symbol", (pl.col("weight") != 0).alias("held")).iter_rows()) for frame in (made, expected)]
    assert held[0] == held[1]


def test_the_optimum_is_that_of_the_closed_form_where_no_bound_binds() -> None:
    covariance = np.array([[0.04, 0.01], [0.01, 0.09]])
    mean = np.array([0.010, 0.012])
    weights = optimal_weights(mean, covariance, Bounds(np.ones(2), 10.0, 5.0, neutral=False), 1.0)
    assert weights == pytest.approx(np.linalg.solve(2.0 * covariance, mean), rel=1e-3)
    impossible = optimal_weights(np.array([np.nan, 1.0]), covariance, Bounds(np.ones(2), 1.0, 1.0, neutral=False), 1.0)
    assert impossible is None


def test_the_covariance_is_ledoit_and_wolfs_of_those_with_history() -> None:
    window = np.random.default_rng(0).normal(0, 0.02, (60, 4))
    window[:50, 2] = np.nan
    made = shrunk_covariance(window, 30)
    kept = [0, 1, 3]
    np.testing.assert_allclose(made.matrix, LedoitWolf().fit(window[:, kept]).covariance_)
    assert np.isnan(made.deviation[2])
    np.testing.assert_array_equal(made.among(np.array([3, 0])), made.matrix[np.ix_([2, 0], [2, 0])])


def test_volatility_and_beta_are_those_of_numpy() -> None:
    window = np.random.default_rng(1).normal(0, 0.02, (50, 3))
    window[10:20, 1] = np.nan
    there = np.isfinite(window[:, 1])
    assert volatility(window, 5)[1] == pytest.approx(window[there, 1].std(ddof=1))
    market_return = np.nanmean(window, axis=1)
    covariance = np.cov(window[there, 1], market_return[there])
    assert betas(window, 5)[1] == pytest.approx(covariance[0, 1] / covariance[1, 1])
    assert np.isnan(betas(window, 45)[1])
    assert np.isnan(volatility(window, 45)[1])


@pytest.mark.parametrize(
    ("name", "params"),
    [("inverse_volatility", {"least": 1}), ("inverse_volatility", {"window": 5}), ("mean_variance", {"risk_aversion": 0}),
     ("mean_variance", {"ic": 1.5}), ("mean_variance", {"refit": 0}), ("mean_variance", {"most": 1})],
)  # fmt: skip
def test_parameters_that_make_no_sense_are_refused(name: str, params: dict[str, float]) -> None:
    bars = market(10)
    with pytest.raises(InputError, match=name):
        target_weights(name, scores(bars, 0), params, {}, bars)


def test_bars_are_asked_for() -> None:
    bars = market(40)
    with pytest.raises(InputError, match="needs bars"):
        target_weights("mean_variance", scores(bars), PARAMS, {})
    with pytest.raises(InputError, match="close"):
        target_weights("mean_variance", scores(bars), PARAMS, {}, bars.drop("close"))
    with pytest.raises(InputError, match="no bars"):
        target_weights("inverse_volatility", scores(bars), PARAMS, {}, bars.clear())
    assert bars["open_time"][1] - bars["open_time"][0] == timedelta(days=1)
