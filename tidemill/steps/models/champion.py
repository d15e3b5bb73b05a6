"""Challenger against champion: the same bars, which neither was trained on, the same costs; promotion, and its undoing.

A challenger is the book of an experiment (`promotion.book`) trained anew on the newest window that leaves `promotion.bars` bar
times for the comparison. The champion's own artifacts, by its own experiment, are scored on those bars beside it. The
challenger wins if the lower bound of what it earned more per bar, after costs, lies above zero (stationary bootstrap of the
paired difference, one-sided at `promotion.confidence`); where there is no champion it has to beat cash in the same way. Both
trade under the limits of the challenger's experiment, and what states none is refused: what trades is never without them.

Promotion fails closed: what is not proven causal, or whose checks are missing or failed, is not promoted; neither is anything
on evidence about a champion of the past. What would be promoted is stepped over the bars of the comparison before (`walking`),
and what cannot be stepped is not promoted.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl

from tidemill.domain.errors import InputError, IntegrityError, StopError
from tidemill.domain.experiment import Experiment
from tidemill.domain.numbers import finite
from tidemill.experiments.tracked import id_of
from tidemill.metrics.predictions import prediction_metrics, scored
from tidemill.metrics.returns import Floats, performance_metrics
from tidemill.models.artifact import Artifact, load
from tidemill.models.ensemble import combine
from tidemill.models.registry import code_version
from tidemill.provenance import fingerprint
from tidemill.steps.models.comparison import BookFigures, Challenge, doubt_of, lower_bound
from tidemill.steps.models.ensemble import evidence_for
from tidemill.steps.models.walking import Measured, unsteppable, walk
from tidemill.steps.upstream import bring_up_to_date
from tidemill.storage import champions
from tidemill.storage.champions import Champion, Nominee
from tidemill.study import code as code_of
from tidemill.study.book import Span, book_fingerprint, traded, weighed
from tidemill.study.counting import Evaluated, bars_a_year, configuration, count
from tidemill.study.deciders import Term, Window, decider, stored_decider
from tidemill.study.fitting import fit_ensemble, fit_fold, scores
from tidemill.study.freshness import StepReport
from tidemill.study.losses import loss_notes
from tidemill.study.model_index import artifact_folder, models_home, spec_of
from tidemill.study.registry import NOUNS, Kind
from tidemill.study.rejections import bounds_over, feature_rows, reject_fold, silenced, stored_past
from tidemill.study.scoring import require_predictions
from tidemill.study.study import Study
from tidemill.study.tables import CHALLENGES, ENSEMBLE, LABELS
from tidemill.trading.decider import Decider
from tidemill.validation.splits import Fold, embargo_length

# Folds of the walk-forward are numbered from 0; a window of a challenger is none of them.
_CHALLENGE = 1_000_000
_LAST = "last"


class ChallengeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """champion: id of the promotion in force, None where there is none. bars_compared: bar times."""

    champion: int | None
    bars_compared: int
    promoted: bool


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


def challenge(study: Study, champion: Champion | None) -> Challenge:
    """Train the challenger, score it and the champion on the held-out bars, and weigh one against the other."""
    fold = challenge_fold(study)
    contender = _trained(study, fold)
    mine = _book_returns(study, contender, fold, study.experiment)
    _count(study, fold, mine)
    theirs = None if champion is None else _champion_returns(study, champion, fold)
    difference = mine.net if theirs is None else mine.net - theirs.net
    confidence = study.experiment.promotion.confidence
    outcome = Challenge(
        start=fold.test_start,
        end=fold.test_end,
        bars=len(difference),
        challenger=mine.figures,
        champion=None if theirs is None else theirs.figures,
        advantage=float(np.mean(difference)),
        low=lower_bound(difference, confidence),
        confidence=confidence,
        models=contender.ids,
        weights=contender.weights,
        ensemble=contender.ensemble,
        trained_until=fold.train_end,
        refusals=_refusals(study),
        doubt=doubt_of(mine.figures, mine.symbols),
    )
    return _walked(study, fold, outcome, mine) if outcome.earns_more else outcome


class _Contender(NamedTuple):
    """A book to be judged: its models by engine, and their weights where it is an ensemble; empty weights are equal."""

    book: str
    models: dict[str, Artifact]
    weights: dict[str, float]
    ensemble: str = ""

    @property
    def ids(self) -> dict[str, str]:
        return {name: artifact.model_id for name, artifact in self.models.items()}


def _trained(study: Study, fold: Fold) -> _Contender:
    """The book of the experiment trained on the window of a fold, weighed as the experiment asks."""
    book = study.experiment.promotion.book
    models = {name: fit_fold(study, spec_of(study, name), fold) for name in members(study.experiment)}
    made = _Contender(book, models, {})
    if book != ENSEMBLE:
        return made
    ensemble = fit_ensemble(study, fold, made.ids, evidence_for(study, fold))
    weights = (float(weight) for weight in ensemble.tensors["weights"])
    return made._replace(weights=dict(zip(models, weights, strict=True)), ensemble=ensemble.model_id)


def _count(study: Study, fold: Fold, book: _Book) -> None:
    """A challenge evaluates a configuration on data: it is a trial like any other."""
    window = {"train": study.splits.train, "held_out": study.experiment.promotion.bars, "train_end": fold.train_end.isoformat()}
    config = {**configuration(study, study.experiment.promotion.book), "splits": window}
    count(study, Evaluated.one("promotion", study.experiment.promotion.book, config, book.returns))


def _walked(study: Study, fold: Fold, outcome: Challenge, book: _Book) -> Challenge:
    """What would be promoted, stepped over the bars of the comparison. StopError where it fails on them."""
    features = feature_rows(study, fold.test_start, fold.test_end).select("symbol", "open_time", *study.available.names)
    term = Term(_decider(study, outcome), fold.test_start, fold.test_end)
    walked = walk(study, term, Measured(features, book.predicted, book.weights))
    return msgspec.structs.replace(outcome, walked=walked.slots, departure=walked.departure)


class _Book(NamedTuple):
    """returns: time, return. symbols: of the median time. predicted, weights: what they came of."""

    returns: pl.DataFrame
    figures: BookFigures
    symbols: float
    predicted: dict[str, pl.DataFrame]
    weights: pl.DataFrame

    @property
    def net(self) -> Floats:
        return self.returns["return"].to_numpy()


def _champion_returns(study: Study, champion: Champion, fold: Fold) -> _Book:
    """The champion's artifacts by its own experiment on the same bars. StopError when they cannot be compared."""
    if champion.trained_until > fold.train_end:
        raise StopError(
            f"The champion was trained until {champion.trained_until:%Y-%m-%d}, inside of the bars it would be judged on. Wait "
            f"until {study.experiment.promotion.bars} bars have closed since, or set a smaller promotion.bars."
        )
    own = _study_of(study, champion)
    try:
        models = {name: _load(own, model_id) for name, model_id in champion.models.items()}
    except (IntegrityError, FileNotFoundError) as exc:
        raise StopError(
            f"The champion of {champion.dataset} cannot be scored by today's code ({exc}). Promote by hand, or undo it."
        ) from exc
    return _book_returns(own, _Contender(champion.book, models, champion.weights), fold, study.experiment)


def _study_of(study: Study, champion: Champion) -> Study:
    """The study of the champion's own experiment, on the bars of `study` and up to date with them; made once for a study."""
    if champion.experiment == study.experiment:
        return study

    def made() -> Study:
        own = Study(study.workspace, champion.experiment, study.dataset.venue)
        bring_up_to_date(own, beside=study)
        return own

    return study.once(("champion", champion.id), made)


def _load(study: Study, model_id: str) -> Artifact:
    folder = artifact_folder(models_home(study.workspace), model_id)
    return load(folder, feature_fingerprint=study.available.fingerprint)


def _book_returns(study: Study, contender: _Contender, fold: Fold, under: Experiment) -> _Book:
    """Net returns of the book on the bars of the comparison, under the limits of an experiment, and what a person wants to know
    of it.
    """
    predicted = _predicted(study, contender, fold)
    rejected = reject_fold(study, fold, predicted, stored_past(study, fold.test_start))
    predictions = predicted[contender.book]
    span = Span(fold.test_start, fold.test_end)
    weights = weighed(study, silenced(predictions, rejected.of(contender.book)), span).weights
    result = traded(study, weights, span, under=under)
    returns = result.returns.sort("time")
    labels = study.lake.scan(LABELS, study.labels_key).collect()
    skill = prediction_metrics(scored(predictions, labels), study.experiment.label.horizon)
    measured = performance_metrics(returns["return"].to_numpy(), bars_a_year(study, returns["time"]))
    figures = BookFigures(
        engines=tuple(contender.models),
        models=contender.ids,
        weights=contender.weights,
        rank_ic=finite(skill.rank_ic),
        sharpe=measured["sharpe"],
        total_return=measured["total_return"],
        max_drawdown=measured["max_drawdown"],
        costs=result.costs,
        trades=result.trades.height,
        predictions_rejected=rejected.of(contender.book).height,
        limits=result.limits,
        reads=_files_read(study, tuple(contender.models)),
    )
    return _Book(returns, figures, skill.symbols, predicted, weights)


def _files_read(study: Study, engines: tuple[str, ...]) -> tuple[str, ...]:
    """Files of which nobody can prove when their content was known, each with who reads it: what modules declare for what
    decides in a book and for what it learns, news, and the index.
    """
    experiment, strategy = study.experiment, study.experiment.strategy.name
    parts: tuple[tuple[Kind, tuple[str, ...]], ...] = (
        ("features", study.available.names),
        ("labels", (experiment.label.name,)),
        ("engines", engines),
        ("strategies", (strategy,)),
    )
    told: dict[str, list[str]] = {}
    news = None if experiment.news is None else experiment.news.source
    for what, source in (("news", news), ("Fear & Greed Index", experiment.features.fear_greed)):
        if source is not None and source.startswith("file:"):
            told.setdefault(Path(source.removeprefix("file:")).name, []).append(what)
    for kind, names in parts:
        for name in names:
            for file in study.registry.data_files(kind, name):
                told.setdefault(file, []).append(f"{NOUNS[kind]} {name}")
    return tuple(f"{file} ({', '.join(who)})" for file, who in sorted(told.items()))


def _predicted(study: Study, contender: _Contender, fold: Fold) -> dict[str, pl.DataFrame]:
    """Book → symbol, open_time, prediction: of each engine, and of the ensemble where it is the one to be judged."""
    own = {name: scores(study, artifact, fold.test_start, fold.test_end) for name, artifact in contender.models.items()}
    if contender.book != ENSEMBLE:
        return own
    told = pl.concat(frame.with_columns(pl.lit(name).alias("engine")) for name, frame in own.items())
    weights = [contender.weights[name] for name in own] if contender.weights else ()
    return {**own, ENSEMBLE: combine(told, tuple(own), weights)}


def _refusals(study: Study) -> tuple[str, ...]:
    """Why nothing of this study may be promoted: a source that lost much, checks that are missing, old or failed, no proof, a
    link of its chain that has no step.
    """
    from tidemill.quality.expectations import SUITES
    from tidemill.steps.checks.causality import is_proven
    from tidemill.steps.checks.suites import standing

    found = [reason for suite in SUITES if (reason := standing(study, suite))]
    unproven = (f"{asset}: {why.rstrip('.')}." for asset, why in is_proven(study).open.items())
    return (*loss_notes(study), *found, *unproven, *unsteppable(study, members(study.experiment)))


def consider(study: Study, *, accept: bool = False) -> StepReport[ChallengeFacts]:
    """Compare a challenger of this study with the champion of its dataset, and promote it if it wins.

    Nothing is done while all that decides it is that of the last comparison: on both sides experiment, code and bars, with what
    follows from these; the champion; and whether checks and proofs let anything be promoted.

    accept: promote figures that are too good to be taken as they are, too. InputError for an experiment without limits.
    """
    require_limits(study.experiment)
    database, call = study.workspace.database, study.workspace.call
    champion = call(champions.current, database, study.dataset.key)
    _require_whole(study)
    for name in members(study.experiment):
        require_predictions(study, name)
    code, print_ = _made_of(study, champion, _refusals(study))
    held = study.lake.manifest(CHALLENGES, study.key, _LAST)
    if held is not None and held.metadata.get("settled") == print_:
        known = msgspec.convert(held.metadata["comparison"], Challenge)
        if not (accept and known.doubt and known.is_walked and not known.wins):
            return _report(champion, known, worked=False, code=code)
    outcome = challenge(study, champion)
    outcome = msgspec.structs.replace(outcome, accepted=accept and bool(outcome.doubt))
    if outcome.wins:
        champion = call(champions.promote, database, nominee(study, outcome), instead_of=champion.id if champion else None)
    _, settled = _made_of(study, champion, outcome.refusals)
    study.lake.write(
        CHALLENGES,
        study.key,
        _LAST,
        pl.DataFrame({"settled": [settled]}),
        metadata={"settled": settled, "comparison": msgspec.to_builtins(outcome)},
    )
    return _report(champion, outcome, worked=True, code=code)


def require_limits(experiment: Experiment) -> None:
    """InputError for an experiment whose book may not be promoted, since it states no limits."""
    if experiment.limited is None:
        raise InputError(
            f"The experiment {experiment.name} cannot be promoted: it states no limits. Write `limits: default` in it, or "
            "limits of your own, and run it again."
        )


def _require_whole(study: Study) -> None:
    """StopError for a book with an engine that failed: what is left of it is another book than the one to be promoted."""
    failed, book = study.failed, study.experiment.promotion.book
    for name in members(study.experiment):
        if name in failed:
            raise StopError(f"Not promoted: the book {book} lacks the engine {name}, which failed. Repair it and run again.")


def _made_of(study: Study, champion: Champion | None, refusals: Sequence[str]) -> tuple[str, str]:
    """Version of the code that a comparison stands on, engines and strategies of both sides included, and fingerprint of all
    that decides its outcome.
    """
    sides, fold = _sides(study, champion), challenge_fold(study)
    code = fingerprint(code_of.challenge(), [side.code for side in sides])[:16]
    evidence = evidence_for(study, fold) if study.experiment.promotion.book == ENSEMBLE else {}
    seen = [side.seen(fold) for side in sides]
    return code, fingerprint(code, champion.id if champion else 0, refusals, evidence, seen)


class _Side(NamedTuple):
    """One of the two in a comparison: its study, and the engines of its book."""

    study: Study
    engines: tuple[str, ...]

    @property
    def code(self) -> tuple[str, ...]:
        """Versions of its strategy and of its engines."""
        known, strategy = self.study.registry, self.study.experiment.strategy.name
        return known.strategies.code_version(strategy), *(code_version(known.engines.find(name)) for name in self.engines)

    def seen(self, fold: Fold) -> tuple[object, ...]:
        """What it is judged by on the bars of a fold, but for its models."""
        study, past = self.study, stored_past(self.study, fold.test_start)
        said = {name: past.get(name) for name in self.engines}
        return study.experiment, study.features_version, study.labels_version, book_fingerprint(study), said


def _sides(study: Study, champion: Champion | None) -> tuple[_Side, ...]:
    mine = _Side(study, members(study.experiment))
    return (mine,) if champion is None else (mine, _Side(_study_of(study, champion), tuple(champion.models)))


def nominee(study: Study, outcome: Challenge) -> Nominee:
    """What `outcome` would make champion."""
    return Nominee(
        dataset=study.dataset.key,
        book=study.experiment.promotion.book,
        models=outcome.models,
        weights=outcome.weights,
        experiment=study.experiment,
        trained_until=outcome.trained_until,
        reason=outcome.sentence(),
        evidence=msgspec.to_builtins(outcome),
        decider=stored_decider(id_of(study.experiment), _decider(study, outcome), challenge_fold(study).test_start),
    )


def _decider(study: Study, outcome: Challenge) -> Decider:
    """All that decided on the bars of the comparison, which is what trades."""
    fold, book = challenge_fold(study), study.experiment.promotion.book
    bounds = bounds_over(study, feature_rows(study, fold.train_start, fold.train_end))
    window = Window(outcome.models, fold.train_end, outcome.ensemble, bounds, stored_past(study, fold.test_start))
    return decider(study, book, window)


_SHOWN = ("rank_ic", "sharpe", "total_return", "max_drawdown", "costs", "trades")


def _stopped(sides: Sequence[tuple[str, BookFigures | None]]) -> tuple[str, ...]:
    """A sentence about each of the two that its limits kept from adding."""
    reached = [(who, side.limits) for who, side in sides if side is not None and side.limits is not None]
    return tuple(f"The {who}: {limits.sentences()[0]}" for who, limits in reached if limits.levels)


def _cell(side: BookFigures, name: str) -> object:
    value = getattr(side, name)
    return ", ".join(value) if isinstance(value, tuple) else value


def _report(champion: Champion | None, outcome: Challenge, *, worked: bool, code: str) -> StepReport[ChallengeFacts]:
    sides = (("challenger", outcome.challenger), ("champion", outcome.champion))
    shown = (*_SHOWN, *(("reads",) if any(side.reads for _, side in sides if side is not None) else ()))
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
        facts=ChallengeFacts(champion=champion.id if champion else None, bars_compared=outcome.bars, promoted=outcome.wins),
        columns=("book", *shown),
        table=tuple((who, *(_cell(side, name) for name in shown)) for who, side in sides if side is not None),
        notes=(outcome.sentence(), told, *_stopped(sides)),
    )
