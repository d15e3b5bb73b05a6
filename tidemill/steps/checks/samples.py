"""The small panels on which a run proves what it computes, and the proofs made on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from tidemill.domain.errors import InputError
from tidemill.domain.experiment import EngineSpec
from tidemill.features.api import compute
from tidemill.features.expression import FEAR_GREED
from tidemill.market.adjustments import adjust
from tidemill.market.fear_greed import join_known
from tidemill.models.artifact import Artifact
from tidemill.models.base import Engine, Lineage
from tidemill.steps.checks.sample_months import SAMPLE, sample_months
from tidemill.steps.features.context import with_context
from tidemill.steps.features.technical import feature_inputs
from tidemill.steps.market_data.fear_greed import known_index, reads_index
from tidemill.study.fitting import failing_as
from tidemill.study.labelling import labelled
from tidemill.study.study import Study
from tidemill.validation.causality.features import some_symbols
from tidemill.validation.causality.folds import prove_folds
from tidemill.validation.causality.proof import Effort, Proof, merged
from tidemill.validation.causality.prove import prove
from tidemill.validation.splits import Fold, training_rows

_CUTS = Effort(cuts=4, every_bar=False, living=0)
_SYMBOLS, _INDEX_BARS = 4, 160
_ENGINE_SYMBOLS, _SEQUENCE_SYMBOLS, _ENGINE_BARS = 5, 2, 300
_WEIGHTS, _WEIGHED_FOLDS = "ensemble weights", 4
_LATE = 6
_PRICES = ("open", "high", "low", "close", "volume")


def late_listed(frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` with its last symbol listed after a sixth of the times: what counts symbols that are not there yet then shows."""
    symbols, times = frame["symbol"].unique().sort(), frame["open_time"].unique().sort()
    if len(symbols) < 2:
        return frame
    return frame.filter((pl.col("symbol") != symbols[-1]) | (pl.col("open_time") >= times[len(times) // _LATE]))


def _last_bars(bars: pl.DataFrame, count: int) -> pl.DataFrame:
    times = bars["open_time"].unique().sort()
    return bars.filter(pl.col("open_time") >= times[-min(count, len(times))])


def prove_adjusting(study: Study) -> Proof:
    """Adjusted prices from raw bars and corporate actions: neither may be used before it was known."""
    raw, actions = study.bars_of(sample_months(study)), study.adjustments
    named = {name: f"adjusted {name}" for name in _PRICES}
    told = actions.filter(pl.col("symbol").is_in(raw["symbol"].unique().implode()))
    symbols = told["symbol"].unique().sort().head(_SYMBOLS)
    panel = raw.filter(pl.col("symbol").is_in(symbols.implode())) if len(symbols) else some_symbols(raw, 1)

    def adjusted(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
        return adjust(bars, actions).select("symbol", "open_time", *_PRICES).rename(named)

    return prove(adjusted, panel, beside={"actions": told}, interval=study.dataset.interval, effort=_CUTS)


def prove_index(study: Study) -> Proof:
    """The Fear & Greed Index beside bars, where a feature reads it: no value before it was known."""
    if not reads_index(study.available):
        return Proof(proven=(), refuted=())
    bars = _last_bars(some_symbols(study.adjusted_of(sample_months(study)), 2), _INDEX_BARS)
    interval = study.dataset.interval

    def joined(bars: pl.DataFrame, index: pl.DataFrame) -> pl.DataFrame:
        made = join_known(bars, index, interval)
        return made.select("symbol", "open_time", *(pl.col(name).alias(f"joined {name}") for name in FEAR_GREED))

    return prove(joined, bars, beside={"index": known_index(study)}, interval=interval)


def prove_engines(study: Study) -> Proof:
    """Each engine on a fold of the sample: its model fitted again on what was known, its predictions inferred from it."""
    proofs = [_prove_engine(study, spec) for spec in study.engines]
    return merged(proofs, tuple(spec.name for spec in study.engines))


def _prove_engine(study: Study, spec: EngineSpec) -> Proof:
    engine, fit = study.registry.engines.find(spec.name), fitting(study, spec)
    symbols = _SEQUENCE_SYMBOLS if engine.info.kind == "sequence" else _ENGINE_SYMBOLS
    months = sample_months(study)
    complete = _complete(feature_inputs(study, months, study.available), symbols)
    panel = late_listed(_last_bars(complete, _ENGINE_BARS + min(study.features.lookback, SAMPLE)))
    fold = _sample_fold(study, panel)
    try:
        model = fit(panel, fold)
    except InputError:  # too few bars for this engine: then on the study's own first fold
        panel, fold = with_context(study, study.adjusted, study.available), study.folds[0]
        model = fit(panel, fold)
    interval = study.dataset.interval
    stored = {fold.number: model.hash}
    borders = prove_folds(spec.name, lambda bars, one: fit(bars, one).hash, panel, [fold], interval=interval, stored=stored)
    between = prove(inferring(study, engine, model), panel, interval=interval, effort=_CUTS)
    return merged([borders, between], (spec.name,))


def fitting(study: Study, spec: EngineSpec, lineage: Callable[[Fold], Lineage] | None = None) -> Callable[..., Artifact]:
    """(adjusted bars, fold) → the model: all that leads from bars to it. lineage: what the model says of its origin."""
    engine, horizon, seed = study.registry.engines.find(spec.name), study.experiment.label.horizon, study.experiment.seed

    def fit(bars: pl.DataFrame, fold: Fold) -> Artifact:
        labels = labelled(study, bars)
        frame = compute(bars, study.available)[0].join(labels, on=("symbol", "open_time"), how="left", maintain_order="left")
        rows = training_rows(frame, fold)
        origin = lineage(fold) if lineage else Lineage(horizon=horizon)
        with failing_as(spec.name):
            return engine.fit(rows, features=study.available.names, params=spec.params, seed=seed, lineage=origin)

    return fit


def inferring(study: Study, engine: Engine, model: Artifact) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Adjusted bars → a column of predictions named as the engine."""

    def infer(bars: pl.DataFrame) -> pl.DataFrame:
        return engine.predict(model, compute(bars, study.available)[0]).rename({"prediction": engine.info.name})

    return infer


def _complete(bars: pl.DataFrame, count: int) -> pl.DataFrame:
    """The bars of up to `count` symbols that have the most of them."""
    lengths = bars.group_by("symbol").len().sort("len", "symbol", descending=[True, False])["symbol"]
    return bars.filter(pl.col("symbol").is_in(lengths.head(count).implode()))


def _sample_fold(study: Study, bars: pl.DataFrame) -> Fold:
    """Two thirds to train on, less an embargo; the rest to test."""
    grid = bars["open_time"].unique().sort().to_list()
    train = max(2 * len(grid) // 3, 1)
    embargo = min(max(study.experiment.label.horizon, study.features.lookback), train // 3)
    return Fold(0, grid[0], grid[train - embargo], grid[train], grid[-1] + study.dataset.interval.delta)


def prove_signals(study: Study) -> Proof:
    """The strategy's weights, on predictions and bars of few symbols, one of them listed later."""
    from tidemill.strategies.registry import weigh
    from tidemill.study.book import resolved, sees_bars
    from tidemill.study.scoring import books
    from tidemill.study.sources import instruments_of

    spec, known = resolved(study.experiment.strategy), study.registry.strategies
    instruments = instruments_of(study.workspace, study.dataset.venue)
    needs, interval = known.find(spec.name).needs, study.dataset.interval
    bars = late_listed(_complete(study.adjusted_of(sample_months(study)), _ENGINE_SYMBOLS))

    def weights(inputs: pl.DataFrame, bars: pl.DataFrame | None = None, there: pl.DataFrame | None = None) -> pl.DataFrame:
        made = weigh(
            spec.name,
            inputs,
            spec.params,
            instruments,
            interval,
            bars=bars,
            there=there,
            neutralise=spec.neutralise,
            known=known,
        )
        return made.weights.rename({"weight": spec.name})

    if needs == "bars":
        return prove(weights, bars, interval=interval, effort=Effort(cuts=6, living=0))
    # What sizes by bars is too slow for every bar: cuts alone.
    effort = Effort(cuts=6, warm=16, span=16, every_bar=not sees_bars(spec, known), living=0)
    scores = _predictions(study, next(iter(books(study).values())))
    beside = {"bars": _known(study, study.adjusted, scores)} if sees_bars(spec, known) else {}
    if len({instruments[symbol].calendar for symbol in scores["symbol"].unique()}) > 1:
        beside["there"] = _known(study, study.bars.select("symbol", "open_time"), scores)
    return prove(weights, scores, beside=beside, interval=interval, effort=effort)


def prove_weighing(study: Study) -> Proof:
    """The ensemble's weights at the border of each fold, from outcomes known by then; nothing where they are equal."""
    from tidemill.metrics.predictions import scored
    from tidemill.study.weighing import coefficients, skill_weights

    if study.experiment.ensemble == "equal":
        return Proof(proven=(), refuted=())
    names = [spec.name for spec in study.engines]
    folds = study.folds[:_WEIGHED_FOLDS]
    outcomes = _outcomes(study, names, folds)

    def weights(frame: pl.DataFrame, fold: Fold) -> str:
        labels = frame.select("symbol", "open_time", "label", "label_end_at")
        rows = {name: scored(frame.select("symbol", "open_time", prediction=name), labels) for name in names}
        known = {name: coefficients(own, fold.train_end) for name, own in rows.items()}
        return repr(skill_weights(known, study.experiment.label.horizon))

    return prove_folds(_WEIGHTS, weights, outcomes, folds[1:], interval=study.dataset.interval)


def _outcomes(study: Study, engines: Sequence[str], folds: Sequence[Fold]) -> pl.DataFrame:
    """A prediction of each engine beside its label, with the time at which that was known."""
    from tidemill.study.tables import LABELS, PREDICTIONS, partition_of

    parts = [partition_of(fold) for fold in folds]
    frame = study.lake.scan(LABELS, study.labels_key).collect().drop_nulls("label_end_at")
    for spec in study.engines:
        scan = study.lake.scan(PREDICTIONS, study.engine_key(spec), partitions=parts)
        own = scan.select("symbol", "open_time", pl.col("prediction").alias(spec.name)).collect()
        frame = frame.join(own, on=("symbol", "open_time"), how="left")
    tested = frame.filter(pl.any_horizontal(pl.col(name).is_not_null() for name in engines))
    return late_listed(_complete(tested, 2 * _ENGINE_SYMBOLS)).with_columns(pl.col("label_end_at").alias("known_at"))


def _predictions(study: Study, key: str) -> pl.DataFrame:
    """The first predictions of a book, of symbols that are predicted at its first time, one of them from later on."""
    from tidemill.study.tables import PREDICTIONS

    columns = ("symbol", "open_time", "prediction")
    frame = study.lake.scan(PREDICTIONS, key).select(columns).collect().sort("symbol", "open_time")
    times = frame["open_time"].unique().sort().head(120)
    early = frame.filter(pl.col("open_time") <= times[-1])
    there = early.filter(pl.col("open_time") == times[0])["symbol"]
    return late_listed(_complete(early.filter(pl.col("symbol").is_in(there.implode())), 2 * _ENGINE_SYMBOLS))


def _known(study: Study, bars: pl.DataFrame, scores: pl.DataFrame) -> pl.DataFrame:
    """Those of `bars` of the symbols of `scores`, up to its last time, each known at its close."""
    own = pl.col("symbol").is_in(scores["symbol"].unique().implode()) & (pl.col("open_time") <= scores["open_time"].max())
    return bars.filter(own).with_columns((pl.col("open_time") + study.dataset.interval.delta).alias("known_at"))
