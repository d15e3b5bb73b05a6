"""Challenger against champion: the same bars, which neither was trained on, the same costs; promotion, and its undoing.

A challenger is the book of an experiment (`promotion.book`) trained anew on the newest window that leaves `promotion.bars` bar
times for the comparison. The champion's own artifacts, by its own experiment, are scored on those bars beside it. The
challenger wins if the lower bound of what it earned more per bar, after costs, lies above zero (stationary bootstrap of the
paired difference, one-sided at `promotion.confidence`); where there is no champion it has to beat cash in the same way.

Promotion fails closed: what is not proven causal, or whose checks are missing or failed, is not promoted; neither is anything
on evidence about a champion of the past.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl

from tidemill.domain.errors import InputError, IntegrityError, StopError
from tidemill.domain.experiment import Experiment
from tidemill.metrics.bootstrap import mean_interval
from tidemill.metrics.predictions import prediction_metrics, scored
from tidemill.metrics.returns import performance_metrics
from tidemill.models.artifact import Artifact, load
from tidemill.models.ensemble import combine
from tidemill.models.registry import engine as engine_named
from tidemill.provenance import fingerprint, source_version
from tidemill.steps.features.technical import compute_features
from tidemill.steps.performance.selection import configuration, data_version
from tidemill.steps.performance.skill import bars_a_year
from tidemill.storage import champions
from tidemill.storage.champions import Champion, Nominee
from tidemill.storage.trials import TrialBatch
from tidemill.strategies.registry import strategy, weigh
from tidemill.study.counting import label_text, record_trials
from tidemill.study.fitting import fit_fold
from tidemill.study.freshness import StepReport
from tidemill.study.model_index import artifact_folder, models_home, spec_of
from tidemill.study.sources import instruments_of
from tidemill.study.study import Study
from tidemill.study.tables import ENSEMBLE
from tidemill.validation.splits import Fold, embargo_length, scoring_rows

if TYPE_CHECKING:
    from tidemill.backtest.result import BacktestResult

# Folds of the walk-forward are numbered from 0; a window of a challenger is none of them.
_CHALLENGE = 1_000_000


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """What the held-out bars said. advantage, low: mean return per bar over the champion (or cash), and its lower bound.

    refusals: why the challenger may not be promoted however well it did.
    """

    start: datetime
    end: datetime
    bars: int
    challenger: dict[str, Any]
    champion: dict[str, Any] | None
    advantage: float
    low: float
    confidence: float
    models: dict[str, str]
    trained_until: datetime
    refusals: tuple[str, ...] = ()

    @property
    def wins(self) -> bool:
        return self.low > 0.0 and not self.refusals

    def sentence(self) -> str:
        """The outcome in words."""
        if self.refusals:
            return f"Not promoted: {' '.join(self.refusals)}"
        rival = "the champion" if self.champion else "cash"
        told = f"{self.advantage:+.3%} a bar over {rival} after costs, lower bound {self.low:+.3%} at {self.confidence:.0%}"
        return f"Promoted: {told}." if self.wins else f"Not promoted: {told}; it must lie above zero."


def members(experiment: Experiment) -> tuple[str, ...]:
    """Engines of the book that is to be promoted. InputError when the experiment has no such book."""
    names = tuple(spec.name for spec in experiment.engines)
    book = experiment.promotion.book
    if book == ENSEMBLE:
        return names
    if book not in names:
        raise InputError(f"promotion.book is {book!r}; write ensemble or one of {', '.join(names)}.")
    return (book,)


def challenge_fold(study: Study) -> Fold:
    """The newest training window that leaves `promotion.bars` bar times, embargoed, for the comparison.

    InputError when the history is too short for both, or a label is longer than what is held out.
    """
    held, horizon, times = study.experiment.promotion.bars, study.experiment.label.horizon, study.times
    if horizon > held:
        raise InputError(
            f"A label of {horizon} bars is longer than the {held} bar times held out for the comparison. Raise promotion.bars."
        )
    test = len(times) - held
    embargo = embargo_length(study.splits, horizon=horizon, lookback=study.features.lookback)
    first = test - study.splits.train
    if held < 2 or first < 0:
        raise InputError(
            f"{len(times)} bar times cannot hold a training window of {study.splits.train} and {held} for the comparison. "
            "Take a longer history, or a smaller promotion.bars or splits.train."
        )
    end = times[-1] + study.dataset.interval.delta
    return Fold(_CHALLENGE + test, times[first], times[test - embargo], times[test], end)


def compare(study: Study, champion: Champion | None) -> Comparison:
    """Train the challenger, score it and the champion on the held-out bars, and weigh one against the other."""
    fold = challenge_fold(study)
    artifacts = {name: fit_fold(study, spec_of(study, name), fold) for name in members(study.experiment)}
    mine = _book_returns(study, artifacts, fold)
    _count(study, fold, mine)
    theirs = None if champion is None else _champion_returns(study, champion, fold)
    difference = mine.returns if theirs is None else mine.returns - theirs.returns
    confidence = study.experiment.promotion.confidence
    interval = mean_interval(difference, level=2.0 * confidence - 1.0)
    return Comparison(
        start=fold.test_start,
        end=fold.test_end,
        bars=len(difference),
        challenger=mine.facts,
        champion=None if theirs is None else theirs.facts,
        advantage=float(np.mean(difference)),
        low=interval.low if interval.low == interval.low else float("-inf"),
        confidence=confidence,
        models={name: artifact.model_id for name, artifact in artifacts.items()},
        trained_until=fold.train_end,
        refusals=_refusals(study),
    )


def _count(study: Study, fold: Fold, book: _Book) -> None:
    """A challenge evaluates a configuration on data: it is a trial like any other."""
    window = {"train": study.splits.train, "held_out": study.experiment.promotion.bars, "train_end": fold.train_end.isoformat()}
    batch = TrialBatch(
        experiment=study.experiment.name,
        kind="promotion",
        family=study.dataset.bars_key,
        universe=study.dataset.key,
        data_version=data_version(study),
        label=label_text(study.experiment.label),
        engines=[study.experiment.promotion.book],
        configs=[{**configuration(study, study.experiment.promotion.book), "splits": window}],
        times=book.times.cast(pl.Datetime("us", "UTC")),
        returns=np.asarray(book.returns, dtype=np.float64)[:, None],
        periods_per_year=bars_a_year(study),
    )
    record_trials(study.workspace, batch)


class _Book(msgspec.Struct, frozen=True):
    times: Any  # bar times after the first
    returns: Any  # float64, one for each of them
    facts: dict[str, Any]


def _champion_returns(study: Study, champion: Champion, fold: Fold) -> _Book:
    """The champion's artifacts by its own experiment on the same bars. StopError when they cannot be compared."""
    if champion.trained_until > fold.train_end:
        raise StopError(
            f"The champion was trained until {champion.trained_until:%Y-%m-%d}, inside of the bars it would be judged on. Wait "
            f"until {study.experiment.promotion.bars} bars have closed since, or set a smaller promotion.bars."
        )
    own = study
    if champion.experiment != study.experiment:
        own = Study(study.workspace, champion.experiment, study.dataset.venue)
        compute_features(own)
    try:
        artifacts = {name: _load(own, model_id) for name, model_id in champion.models.items()}
    except (IntegrityError, FileNotFoundError) as exc:
        raise StopError(
            f"The champion of {champion.dataset} cannot be scored by today's code ({exc}). Promote by hand, or undo it."
        ) from exc
    return _book_returns(own, artifacts, fold)


def _load(study: Study, model_id: str) -> Artifact:
    folder = artifact_folder(models_home(study.workspace), model_id)
    return load(folder, feature_fingerprint=study.available.fingerprint)


def _book_returns(study: Study, artifacts: Mapping[str, Artifact], fold: Fold) -> _Book:
    """Net returns of the book on the bars of the comparison, and what a person wants to know of it."""
    predictions = _predictions(study, artifacts, fold)
    result = _traded(study, predictions, fold)
    slots = result.returns.sort("time")[1:]
    net = slots["return"].to_numpy()
    labels = study.lake.scan("labels", study.labels_key).collect()
    skill = prediction_metrics(scored(predictions, labels), study.experiment.label.horizon)
    measured = performance_metrics(net, bars_a_year(study))
    facts = {
        "engines": list(artifacts),
        "models": {name: artifact.model_id for name, artifact in artifacts.items()},
        "rank_ic": _finite(skill.rank_ic),
        "sharpe": measured["sharpe"],
        "total_return": measured["total_return"],
        "max_drawdown": measured["max_drawdown"],
        "costs": result.costs,
        "trades": result.trades.height,
    }
    return _Book(slots["time"], net, facts)


def _predictions(study: Study, artifacts: Mapping[str, Artifact], fold: Fold) -> pl.DataFrame:
    """symbol, open_time, prediction of the book: the engine's own, or the ensemble of several."""
    parts = []
    for name, artifact in artifacts.items():
        engine = engine_named(name)
        rows = scoring_rows(
            study.features_until(fold.test_end, fold.test_start, engine.info.history), fold, history=engine.info.history
        )
        parts.append(engine.predict(artifact, rows, start=fold.test_start).with_columns(pl.lit(name).alias("engine")))
    return parts[0].drop("engine") if len(parts) == 1 else combine(pl.concat(parts, how="diagonal"), tuple(artifacts))


def _traded(study: Study, predictions: pl.DataFrame, fold: Fold) -> BacktestResult:
    from tidemill.backtest.backtest import backtest

    spec, instruments = study.experiment.strategy, instruments_of(study.workspace, study.dataset.venue)
    inside = pl.col("open_time") >= fold.test_start
    chosen = strategy(spec.name)
    seen = study.adjusted if chosen.needs != "predictions" or spec.neutralise is not None else None
    given = study.adjusted.filter(inside) if chosen.needs == "bars" else predictions
    weights = weigh(spec.name, given, spec.params, instruments, bars=seen, neutralise=spec.neutralise).weights
    return backtest(
        study.bars.filter(inside),
        weights,
        interval=study.dataset.interval,
        instruments=instruments,
        adjustments=study.adjustments.filter(pl.col("ex_time") >= fold.test_start),
        costs=study.experiment.costs,
        resize=chosen.resize,
    )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _refusals(study: Study) -> tuple[str, ...]:
    """Why nothing of this study may be promoted: checks that are missing, old or failed, and what is not proven causal."""
    from tidemill.quality.expectations import SUITES
    from tidemill.steps.checks.causality import is_proven
    from tidemill.steps.checks.suites import standing

    found = [reason for suite in SUITES if (reason := standing(study, suite))]
    unproven = (f"{asset}: {why}." for asset, why in is_proven(study).open.items())
    return (*found, *unproven)


def consider(study: Study) -> StepReport:
    """Compare a challenger of this study with the champion of its dataset, and promote it if it wins.

    Nothing is done while bars, experiment, code and champion are those of the last comparison.
    """
    database, call = study.workspace.database, study.workspace.call
    champion = call(champions.current, database, study.dataset.key)
    code = source_version("tidemill.steps.models.champion")
    print_ = fingerprint(code, study.experiment, study.features_version, study.labels_version, champion.id if champion else 0)
    held = study.lake.manifest("challenges", study.key, "last")
    if held is not None and held.metadata.get("settled") == print_:
        return _report(champion, msgspec.convert(held.metadata["comparison"], Comparison), worked=False, code=code)
    outcome = compare(study, champion)
    if outcome.wins:
        champion = call(champions.promote, database, nominee(study, outcome), instead_of=champion.id if champion else None)
    settled = fingerprint(code, study.experiment, study.features_version, study.labels_version, champion.id if champion else 0)
    study.lake.write(
        "challenges",
        study.key,
        "last",
        pl.DataFrame({"settled": [settled]}),
        metadata={"settled": settled, "comparison": msgspec.to_builtins(outcome)},
    )
    return _report(champion, outcome, worked=True, code=code)


def nominee(study: Study, outcome: Comparison) -> Nominee:
    """What `outcome` would make champion."""
    return Nominee(
        dataset=study.dataset.key,
        book=study.experiment.promotion.book,
        models=outcome.models,
        experiment=study.experiment,
        trained_until=outcome.trained_until,
        reason=outcome.sentence(),
        evidence=msgspec.to_builtins(outcome),
    )


def _report(champion: Champion | None, outcome: Comparison, *, worked: bool, code: str) -> StepReport:
    names = ("rank_ic", "sharpe", "total_return", "max_drawdown", "costs", "trades")
    rows = tuple(
        (who, *(facts[name] for name in names))
        for who, facts in (("challenger", outcome.challenger), ("champion", outcome.champion))
        if facts is not None
    )
    told = (
        "There is no champion: nothing has beaten cash after costs yet."
        if champion is None
        else f"Champion: {champion.book}, promoted {champion.promoted_at:%Y-%m-%d %H:%M} UTC ({champion.source})."
    )
    return StepReport(
        worked=worked,
        start=outcome.start,
        end=outcome.end,
        data_version=fingerprint(champion.id if champion else 0),
        code_version=code,
        facts={"champion": champion.id if champion else "none", "bars compared": outcome.bars, "promoted": outcome.wins},
        columns=("book", *(name.replace("_", " ") for name in names)),
        table=rows,
        notes=(outcome.sentence(), told),
    )
