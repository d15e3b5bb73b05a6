"""The cached step of the causal transformer, compiled: the next position of each of some symbols.

It computes what `network.forward` computes, with keys and values of the last CONTEXT positions kept in a ring. Every sum runs
in a fixed order (inputs as they stand, positions from the newest back), so a row's bits depend neither on the rows beside it
nor on where the history starts. Rows are worked on TILE at a time only because the weights are then read once for all of them.

State of a symbol: keys [layers, heads, D, CONTEXT], values [layers, heads, CONTEXT, D] and the count of positions seen.
Weights of equal layers are stacked, the layer first; matrices are [inputs, outputs]. R: rows of a tile.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidemill.compiled import entry, kernel
from tidemill.models.sequence.shape import CONTEXT, Shape

Single = NDArray[np.float32]
Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Powers = NDArray[np.int32]

WIDTH, HEADS, DEPTH, HIDDEN = Shape(1).width, Shape(1).heads, Shape(1).head_width, Shape(1).hidden
TILE = 8
_MASK = CONTEXT - 1  # CONTEXT is a power of two
_EPSILON = np.float32(1e-5)  # of torch's layer norm
_SCALE = np.float32(DEPTH**-0.5)
_LOG2E = np.float32(math.log2(math.e))
# 2^f for |f| <= 1/2: the Taylor series of exp(f ln 2), whose first term left out is below 2e-8.
_POWERS = tuple(np.float32(math.log(2.0) ** n / math.factorial(n)) for n in range(8))
_GELU, _CUBIC = np.float32(math.sqrt(2.0 / math.pi)), np.float32(0.044715)
_ONE, _TWO, _HALF = np.float32(1.0), np.float32(2.0), np.float32(0.5)


class Scaling(NamedTuple):
    """Bounds, mean and deviation of each feature (see `models.base.Standardizer`), the clip, and the scale of the answer."""

    lower: Floats
    upper: Floats
    mean: Floats
    deviation: Floats
    limit: float
    output: float


class Layers(NamedTuple):
    """Weights of all layers, stacked."""

    attention_gain: Single
    attention_shift: Single
    attention: Single
    attention_bias: Single
    distance: Single
    mix: Single
    mix_bias: Single
    mlp_gain: Single
    mlp_shift: Single
    up: Single
    up_bias: Single
    down: Single
    down_bias: Single


class Ends(NamedTuple):
    """Weights before and after the layers."""

    embed: Single
    embed_bias: Single
    gain: Single
    shift: Single
    head: Single
    head_bias: Single


@kernel
def _scaled(values: Floats, scaling: Scaling, out: Single) -> int:
    """Standardised features of a row into `out`; returns how many are known."""
    known = 0
    for j in range(len(out)):
        value = values[j]
        finite = math.isfinite(value)
        known += finite
        if not finite or scaling.deviation[j] <= 0.0:
            out[j] = 0.0
            continue
        value = min(max(value, scaling.lower[j]), scaling.upper[j])
        value = (value - scaling.mean[j]) / scaling.deviation[j]
        out[j] = min(max(value, -scaling.limit), scaling.limit)
    return known


@kernel
def _dense(x: Single, weight: Single, bias: Single, out: Single) -> None:
    """out [R, N] = bias + x [R, M] @ weight, the inputs in their order; four at a time only saves loads and stores."""
    rows, inputs, outputs = len(x), weight.shape[0], weight.shape[1]
    for r in range(rows):
        for j in range(outputs):
            out[r, j] = bias[j]
    whole = inputs // 4 * 4
    for i in range(0, whole, 4):
        for r in range(rows):
            a, b, c, d = x[r, i], x[r, i + 1], x[r, i + 2], x[r, i + 3]
            for j in range(outputs):
                out[r, j] = (((out[r, j] + a * weight[i, j]) + b * weight[i + 1, j]) + c * weight[i + 2, j]) + d * weight[
                    i + 3, j
                ]
    for i in range(whole, inputs):
        for r in range(rows):
            for j in range(outputs):
                out[r, j] += x[r, i] * weight[i, j]


@kernel
def _norm(h: Single, gain: Single, shift: Single, out: Single) -> None:
    for r in range(len(h)):
        total = np.float32(0.0)
        for j in range(WIDTH):
            total += h[r, j]
        mean = total / np.float32(WIDTH)
        total = np.float32(0.0)
        for j in range(WIDTH):
            total += (h[r, j] - mean) * (h[r, j] - mean)
        inverse = _ONE / np.float32(math.sqrt(total / np.float32(WIDTH) + _EPSILON))
        for j in range(WIDTH):
            out[r, j] = (h[r, j] - mean) * inverse * gain[j] + shift[j]


@kernel
def _exp(x: Single, power: Powers) -> None:
    """exp of every number, in place, to 3e-7 of it; below -87 the smallest normal number. `power` is room of the same length.

    exp x = 2^n 2^f with a whole n, which is put into the exponent's bits: plain arithmetic that runs on whole vectors.
    """
    scale = power.view(np.float32)
    for j in range(len(x)):
        exponent = min(max(x[j] * _LOG2E, np.float32(-126.0)), np.float32(126.0))
        whole = np.float32(math.floor(exponent + _HALF))
        f = exponent - whole
        high = ((_POWERS[7] * f + _POWERS[6]) * f + _POWERS[5]) * f + _POWERS[4]
        x[j] = (((high * f + _POWERS[3]) * f + _POWERS[2]) * f + _POWERS[1]) * f + _POWERS[0]
        power[j] = (np.int32(whole) + np.int32(127)) << np.int32(23)
    for j in range(len(x)):
        x[j] *= scale[j]


@kernel
def _attend(
    qkv: Single, keys: Single, values: Single, distance: Single, seen: int, scores: Single, power: Powers, out: Single
) -> None:  # fmt: skip
    """Causal attention of the newest position, whose key and value are put into the ring first."""
    now = seen & _MASK
    inside = min(seen + 1, CONTEXT)
    for head in range(HEADS):
        first = head * DEPTH
        for j in range(DEPTH):
            keys[head, j, now] = qkv[WIDTH + first + j]
            values[head, now, j] = qkv[2 * WIDTH + first + j]
        for slot in range(CONTEXT):
            scores[slot] = 0.0
        for j in range(0, DEPTH, 4):
            a, b, c, d = qkv[first + j], qkv[first + j + 1], qkv[first + j + 2], qkv[first + j + 3]
            for slot in range(CONTEXT):
                one, two = a * keys[head, j, slot], b * keys[head, j + 1, slot]
                three, four = c * keys[head, j + 2, slot], d * keys[head, j + 3, slot]
                scores[slot] = (((scores[slot] + one) + two) + three) + four
        total = _softmax(scores, power, distance[head], now, inside)
        _mix(scores, values[head], now, inside, total, out[first : first + DEPTH])


@kernel
def _mix(scores: Single, values: Single, now: int, inside: int, total: np.float32, out: Single) -> None:
    """out [D] = the values of the `inside` newest positions by their shares, four at a time."""
    for j in range(DEPTH):
        out[j] = 0.0
    whole = inside // 4 * 4
    for back in range(0, whole, 4):
        at, bt = (now - back) & _MASK, (now - back - 1) & _MASK
        ct, dt = (now - back - 2) & _MASK, (now - back - 3) & _MASK
        a, b, c, d = scores[at], scores[bt], scores[ct], scores[dt]
        for j in range(DEPTH):
            out[j] = (((out[j] + a * values[at, j]) + b * values[bt, j]) + c * values[ct, j]) + d * values[dt, j]
    for back in range(whole, inside):
        at = (now - back) & _MASK
        for j in range(DEPTH):
            out[j] += scores[at] * values[at, j]
    for j in range(DEPTH):
        out[j] /= total


@kernel
def _softmax(scores: Single, power: Powers, distance: Single, now: int, inside: int) -> np.float32:
    """Unscaled shares of the `inside` newest positions, in place, and their sum; what the other slots hold is not read."""
    highest = np.float32(-np.inf)
    for back in range(inside):
        slot = (now - back) & _MASK
        scores[slot] = scores[slot] * _SCALE + distance[back]
        highest = max(highest, scores[slot])
    for slot in range(CONTEXT):
        scores[slot] -= highest
    _exp(scores, power)
    total = np.float32(0.0)
    for back in range(inside):
        total += scores[(now - back) & _MASK]
    return total


@kernel
def _gelu(h: Single, room: Single, power: Powers) -> None:
    """The tanh form, 0.5 h (1 + tanh u), with tanh u = 1 - 2 / (exp 2u + 1)."""
    for r in range(len(h)):
        for j in range(HIDDEN):
            room[j] = _TWO * _GELU * (h[r, j] + _CUBIC * h[r, j] * h[r, j] * h[r, j])
        _exp(room, power)
        for j in range(HIDDEN):
            h[r, j] = _HALF * h[r, j] * (_TWO - _TWO / (room[j] + _ONE))


@kernel
def _add(h: Single, added: Single) -> None:
    for r in range(len(h)):
        for j in range(WIDTH):
            h[r, j] += added[r, j]


@kernel
def _tile(
    x: Single, layers: Layers, ends: Ends, keys: Single, values: Single, lanes: Counts, seen: Counts, out: Single
) -> None:  # fmt: skip
    """Outputs [R] of positions x [R, F]; row r continues the state of `lanes[r]` at its position `seen[r]`, in order."""
    rows = len(x)
    h, normed = np.empty((rows, WIDTH), np.float32), np.empty((rows, WIDTH), np.float32)
    mixed, added = np.empty((rows, WIDTH), np.float32), np.empty((rows, WIDTH), np.float32)
    wide, hidden = np.empty((rows, 3 * WIDTH), np.float32), np.empty((rows, HIDDEN), np.float32)
    scores, room, power = np.empty(CONTEXT, np.float32), np.empty(HIDDEN, np.float32), np.empty(HIDDEN, np.int32)
    _dense(x, ends.embed, ends.embed_bias, h)
    for layer in range(len(layers.mix)):
        _norm(h, layers.attention_gain[layer], layers.attention_shift[layer], normed)
        _dense(normed, layers.attention[layer], layers.attention_bias[layer], wide)
        for r in range(rows):
            own_keys, own_values = keys[lanes[r], layer], values[lanes[r], layer]
            _attend(wide[r], own_keys, own_values, layers.distance[layer], seen[r], scores, power[:CONTEXT], mixed[r])
        _dense(mixed, layers.mix[layer], layers.mix_bias[layer], added)
        _add(h, added)
        _norm(h, layers.mlp_gain[layer], layers.mlp_shift[layer], normed)
        _dense(normed, layers.up[layer], layers.up_bias[layer], hidden)
        _gelu(hidden, room, power)
        _dense(hidden, layers.down[layer], layers.down_bias[layer], added)
        _add(h, added)
    _norm(h, ends.gain, ends.shift, normed)
    for r in range(rows):
        total = np.float32(0.0)
        for j in range(WIDTH):
            total += normed[r, j] * ends.head[j]
        out[r] = total + ends.head_bias[0]


@kernel
def _scored(
    rows: Floats, at: Counts, lanes: Counts, seen: Counts, scaling: Scaling, layers: Layers, ends: Ends,
    keys: Single, values: Single, out: Floats,
) -> None:  # fmt: skip
    """Predictions of the rows `at`, in tiles; NaN where fewer than half of the features are known."""
    width = rows.shape[1]
    x, scored, known = np.empty((TILE, width), np.float32), np.empty(TILE, np.float32), np.empty(TILE, np.int64)
    for first in range(0, len(at), TILE):
        count = min(TILE, len(at) - first)
        for r in range(count):
            known[r] = _scaled(rows[at[first + r]], scaling, x[r])
        part = slice(first, first + count)
        _tile(x[:count], layers, ends, keys, values, lanes[part], seen[part], scored)
        for r in range(count):
            out[at[first + r]] = scored[r] * scaling.output if known[r] * 2 >= width else np.nan


@entry
def step(
    rows: Floats, present: NDArray[np.bool_], scaling: Scaling, layers: Layers, ends: Ends,
    keys: Single, values: Single, seen: Counts, out: Floats,
) -> None:  # fmt: skip
    """Predictions `out` [n] of the next bar `rows` [n, F] of n symbols, whose state moves on.

    NaN, and no change of state, where a symbol is not present; NaN where fewer than half of the features are known.
    """
    at = np.flatnonzero(present)
    out[:] = np.nan
    _scored(rows, at, at, seen[at], scaling, layers, ends, keys, values, out)
    seen[at] += 1


@entry
def scan(rows: Floats, firsts: Counts, stops: Counts, scaling: Scaling, layers: Layers, ends: Ends, out: Floats) -> None:
    """Predictions `out` [T] of the bars `rows` [T, F] of some symbols, each from its first: the same step, bar after bar.

    firsts, stops: first and past-the-last row of each symbol.
    """
    depth = len(layers.mix)
    keys = np.zeros((1, depth, HEADS, DEPTH, CONTEXT), dtype=np.float32)
    values = np.zeros((1, depth, HEADS, CONTEXT, DEPTH), dtype=np.float32)
    for symbol in range(len(firsts)):  # what the ring holds of the symbol before is not read
        at = np.arange(stops[symbol] - firsts[symbol])
        part = slice(firsts[symbol], stops[symbol])
        _scored(rows[part], at, np.zeros_like(at), at, scaling, layers, ends, keys, values, out[part])
