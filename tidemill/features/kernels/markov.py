"""A Gaussian hidden Markov model with 2 or 3 states of one series: fitting by Baum-Welch, filtering by Hamilton's recursion.

Sources: Rabiner, A tutorial on hidden Markov models (1989), for the scaled forward and backward passes and re-estimation;
Hamilton (1989) for the filter. Parameters lie in one flat array: start K, transitions K × K by rows, means K, variances K.
"""

import math

import numpy as np

from tidemill.compiled import entry, kernel
from tidemill.features.arrays import Floats, Integers
from tidemill.features.opcodes import DEGENERATE

# More steps gain little: 3 nats in the median of three states of 1,008 hourly returns, of some 3,000, at twice the time.
ITERATIONS = 30
# Gain in log-likelihood, by observation, below which a fit has settled: 0.01 for 1,000 of them, as in hmmlearn.
TOLERANCE = 1e-5
STAY = 0.95
# A variance never falls below this share of the window's, so that no state collapses onto one value.
FLOOR = 1e-6
# State of one model: these places, then filtered probabilities, parameters and the ring of the newest values.
COUNT, FITTED, APPLIES_FROM, LIKELIHOOD, USED, HEAD = 0, 1, 2, 3, 4, 5


@kernel
def parameters(states: int) -> int:
    return states * (states + 3)


@kernel
def prepare(states: int, theta: Floats, fixed: Floats) -> None:
    """What the densities of `theta` need and no value changes: K logarithms of their factors, then K rates."""
    variances = theta[2 * states + states * states :]
    for k in range(states):
        fixed[k] = -0.5 * math.log(2.0 * math.pi * variances[k])
        fixed[states + k] = 0.5 / variances[k]


@kernel
def emit(x: float, states: int, theta: Floats, fixed: Floats, density: Floats) -> float:
    """Densities of x in each state, over the greatest of them; returns the logarithm of the greatest."""
    means = theta[states + states * states :]
    greatest = -math.inf
    for k in range(states):
        distance = x - means[k]
        density[k] = fixed[k] - distance * distance * fixed[states + k]
        greatest = max(greatest, density[k])
    for k in range(states):
        density[k] = math.exp(density[k] - greatest)
    return greatest


@kernel
def predict(states: int, theta: Floats, before: Floats, first: bool, out: Floats) -> None:
    """Probabilities of the states before x is seen: the start, or one transition after `before`."""
    for k in range(states):
        out[k] = theta[k]
        if not first:
            out[k] = 0.0
            for j in range(states):
                out[k] += before[j] * theta[states + j * states + k]


@kernel
def update(states: int, density: Floats, probability: Floats) -> float:
    """Probabilities after x is seen, in place; returns what they were divided by."""
    total = 0.0
    for k in range(states):
        probability[k] *= density[k]
        total += probability[k]
    for k in range(states):
        probability[k] = probability[k] / total if total > 0.0 else 1.0 / states
    return total


@kernel
def forward(x: Floats, states: int, theta: Floats, densities: Floats, filtered: Floats, scale: Floats) -> float:
    """Filtered probabilities of every value of x; returns the log-likelihood."""
    fixed = np.empty(2 * states)
    prepare(states, theta, fixed)
    likelihood = 0.0
    for t in range(len(x)):
        greatest = emit(x[t], states, theta, fixed, densities[t])
        predict(states, theta, filtered[max(t - 1, 0)], t == 0, filtered[t])
        scale[t] = update(states, densities[t], filtered[t])
        likelihood += greatest + (math.log(scale[t]) if scale[t] > 0.0 else -math.inf)
    return likelihood


@kernel
def expect(
    states: int, theta: Floats, densities: Floats, filtered: Floats, scale: Floats, smoothed: Floats, moves: Floats
) -> None:
    """The backward pass: smoothed probabilities of each value and expected numbers of transitions. For fitting alone."""
    last = len(filtered) - 1
    ahead, onward = np.ones(states), np.empty(states)
    moves[:] = 0.0
    smoothed[last] = filtered[last]
    for t in range(last - 1, -1, -1):
        for k in range(states):
            onward[k] = densities[t + 1, k] * ahead[k] / scale[t + 1]
        total = 0.0
        for j in range(states):
            ahead[j] = 0.0
            for k in range(states):
                ahead[j] += theta[states + j * states + k] * onward[k]
                moves[j, k] += filtered[t, j] * onward[k]
            smoothed[t, j] = filtered[t, j] * ahead[j]
            total += smoothed[t, j]
        for j in range(states):
            smoothed[t, j] /= total
    for j in range(states):
        for k in range(states):
            moves[j, k] *= theta[states + j * states + k]


@kernel
def maximise(x: Floats, states: int, theta: Floats, smoothed: Floats, moves: Floats, floor: float) -> None:
    """New parameters from expectations. A state that nothing belongs to keeps its own."""
    first_mean, first_variance = states + states * states, 2 * states + states * states
    for k in range(states):
        theta[k] = smoothed[0, k]
        leaving = moves[k].sum()
        if leaving > 0.0:
            for j in range(states):
                theta[states + k * states + j] = moves[k, j] / leaving
        weight, total = 0.0, 0.0
        for t in range(len(x)):
            weight += smoothed[t, k]
            total += smoothed[t, k] * x[t]
        if weight <= 1e-8 * len(x):
            continue
        mean, squares = total / weight, 0.0
        for t in range(len(x)):
            squares += smoothed[t, k] * (x[t] - mean) ** 2
        theta[first_mean + k], theta[first_variance + k] = mean, max(squares / weight, floor)


@kernel
def initial(x: Floats, states: int, theta: Floats) -> float:
    """Starting parameters: a state for each third (or half) of x by distance to its mean. Returns the variance of x.

    It is 0 where x has no spread.
    """
    mean = x.mean()
    distances = np.sort((x - mean) ** 2)
    variance = float(distances.mean())
    if not DEGENERATE * math.fabs(mean) < math.sqrt(variance) < math.inf:
        return 0.0
    for k in range(states):
        theta[k] = 1.0 / states
        for j in range(states):
            theta[states + k * states + j] = STAY if j == k else (1.0 - STAY) / (states - 1)
        share = distances[k * len(x) // states : (k + 1) * len(x) // states]
        theta[states + states * states + k] = mean
        theta[2 * states + states * states + k] = max(share.mean(), FLOOR * variance)
    return variance


@kernel
def by_variance(states: int, theta: Floats) -> None:
    """Put the states into the order of their variances."""
    order = np.argsort(theta[2 * states + states * states : parameters(states)])
    old = theta.copy()
    for k in range(states):
        source = order[k]
        theta[k] = old[source]
        for part in range(2):
            theta[(1 + part) * states + states * states + k] = old[(1 + part) * states + states * states + source]
        for j in range(states):
            theta[states + k * states + j] = old[states + source * states + order[j]]


@kernel
def improve(x: Floats, states: int, theta: Floats, floor: float, iterations: int) -> float:
    """Baum-Welch from `theta` on, in place, until it settles; returns the log-likelihood."""
    densities, filtered = np.empty((len(x), states)), np.empty((len(x), states))
    smoothed, scale, moves = np.empty((len(x), states)), np.empty(len(x)), np.empty((states, states))
    before = -math.inf
    for _ in range(iterations):
        likelihood = forward(x, states, theta, densities, filtered, scale)
        if not math.isfinite(likelihood) or likelihood - before < TOLERANCE * len(x):
            return likelihood
        before = likelihood
        expect(states, theta, densities, filtered, scale, smoothed, moves)
        maximise(x, states, theta, smoothed, moves, floor)
    return forward(x, states, theta, densities, filtered, scale)


@kernel
def fit(x: Floats, states: int, theta: Floats) -> float:
    """Fit from the initial parameters of x; states by variance. Returns the log-likelihood, NaN where x has no spread."""
    variance = initial(x, states, theta)
    if variance <= 0.0:
        return math.nan
    likelihood = improve(x, states, theta, FLOOR * variance, ITERATIONS)
    by_variance(states, theta)
    return likelihood


@kernel
def refit(state: Floats, states: int, window: int, purge: int, time: float) -> None:
    """Fit on the values before the cut-off, then filter all remembered values again with the new parameters."""
    first = HEAD + states
    theta, ring = state[first : first + parameters(states)], state[first + parameters(states) :]
    count, size = int(state[COUNT]), window + purge
    held = min(count, size)
    x = np.empty(held)
    for k in range(held):
        x[k] = ring[(count - held + k) % size]
    likelihood = fit(x[: held - purge], states, theta)
    state[FITTED] = 1.0 if math.isfinite(likelihood) else 0.0
    state[APPLIES_FROM], state[LIKELIHOOD], state[USED] = time, likelihood, float(held - purge)
    if state[FITTED] == 0.0:
        return
    density, probability, fixed = np.empty(states), np.empty(states), np.empty(2 * states)
    prepare(states, theta, fixed)
    for k in range(held):
        emit(x[k], states, theta, fixed, density)
        predict(states, theta, state[HEAD:], k == 0, probability)
        update(states, density, probability)
        for j in range(states):
            state[HEAD + j] = probability[j]


@kernel
def next_value(x: float, state: Floats, numbers: Integers, time: float, fixed: Floats, density: Floats,
               probability: Floats) -> None:  # fmt: skip
    """One bar: fit when it is time to, then filter x. Without a model the probabilities are NaN."""
    states, every, window, minimum, purge = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
    count = int(state[COUNT])
    if count >= minimum + purge and (count - minimum - purge) % every == 0:
        refit(state, states, window, purge, time)
    if state[FITTED] > 0.0:
        theta = state[HEAD + states : HEAD + states + parameters(states)]
        prepare(states, theta, fixed)
        emit(x, states, theta, fixed, density)
        predict(states, theta, state[HEAD:], False, probability)
        update(states, density, probability)
    else:
        probability[:] = np.nan
    for k in range(states):
        state[HEAD + k] = probability[k]
    state[HEAD + states + parameters(states) + count % (window + purge)] = x
    state[COUNT] = count + 1.0


@entry
def markov(
    values: Floats, bounds: Integers, times: Integers, carried: Floats, offset: int, numbers: Integers, out: Floats
) -> None:
    """Filter the values of several symbols: symbol s has the places bounds[s] … bounds[s + 1] - 1, in order of time.

    numbers: states, refit, window, minimum, purge. carried: symbols × places, of which the model's begin at `offset`.
    times: epoch microseconds of each value. out: states + 1 rows: number of the most probable state, from 1, then the
    probabilities; NaN where the value is, or before the first fit.
    """
    states = numbers[0]
    fixed, density, probability = np.empty(2 * states), np.empty(states), np.empty(states)
    for symbol in range(len(bounds) - 1):
        state = carried[symbol, offset:]
        for i in range(bounds[symbol], bounds[symbol + 1]):
            if values[i] != values[i]:
                out[:, i] = np.nan
                continue
            next_value(values[i], state, numbers, float(times[i]), fixed, density, probability)
            best = 0
            for k in range(states):
                out[k + 1, i] = probability[k]
                if probability[k] > probability[best]:
                    best = k
            out[0, i] = best + 1.0 if probability[0] == probability[0] else np.nan


@entry
def fit_series(x: Floats, states: int, theta: Floats) -> float:
    """`fit`, for a whole series: parameters in place, log-likelihood returned."""
    return fit(x, states, theta)


@entry
def improve_series(x: Floats, states: int, theta: Floats, iterations: int) -> float:
    """Baum-Welch steps from given parameters, without a floor of variance; parameters in place, log-likelihood returned."""
    return improve(x, states, theta, 0.0, iterations)


@entry
def filter_series(x: Floats, states: int, theta: Floats, filtered: Floats) -> float:
    """Filtered probabilities (values × states, in place) under given parameters; returns the log-likelihood."""
    return forward(x, states, theta, np.empty((len(x), states)), filtered, np.empty(len(x)))
