"""The causality proof of a feature set: each kind of feature by what is known of it.

Finite features are combed; recursive and cross-sectional ones are judged by windows; a function of a user's module by its
declared look-back. A feature whose expression looks ahead is evaluated all the same, so that the proof shows a value that
changes; where none does, it is refuted by its expression: it can be written and cannot be shipped.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl

from tidemill.domain.errors import InputError
from tidemill.domain.intervals import Interval
from tidemill.features.ahead import compute_ahead
from tidemill.features.api import FeatureSet, compute
from tidemill.features.declaration import Feature
from tidemill.features.expression import CONTEXT, INPUTS, Expression, walk
from tidemill.validation.causality.inputs import Compute
from tidemill.validation.causality.proof import DULL, Effort, Proof, Refutation, merged
from tidemill.validation.causality.prove import FULL, Say, prove

# A fitted operator learns anew on every altered panel: of so many symbols it is cut, at so many rows where it lives, and so
# many slots of one symbol are altered.
_FITTED_CUTS, _FITTED_LIVING, _FITTED_SLOTS = 6, 8, 128


class _Group(NamedTuple):
    """Features that are proven together. warm: bars before a value. fitted: whether each computation learns anew.

    foreign: whether it is a function of a user's module. by_tail: whether one that is given its newest bars and nothing else.
    """

    features: tuple[Feature, ...]
    compute: Compute
    lookback: int | None
    warm: int
    fitted: bool = False
    foreign: bool = False
    by_tail: bool = False


def prove_features(
    features: FeatureSet,
    bars: pl.DataFrame,
    *,
    interval: Interval | None = None,
    effort: Effort = FULL,
    seed: int = 7,
    say: Say | None = None,
) -> Proof:
    """Prove every feature of a set on `bars`, adjusted, with the columns of `features.api.compute`.

    A column of expression.CONTEXT that the bars lack is made up: the features that read it are proven given that column.
    Raises InputError when the features cannot be computed on the bars as they are; a function of a module is refuted then.
    """
    panel = with_context(bars, features, seed)
    proofs: list[Proof] = []
    for group in _groups(features):
        try:
            proofs.extend(_proofs(group, panel, interval, effort, seed, say))
        except InputError as exc:
            if not group.foreign:
                raise
            symbol, time = bars.select("symbol", "open_time").row(0)
            why = f"it cannot be computed: {exc}"
            failed = (Refutation(one.name, symbol, time, why, fails=True) for one in group.features)
            proofs.append(Proof(proven=(), refuted=tuple(failed)))
    return _as_stated(features, merged(proofs, features.names), bars)


def _proofs(
    group: _Group, bars: pl.DataFrame, interval: Interval | None, effort: Effort, seed: int, say: Say | None
) -> Iterator[Proof]:
    tried = msgspec.structs.replace(effort, warm=max(effort.warm, group.warm))

    def proof(panel: pl.DataFrame, tried: Effort) -> Proof:
        return prove(group.compute, panel, lookback=group.lookback, interval=interval, effort=tried, seed=seed, say=say)

    if group.by_tail:
        yield _of_tails(proof(_newest(bars, group), msgspec.structs.replace(tried, every_bar=False, living=0)))
        return
    if not group.fitted:
        yield proof(bars, tried)
        return
    few = proof(some_symbols(bars, _FITTED_CUTS), msgspec.structs.replace(tried, every_bar=False, living=_FITTED_LIVING))
    yield few.without_judging(_lives_elsewhere(group, few, bars))
    if effort.every_bar:
        alone = msgspec.structs.replace(tried, cuts=0, living=0, slots=_FITTED_SLOTS)
        yield msgspec.structs.replace(proof(some_symbols(bars, 1), alone), silent=())


def _newest(bars: pl.DataFrame, group: _Group) -> pl.DataFrame:
    """So many slots that the tail is full on `warm` of them."""
    times = bars["open_time"].unique().sort().tail((group.lookback or 0) + group.warm)
    return bars.filter(pl.col("open_time") >= times[0])


def _of_tails(proof: Proof) -> Proof:
    """Who is given nothing later cannot look ahead, also where he says nothing on these bars: cuts of a few show that it is so.

    A call a slot makes every further computation dear: with all that others are put to, they took half of a run.
    """
    wrong = {found.feature for found in proof.refuted}
    return msgspec.structs.replace(
        proof, proven=tuple(name for name in proof.names if name not in wrong), unjudged=(), silent=()
    )


def _lives_elsewhere(group: _Group, proof: Proof, bars: pl.DataFrame) -> dict[str, str]:
    """Why features are not judged that are dull on the symbols of the proof and not on all."""
    if not proof.silent:
        return {}
    whole = group.compute(bars)
    return {name: DULL for name in proof.silent if whole[name].drop_nans().n_unique() > 1}


def with_context(bars: pl.DataFrame, features: FeatureSet, seed: int = 7) -> pl.DataFrame:
    """The bars with a column of chance, one value a time, for each column beside the bars that is read and not there."""
    nodes = {node.key for feature in features.features for node in walk(feature.expression)}
    missing = [name for name in CONTEXT if name not in bars.columns and f"column({float(INPUTS.index(name))!r})" in nodes]
    times = bars.select(pl.col("open_time").unique().sort())
    generator = np.random.default_rng(seed)
    made = times.with_columns(pl.Series(name, generator.uniform(0.0, 100.0, times.height)) for name in missing)
    return bars.join(made, on="open_time", how="left", maintain_order="left") if missing else bars


def some_symbols(bars: pl.DataFrame, count: int) -> pl.DataFrame:
    """The bars of `count` symbols: those with the most and those with the fewest bars, which are where the edges are."""
    lengths = bars.group_by("symbol").len().sort("len", "symbol")["symbol"]
    chosen = pl.concat([lengths.head(count // 2), lengths.tail(count - count // 2)]).unique()
    return bars.filter(pl.col("symbol").is_in(chosen.implode()))


def _groups(features: FeatureSet) -> Iterator[_Group]:
    rest = []
    by_function: dict[str, list[Feature]] = {}
    ahead = tuple(feature for feature in features.features if feature.expression.looks_ahead)
    for feature in features.features:
        if feature.expression.operator == "external":
            by_function.setdefault(feature.expression.key, []).append(feature)
        elif not feature.expression.looks_ahead:
            rest.append(feature)
    if ahead:
        yield _Group(ahead, lambda bars: compute_ahead(bars, ahead), None, _warm(ahead))
    for function in features.functions:
        own = [feature for feature in features.features if feature.name in function.columns]
        yield _Group(tuple(own), function.run, function.lookback, 64, foreign=True, by_tail=function.by_tail)
    yield from _compiled(rest)


def _compiled(features: list[Feature]) -> Iterator[_Group]:
    kinds: dict[str, list[Feature]] = {}
    for feature in features:
        kinds.setdefault(_kind(feature.expression), []).append(feature)
    for kind, found in kinds.items():
        own = tuple(found)
        lookback = FeatureSet(own).lookback if kind == "finite" else None
        yield _Group(own, _computing(own), lookback, _warm(own), kind == "fitted")


def _kind(expression: Expression) -> str:
    operators = {node.operator for node in walk(expression)}
    if "hmm" in operators:
        return "fitted"
    if any(name.startswith("cs_") for name in operators):
        return "cross-sectional"
    return "recursive" if expression.recursive else "finite"


def _computing(features: tuple[Feature, ...]) -> Callable[[pl.DataFrame], pl.DataFrame]:
    chosen = FeatureSet(features)
    return lambda bars: compute(bars, chosen)[0]


def _warm(features: tuple[Feature, ...]) -> int:
    """Bars before all of `features` may have a value."""
    learning = [
        int(node.parameters[4] + node.parameters[5])
        for feature in features
        for node in walk(feature.expression)
        if node.operator == "hmm"
    ]
    return max(feature.expression.lookback for feature in features) + max(learning, default=0)


def _as_stated(features: FeatureSet, proof: Proof, bars: pl.DataFrame) -> Proof:
    """Refute what looks ahead by its expression, also where no value of these bars shows it."""
    symbol, time = bars.select("symbol", "open_time").row(0)
    known = {found.feature: found for found in proof.refuted}
    for feature in features.features:
        if feature.expression.looks_ahead and feature.name not in known:
            why = f"its expression looks ahead, though no value of these bars shows it: {feature.expression}"
            known[feature.name] = Refutation(feature.name, symbol, time, why)
    return msgspec.structs.replace(
        proof,
        proven=tuple(name for name in proof.proven if name not in known),
        refuted=tuple(known[name] for name in features.names if name in known),
    )
