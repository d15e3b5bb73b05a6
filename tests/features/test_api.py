"""The public door: names, explanations, odd inputs, errors."""

import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from tests.features.conftest import COLUMNS, bars_of, random_bars, random_panel
from tidemill.domain.errors import InputError, IntegrityError, UnknownNameError
from tidemill.features.api import FeatureSet, compute, explain, feature_set
from tidemill.features.declaration import Feature, shipped
from tidemill.features.operators import close, mean, ref
from tidemill.features.prices import average_price
from tidemill.features.state import FeatureState
from tidemill.features.stream import FeatureStream

EVERYTHING = feature_set("classic", "alpha158")
DESIGNED = (
    "sma_20 ema_20 wma_20 dema_20 tema_20 kama_10 rsi_14 macd_12_26_9 macd_signal_12_26_9 macd_hist_12_26_9 bb_upper_20_2 "
    "bb_middle_20_2 bb_lower_20_2 std_20 atr_14 natr_14 adx_14 plus_di_14 minus_di_14 cci_20 mfi_14 willr_14 roc_10 mom_10 "
    "trix_15 "
    "stoch_k_5_3_3 stoch_d_5_3_3 aroon_up_14 aroon_down_14 ultosc_7_14_28 obv ad cmf_20 vwap_20 sar"
)


def test_the_set_classic_holds_every_name_of_the_design() -> None:
    assert feature_set("classic").names == tuple(DESIGNED.split())


def test_sets_and_single_names_are_joined_in_order_and_each_comes_once() -> None:
    assert feature_set("ROC5", "alpha30", "sma_7", "KMID").names[:3] == ("ROC5", "KMID", "KLEN")
    assert feature_set("ROC5", "alpha30", "sma_7").names[-1] == "sma_7"


@pytest.mark.parametrize(
    "name", ["nothing", "sma_0", "sma_020", "sma_20_3", "ROC_5", "sma_99999", "rsi_1.5", "bb_upper_20_2.50", ""]
)
def test_an_unknown_name_is_an_error_that_lists_the_choices(name: str) -> None:
    with pytest.raises((UnknownNameError, InputError), match=r"Choose one of: classic|A window of"):
        feature_set(name)


def test_no_name_at_all_is_an_error() -> None:
    with pytest.raises(InputError, match="classic"):
        feature_set()


def test_every_declared_feature_can_be_explained() -> None:
    for name in shipped().declared():
        told = explain(name)
        assert told.name == name
        assert told.formula
        assert told.about
        assert told.unit
        assert told.lookback >= 1


def test_an_explanation_tells_formula_look_back_and_recursion() -> None:
    assert explain("ROC10").formula == "ref(close, 10) / close"
    assert explain("ROC10").lookback == 11
    assert explain("MA60").lookback == 60
    assert explain("CORD60").lookback == 61
    assert explain("rsi_14").recursive
    assert not explain("cci_20").recursive
    assert EVERYTHING.lookback == 61


def test_the_fingerprint_follows_names_and_definitions() -> None:
    same = feature_set("sma_20", "KMID")
    assert same.fingerprint == feature_set("sma_20", "KMID").fingerprint
    assert same.fingerprint != feature_set("KMID", "sma_20").fingerprint
    changed = FeatureSet((Feature("sma_20", mean(close, 20)), same.features[1]))
    assert changed.fingerprint != same.fingerprint


def test_naming_and_explaining_import_no_numerics() -> None:
    program = (
        "import sys\nfrom tidemill.features.api import explain, feature_set\n"
        "feature_set('classic', 'alpha158').fingerprint, explain('KMID')\n"
        "print([name for name in ('numba', 'numpy', 'polars', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("length", [0, 1, 2, 70])
@pytest.mark.parametrize("fill", [np.nan, 0.0, 5.0, -1.0, np.inf, 1e308, 1e-308])
def test_constant_missing_infinite_short_and_empty_bars_give_numbers_or_nan_and_never_infinity(
    length: int, fill: float
) -> None:
    bars = bars_of("X", np.arange(length), {name: np.full(length, fill) for name in COLUMNS})
    frame, state = compute(bars, EVERYTHING)
    assert frame.columns == ["symbol", "open_time", *EVERYTHING.names]
    assert set(frame.dtypes[2:]) == {pl.Float64}
    assert len(frame) == length
    assert not np.isinf(frame.select(EVERYTHING.names).to_numpy()).any()
    assert frame.null_count().sum_horizontal().item() == 0
    if np.isnan(fill) and length:
        kept = set(frame.columns[2:]) - {f"CNT{kind}{window}" for kind in "PND" for window in (5, 10, 20, 30, 60)}
        assert frame.select(pl.col(sorted(kept)).is_nan().all()).row(0) == (True,) * len(kept)
    assert state.symbols == (("X",) if length else ())


def test_null_cells_are_missing_values_and_integer_columns_are_numbers() -> None:
    columns = random_bars(np.random.default_rng(1), 60)
    bars = bars_of("X", np.arange(60), columns).with_columns(pl.col("volume").cast(pl.Int64))
    holed = bars.with_columns(
        pl.when(pl.col("open_time") == bars["open_time"][30]).then(None).otherwise(pl.col("close")).alias("close")
    )
    frame, _ = compute(holed, feature_set("sma_5", "MA5"))
    assert frame["sma_5"].is_nan().to_list() == [True] * 4 + [False] * 26 + [True] * 5 + [False] * 25
    assert frame["MA5"].is_nan().to_list() == [index == 30 for index in range(60)]


def test_unsorted_bars_are_sorted_and_duplicates_refused() -> None:
    bars = random_panel(2, symbols=3, slots=50)
    frame, _ = compute(bars, feature_set("sma_5"))
    mixed, _ = compute(bars.sample(fraction=1.0, shuffle=True, seed=1), feature_set("sma_5"))
    assert mixed.equals(frame.sort("symbol", "open_time"))
    with pytest.raises(InputError, match="two bars"):
        compute(pl.concat([bars, bars[:1]]), feature_set("sma_5"))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda bars: bars.drop("high"), "'high'"),
        (lambda bars: bars.drop("symbol"), "'symbol'"),
        (lambda bars: bars.with_columns(pl.col("open_time").cast(pl.String)), "open_time"),
        (lambda bars: bars.with_columns(close=pl.lit("many")), "'close' does not hold numbers"),
        (lambda bars: bars.with_columns(symbol=pl.lit(None, dtype=pl.String)), "no symbol"),
    ],
)
def test_unfit_frames_are_refused_in_one_sentence(change: object, text: str) -> None:
    with pytest.raises(InputError, match=text):
        compute(change(random_panel(3, symbols=1, slots=20)), feature_set("sma_5", "atr_14"))  # type: ignore[operator]


def test_a_feature_that_looks_ahead_can_be_written_and_is_not_computed() -> None:
    with pytest.raises(InputError, match="looks ahead"):
        compute(random_panel(3, symbols=1, slots=20), FeatureSet((Feature("leak", ref(close, -1)),)))


def test_a_state_refuses_old_bars_other_features_and_damage() -> None:
    bars = random_panel(4, symbols=2, slots=60)
    features = feature_set("ema_20", "MA10")
    _, state = compute(bars, features)
    with pytest.raises(InputError, match="before the state ends"):
        compute(bars, features, state)
    with pytest.raises(IntegrityError, match="another feature set"):
        compute(bars, feature_set("ema_20"), state)
    with pytest.raises(IntegrityError, match="another feature set"):
        FeatureStream(feature_set("MA10"), ["S0"], state)
    data = state.to_bytes()
    for broken in (b"", b"junk" * 50, data[:-1], data[:-40] + b"\1" + data[-39:], data[:8] + b"\xff" + data[9:]):
        with pytest.raises(IntegrityError):
            FeatureState.from_bytes(broken)


def test_an_incremental_state_keeps_symbols_that_had_no_new_bar() -> None:
    bars = random_panel(5, symbols=3, slots=60, absent=0.0)
    features = feature_set("ema_20", "MA10")
    _, state = compute(bars, features)
    last = bars["open_time"].max()
    later = bars.filter(pl.col("symbol") == "S1").with_columns(pl.col("open_time") + pl.duration(days=100))
    _, newer = compute(later, features, state)
    assert newer.symbols == state.symbols
    assert newer.times[0] == state.times[0]
    assert newer.times[1] > state.times[1]
    assert last is not None


def test_a_stream_refuses_wrong_lengths_bars_out_of_order_and_repeated_symbols() -> None:
    stream = FeatureStream(feature_set("sma_5"), ["A", "B"])
    ones = np.ones(2)
    with pytest.raises(InputError, match="2 numbers"):
        stream.step(np.ones(3), ones, ones, ones, ones)
    with pytest.raises(InputError, match="2 numbers"):
        stream.step(["x", "y"], ones, ones, ones, ones)
    moment = pl.datetime(2024, 1, 1, time_zone="UTC")
    time = pl.select(moment).item()
    stream.step(ones, ones, ones, ones, ones, open_time=time)
    with pytest.raises(InputError, match=r"'A'.*not later"):
        stream.step(ones, ones, ones, ones, ones, open_time=time)
    with pytest.raises(InputError, match="each only once"):
        FeatureStream(feature_set("sma_5"), ["A", "A"])
    with pytest.raises(InputError, match="at least one"):
        FeatureStream(feature_set("sma_5"), [])


def test_the_average_price_falls_back_where_the_quote_volume_cannot_be_right() -> None:
    high, low, close_, volume = (
        np.array([12.0] * 4),
        np.array([9.0] * 4),
        np.array([9.0] * 4),
        np.array([10.0, 10.0, 0.0, 10.0]),
    )
    quote = np.array([110.0, 1_000.0, 50.0, np.nan])
    assert average_price(high, low, close_, volume, quote).tolist() == [11.0, 10.0, 10.0, 10.0]
    assert average_price(high, low, close_, volume).tolist() == [10.0] * 4
