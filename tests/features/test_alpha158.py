"""Alpha158 against a plain two-pass re-implementation in float64, one window at a time."""

import math
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from tests.features.conftest import COLUMNS, bars_of, random_bars
from tidemill.features.api import compute, feature_set

Array = NDArray[np.float64]
WINDOWS = (5, 10, 20, 30, 60)
NAN = float("nan")


def rolled(x: Array, window: int, rule: Callable[[Array], float]) -> Array:
    return np.array([rule(x[max(0, t - window + 1) : t + 1]) for t in range(len(x))])


def numbers(rule: Callable[[Array], float], least: int = 1) -> Callable[[Array], float]:
    """The rule on the numbers of a window, NaN when there are fewer than `least`."""
    return lambda x: float(rule(x[~np.isnan(x)])) if np.count_nonzero(~np.isnan(x)) >= least else NAN


mean, total = numbers(np.mean), numbers(np.sum)
spread = numbers(lambda x: math.sqrt(np.sum((x - x.mean()) ** 2) / (len(x) - 1)), 2)


def flat(x: Array) -> bool:
    return len(x) < 2 or float(x.std(ddof=1)) <= 1e-9 * abs(float(x.mean()))


def line(x: Array) -> tuple[float, float, float]:
    """Slope, R² and residual of the newest value."""
    held = ~np.isnan(x)
    t, y = np.arange(len(x), dtype=float)[held], x[held]
    if len(y) < 2:
        return NAN, NAN, NAN
    dt, dy = t - t.mean(), y - y.mean()
    slope = float((dt * dy).sum() / (dt * dt).sum())
    rsquare = NAN if flat(y) else float((dt * dy).sum() ** 2 / ((dt * dt).sum() * (dy * dy).sum()))
    return slope, rsquare, float(x[-1] - (y.mean() + slope * (len(x) - 1 - t.mean())))


def percentile(x: Array) -> float:
    held = x[~np.isnan(x)]
    return NAN if np.isnan(x[-1]) else float(((held < x[-1]).sum() + ((held == x[-1]).sum() + 1) / 2) / len(held))


def place(x: Array, best: Callable[[Array], float]) -> float:
    return NAN if np.isnan(x).all() else float(np.flatnonzero(x == best(x))[0] + 1)


def correlation(x: Array, y: Array, window: int) -> Array:
    out = np.full(len(x), NAN)
    for t in range(len(x)):
        a, b = x[max(0, t - window + 1) : t + 1], y[max(0, t - window + 1) : t + 1]
        held = ~np.isnan(a) & ~np.isnan(b)
        a, b = a[held], b[held]
        if not flat(a) and not flat(b):
            da, db = a - a.mean(), b - b.mean()
            out[t] = (da * db).sum() / math.sqrt((da * da).sum() * (db * db).sum())
    return out


def back(x: Array, d: int) -> Array:
    return np.concatenate([np.full(min(d, len(x)), NAN), x[:-d]]) if d < len(x) else np.full(len(x), NAN)


def reference(o: Array, h: Array, l: Array, c: Array, v: Array, w: Array) -> dict[str, Array]:  # noqa: E741 - the field's letters
    e, top, bottom, c1, v1 = 1e-12, np.maximum(o, c), np.minimum(o, c), back(c, 1), back(v, 1)
    made = {
        "KMID": (c - o) / o, "KLEN": (h - l) / o, "KMID2": (c - o) / (h - l + e), "KUP": (h - top) / o, "KUP2": (h - top) /
        (h - l + e),
        "KLOW": (bottom - l) / o, "KLOW2": (bottom - l) / (h - l + e), "KSFT": (2 * c - h - l) / o, "KSFT2": (2 * c - h - l)
        / (h - l + e),
        "OPEN0": o / c, "HIGH0": h / c, "LOW0": l / c, "VWAP0": w / c,
    }  # fmt: skip
    growth, growth_v = c / c1, np.log(v / v1 + 1)
    growth_v[np.isinf(growth_v)] = NAN
    up, down, move = np.maximum(c - c1, 0), np.maximum(c1 - c, 0), np.abs(c - c1)
    more, less, flow, weighted = np.maximum(v - v1, 0), np.maximum(v1 - v, 0), np.abs(v - v1), np.abs(growth - 1) * v
    for d in WINDOWS:
        lines = np.array([line(c[max(0, t - d + 1) : t + 1]) for t in range(len(c))])
        high_place, low_place = rolled(h, d, lambda x: place(x, np.nanmax)), rolled(l, d, lambda x: place(x, np.nanmin))
        highest, lowest = rolled(h, d, numbers(np.max)), rolled(l, d, numbers(np.min))
        rose, fell = rolled((c > c1) * 1.0, d, mean), rolled((c < c1) * 1.0, d, mean)
        moved, flowed = rolled(move, d, total) + e, rolled(flow, d, total) + e
        made |= {
            f"ROC{d}": back(c, d) / c, f"MA{d}": rolled(c, d, mean) / c, f"STD{d}": rolled(c, d, spread) / c,
            f"BETA{d}": lines[:, 0] / c,
            f"RSQR{d}": lines[:, 1], f"RESI{d}": lines[:, 2] / c, f"MAX{d}": highest / c, f"MIN{d}": lowest / c,
            f"QTLU{d}": rolled(c, d, numbers(lambda x: np.quantile(x, 0.8))) / c,
            f"QTLD{d}": rolled(c, d, numbers(lambda x: np.quantile(x, 0.2))) / c,
            f"RANK{d}": rolled(c, d, percentile), f"RSV{d}": (c - lowest) / (highest - lowest + e),
            f"IMAX{d}": high_place / d, f"IMIN{d}": low_place / d, f"IMXD{d}": (high_place - low_place) / d,
            f"CORR{d}": correlation(c, np.log(v + 1), d), f"CORD{d}": correlation(growth, growth_v, d),
            f"CNTP{d}": rose, f"CNTN{d}": fell, f"CNTD{d}": rose - fell,
            f"SUMP{d}": rolled(up, d, total) / moved, f"SUMN{d}": rolled(down, d, total) / moved,
            f"SUMD{d}": (rolled(up, d, total) - rolled(down, d, total)) / moved,
            f"VMA{d}": rolled(v, d, mean) / (v + e), f"VSTD{d}": rolled(v, d, spread) / (v + e),
            f"WVMA{d}": rolled(weighted, d, spread) / (rolled(weighted, d, mean) + e),
            f"VSUMP{d}": rolled(more, d, total) / flowed, f"VSUMN{d}": rolled(less, d, total) / flowed,
            f"VSUMD{d}": (rolled(more, d, total) - rolled(less, d, total)) / flowed,
        }  # fmt: skip
    return made


def assert_agrees(columns: dict[str, Array], quote_volume: Array | None = None) -> None:
    bars = bars_of("X", np.arange(len(columns["close"])), columns)
    average = (columns["high"] + columns["low"] + columns["close"]) / 3
    if quote_volume is not None:
        bars = bars.with_columns(pl.Series("quote_volume", quote_volume))
        with np.errstate(all="ignore"):
            average = np.where(columns["volume"] > 0, quote_volume / columns["volume"], average)
    frame, _ = compute(bars, feature_set("alpha158"))
    with np.errstate(all="ignore"):
        wanted = reference(*(columns[name] for name in COLUMNS), average)
    assert set(wanted) == set(frame.columns) - {"symbol", "open_time"}
    for name, theirs in wanted.items():
        mine, theirs = frame[name].to_numpy(), np.where(np.isinf(theirs), NAN, theirs)
        assert np.array_equal(np.isnan(mine), np.isnan(theirs)), name
        held = ~np.isnan(theirs)
        error = np.abs(mine[held] - theirs[held]) / np.maximum(1.0, np.abs(theirs[held]))
        assert error.max(initial=0.0) <= 1e-9, f"{name}: {error.max():.1e}"


@pytest.mark.parametrize("level", [1e-6, 1.0, 1e5])
@pytest.mark.parametrize(("missing", "idle"), [(0.0, 0.0), (0.05, 0.1), (0.4, 0.3)])
def test_all_of_alpha158_agree_with_two_pass_windows(level: float, missing: float, idle: float) -> None:
    assert_agrees(random_bars(np.random.default_rng(int(level * 10 + missing * 100)), 170, missing, idle, level))


def test_the_average_price_comes_from_the_quote_volume_where_it_is_known() -> None:
    rng = np.random.default_rng(3)
    columns = random_bars(rng, 80, 0.0, 0.2)
    inside = columns["low"] + rng.random(80) * (columns["high"] - columns["low"])
    assert_agrees(columns, inside * columns["volume"])


def test_the_sets_hold_the_names_of_qlib_in_its_order() -> None:
    names = feature_set("alpha158").names
    assert len(names) == len(set(names)) == 158
    assert names[:13] == (
        "KMID",
        "KLEN",
        "KMID2",
        "KUP",
        "KUP2",
        "KLOW",
        "KLOW2",
        "KSFT",
        "KSFT2",
        "OPEN0",
        "HIGH0",
        "LOW0",
        "VWAP0",
    )
    assert feature_set("alpha30").names == names[:30]
    assert names[28:30] == ("BETA5", "BETA10")
    assert names[-1] == "VSUMD60"


def test_of_equal_extremes_the_oldest_counts_and_equal_values_share_their_rank() -> None:
    same = {name: np.full(10, 5.0) for name in COLUMNS}
    frame, _ = compute(bars_of("X", np.arange(10), same), feature_set("IMAX5", "IMIN5", "RANK5", "CORR5", "RSQR5"))
    assert frame["IMAX5"].to_list() == [0.2] * 10
    assert frame["IMIN5"].to_list() == [0.2] * 10
    assert frame["RANK5"].to_list()[4:] == [0.6] * 6
    assert frame["CORR5"].is_nan().all()
    assert frame["RSQR5"].is_nan().all()
