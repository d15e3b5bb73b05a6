"""Sums over changes are rewritten: the same numbers, one window of memory."""

import numpy as np

from tests.features.conftest import random_panel
from tidemill.features.api import FeatureSet, compute, feature_set
from tidemill.features.declaration import Feature
from tidemill.features.expression import Expression
from tidemill.features.fusion import fused
from tidemill.features.operators import abs, close, ema, maximum, mean, ref, sum, volume

_before = ref(close, 1)
FUSED: dict[str, Expression] = {
    "rises": sum(maximum(close - _before, 0.0), 9),
    "falls": sum(maximum(_before - close, 0.0), 9),
    "moves": sum(abs(_before - close), 9),
}
# Multiplied by one they look different and are equal to the bit.
PLAIN: dict[str, Expression] = {
    "rises": sum(maximum((close - _before) * 1.0, 0.0), 9),
    "falls": sum(maximum((_before - close) * 1.0, 0.0), 9),
    "moves": sum(abs((_before - close) * 1.0), 9),
}


def test_sums_of_changes_keep_their_bits() -> None:
    bars = random_panel(3, symbols=4, slots=200, missing=0.03)
    one, other = (
        compute(bars, FeatureSet(tuple(Feature(name, expression) for name, expression in found.items())))[0]
        for found in (FUSED, PLAIN)
    )
    for name, expression in FUSED.items():
        assert fused(expression).operator == name
        assert fused(PLAIN[name]).operator == "sum"
        assert np.array_equal(one[name].to_numpy().view(np.uint64), other[name].to_numpy().view(np.uint64)), name


def test_shares_of_rising_bars_are_whole_numbers_over_the_bars_there_are() -> None:
    bars = random_panel(4, symbols=1, slots=50, missing=0.1, absent=0.0)
    features = FeatureSet((Feature("rose", mean(close > _before, 6)), Feature("fell", mean(close < _before, 6))))
    frame, prices = compute(bars, features)[0], bars["close"].to_numpy()
    with np.errstate(invalid="ignore"):
        rose = np.append(False, prices[1:] > prices[:-1])
        fell = np.append(False, prices[1:] < prices[:-1])
    for name, flags in (("rose", rose), ("fell", fell)):
        wanted = [flags[max(0, at - 5) : at + 1].sum() / min(at + 1, 6) for at in range(len(flags))]
        assert frame[name].to_list() == wanted


def test_only_what_is_a_change_is_rewritten() -> None:
    for expression in (
        sum(maximum(close - ref(close, 2), 0.0), 5),
        sum(maximum(close - ref(volume, 1), 0.0), 5),
        sum(maximum(close - _before, 1.0), 5),
        sum(abs(close), 5),
        mean(close > ref(close, 3), 5),
        mean(abs(close - _before), 5),
    ):
        assert fused(expression) is expression


def test_changes_inside_of_other_expressions_are_found() -> None:
    inside = sum(maximum(ema(close, 3) - ref(ema(close, 3), 1), 0.0), 5) / close
    rewritten = fused(inside)
    assert rewritten.arguments[0].operator == "rises"
    assert rewritten.arguments[0].arguments[0].key == ema(close, 3).key


def test_alpha158_keeps_windows_of_few_series() -> None:
    program = feature_set("alpha158").program
    assert np.count_nonzero(program.depth) == 8
    shared = program.places[program.places >= 0]
    assert shared.max() < len(shared) / 4
