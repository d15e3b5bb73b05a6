"""Proofs that a person asks for: of features by name or of a file, of a function, on any frame of bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from tidemill.features.api import FeatureSet, compute, feature_set
from tidemill.features.expression import FEAR_GREED
from tidemill.market.fear_greed import join_known
from tidemill.market.fear_greed_panel import panel_interval, source_index
from tidemill.study.registry import SHIPPED_REGISTRY, Registry
from tidemill.validation.causality.features import prove_features, some_symbols, with_context
from tidemill.validation.causality.inputs import Compute
from tidemill.validation.causality.proof import Proof, Refutation, merged
from tidemill.validation.causality.prove import Say, prove

if TYPE_CHECKING:
    import polars as pl

    from tidemill.features.declaration import Features

# Streaming is proven on so many symbols, and on as many bars beyond the longest look-back.
_STREAMED_SYMBOLS, _STREAMED_BARS = 4, 200


def chosen_features(names: str | None, registry: Registry = SHIPPED_REGISTRY) -> tuple[FeatureSet, dict[str, str]]:
    """The features of names separated by commas, of the registry's files, or of every set; and function → why it has none."""
    if registry.files:
        return FeatureSet(tuple(one for file in registry.files for one in file.own.features.values())), registry.failed
    known = registry.features
    if names is None:
        return feature_set(*known.sets, known=known), {}
    return feature_set(*(part.strip() for part in names.split(",") if part.strip()), known=known), {}


def prove_on_bars(
    features: FeatureSet,
    bars: pl.DataFrame,
    *,
    registry: Registry = SHIPPED_REGISTRY,
    fear_greed: str | None = None,
    say: Say | None = None,
) -> Proof:
    """No look-ahead in batch, and the same bits bar by bar with the state reloaded in a fresh process.

    registry: of the features. fear_greed: source of the Fear & Greed Index; features that
    read it are then proven through its join with the bars, else on made-up values of it.
    """
    index = None if fear_greed is None else source_index(fear_greed)
    panel = bars if index is None else join_known(bars, index, panel_interval(bars))
    proof = prove_features(features, panel, say=say)
    if index is not None:
        proof = merged([proof, _prove_joined(features, bars, index)], features.names)
    looking = {one.feature for one in proof.refuted}
    live = features.compiled.without({one.name for one in features.features if one.expression.looks_ahead} | looking)
    if not live.names:
        return proof
    from tidemill.evaluation.streaming import prove_streaming

    if say:
        say("bar by bar")
    return merged([prove_streaming(live, _streamed(live, panel), registry=registry), proof], features.names)


def _prove_joined(features: FeatureSet, bars: pl.DataFrame, index: pl.DataFrame) -> Proof:
    """The features that read the index, as functions of bars and of what was known of the index beside them."""
    reading = FeatureSet(tuple(one for one in features.features if not one.expression.inputs.isdisjoint(FEAR_GREED)))
    if not reading.names:
        return Proof(proven=(), refuted=())
    interval = panel_interval(bars)

    def joined(bars: pl.DataFrame, index: pl.DataFrame) -> pl.DataFrame:
        return compute(join_known(bars, index, interval), reading)[0]

    return prove(joined, some_symbols(bars, _STREAMED_SYMBOLS), beside={"index": index}, interval=interval)


def prove_all(
    bars: pl.DataFrame,
    what: Sequence[str | Compute],
    *,
    lookback: int | None = None,
    beside: Mapping[str, pl.DataFrame] | None = None,
    known: Features | None = None,
) -> Proof:
    """Features by name and functions of one's own, in one proof. lookback, beside: of the functions (see `causality.prove`).

    known: where the features are found; None for those that ship.
    """
    names = [one for one in what if isinstance(one, str)]
    proofs = [prove_features(feature_set(*names, known=known), bars)] if names else []
    proofs += [_prove_function(one, bars, lookback, beside) for one in what if not isinstance(one, str)]
    found = (name for proof in proofs for name in proof.names)
    return merged(proofs, tuple(dict.fromkeys(found)))


def _prove_function(
    function: Compute, bars: pl.DataFrame, lookback: int | None, beside: Mapping[str, pl.DataFrame] | None
) -> Proof:
    """Every call in a process of its own. A function that cannot go there can be refuted here, and is not judged otherwise."""
    from tidemill.user_modules.carried import NotCarriedError, carried
    from tidemill.user_modules.fresh import Fresh

    try:
        given = carried(function)
    except NotCarriedError as exc:
        proof = prove(function, bars, lookback=lookback, beside=beside)
        return proof.without_judging(dict.fromkeys(proof.proven, f"what a call remembers could help the next one: {exc}"))
    with Fresh(given) as fresh:
        return prove(fresh, bars, lookback=lookback, beside=beside)


def _streamed(features: FeatureSet, bars: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    few = with_context(some_symbols(bars, _STREAMED_SYMBOLS), features)
    times = few["open_time"].unique().sort()
    return few.filter(pl.col("open_time") >= times[-min(len(times), _STREAMED_BARS + features.lookback)])


def refused(proof: Proof, failed: Mapping[str, str], bars: pl.DataFrame) -> Proof:
    """`proof` with the functions that could not even declare features among the refuted."""
    symbol, time = bars.select("symbol", "open_time").row(0)
    lost = tuple(Refutation(name, symbol, time, f"it cannot be computed: {why}", fails=True) for name, why in failed.items())
    return msgspec.structs.replace(proof, refuted=(*proof.refuted, *lost))
