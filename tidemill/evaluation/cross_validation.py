"""One engine evaluated by a splitter of choice: skill in each split and along each path, and one trial in the ledger.

Walk-forward is what the main job does. k-fold and the combinatorial kind train on what lies after the tested bars as well: they
show how stable a skill is over time and choice of sample, not what it would have earned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

import msgspec
import polars as pl

from tidemill.domain.errors import InputError
from tidemill.domain.experiment import EngineSpec
from tidemill.domain.numbers import finite
from tidemill.metrics.predictions import prediction_metrics, scored
from tidemill.metrics.returns import sharpe
from tidemill.models.base import Lineage
from tidemill.steps.upstream import bring_up_to_date
from tidemill.study.book import Span, book
from tidemill.study.counting import Evaluated, bars_a_year, configuration, count
from tidemill.study.fitting import fit, scores
from tidemill.study.rejections import bounds_over, feature_rows, reject, silenced, tradable_folds
from tidemill.study.study import Study
from tidemill.validation.cross_validation import Split, combinatorial_purged, paths, purged_k_fold, training_part
from tidemill.validation.splits import Fold, embargo_length, training_rows, walk_forward

Splitter = Literal["walk_forward", "purged_k_fold", "combinatorial"]
SPLITTERS: tuple[Splitter, ...] = ("walk_forward", "purged_k_fold", "combinatorial")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How to split. folds, test_folds: of k-fold and the combinatorial kind; walk-forward takes the experiment's splits.

    embargo: bar times, None for max(horizon, longest finite look-back), as everywhere.
    """

    splitter: Splitter = "purged_k_fold"
    folds: int = 6
    test_folds: int = 2
    embargo: int | None = None


class CrossValidation(msgspec.Struct, frozen=True, kw_only=True):
    """splits: split, tested_from, tested_until, trained, tested (rows), ic, rank_ic, t_stat.

    paths: path, ic and its interval, rank_ic, icir, t_stat, hit_rate, turnover, sharpe (a year, after the experiment's costs).
    A path is a set of predictions that covers every tested bar once. trial: id in the ledger, which keeps the returns of the
    path whose Sharpe ratio is the median (the lower of two). embargo: in force, in bar times.
    """

    engine: str
    plan: Plan
    embargo: int
    splits: pl.DataFrame
    paths: pl.DataFrame
    trial: str


class _Part(NamedTuple):
    """What one model is trained on, and the stretches of time that it is tested on, by group. fold: of walk-forward."""

    number: int
    training: pl.DataFrame
    tested: tuple[tuple[int, datetime, datetime], ...]
    fold: Fold | None = None


def cross_validate(
    study: Study, engine: str, plan: Plan | None = None, *, params: Mapping[str, Any] | None = None
) -> CrossValidation:
    """Train and score `engine` on every split of `plan`; what it is trained on is brought up to date first.

    params: of the engine; None takes the experiment's own for it, or its defaults. Raises UnknownNameError for the engine and
    InputError where the data do not fit the plan.
    """
    chosen = plan or Plan()
    spec = _spec(study, engine, params)
    bring_up_to_date(study)
    embargo = _embargo(study, chosen)
    parts, routes = _parts(study, chosen, embargo)
    made = {part.number: _scores(study, spec, part) for part in parts}
    labels = study.training_frame.select("symbol", "open_time", "label")
    along = [_along(made, route) for route in routes]
    counting = _counting(study, spec, parts, made)
    span = Span(min(start for part in parts for _, start, _ in part.tested))
    returns = [book(study, _along(counting, route), span).returns for route in routes]
    sharpes = [sharpe(series["return"].to_numpy(), bars_a_year(study, series["time"])) for series in returns]
    trial = _count(study, spec, chosen, embargo, returns[_median(sharpes)])
    return CrossValidation(
        engine=engine,
        plan=chosen,
        embargo=embargo,
        splits=pl.DataFrame([_split_row(study, part, made[part.number], labels) for part in parts]),
        paths=pl.DataFrame([_path_row(study, number, frame, labels, sharpes[number]) for number, frame in enumerate(along)]),
        trial=trial,
    )


def _spec(study: Study, engine: str, params: Mapping[str, Any] | None) -> EngineSpec:
    study.registry.engines.find(engine)
    if params is not None:
        return EngineSpec(name=engine, params=dict(params))
    return next((spec for spec in study.experiment.engines if spec.name == engine), EngineSpec(name=engine))


def _embargo(study: Study, plan: Plan) -> int:
    stated = study.splits if plan.embargo is None else msgspec.structs.replace(study.splits, embargo=plan.embargo)
    return embargo_length(stated, horizon=study.experiment.label.horizon, lookback=study.features.lookback)


def _parts(study: Study, plan: Plan, embargo: int) -> tuple[list[_Part], list[tuple[int, ...]]]:
    """The parts to train on, and the paths as the number of the part that tests each group."""
    horizon, frame = study.experiment.label.horizon, study.training_frame
    if plan.splitter == "walk_forward":
        spec = msgspec.structs.replace(study.splits, embargo=embargo)
        folds = walk_forward(study.times, spec, horizon=horizon, lookback=study.features.lookback)
        return [_of_fold(frame, fold) for fold in folds], [tuple(fold.number for fold in folds)]
    if plan.splitter == "purged_k_fold":
        splits = purged_k_fold(study.times, plan.folds, horizon=horizon, embargo=embargo)
    elif plan.splitter == "combinatorial":
        splits = combinatorial_purged(study.times, plan.folds, plan.test_folds, horizon=horizon, embargo=embargo)
    else:
        raise InputError(f"There is no splitter {plan.splitter!r}. Choose one of: {', '.join(SPLITTERS)}.")
    return [_of_split(frame, split) for split in splits], paths(splits)


def _of_fold(frame: pl.DataFrame, fold: Fold) -> _Part:
    return _Part(fold.number, training_rows(frame, fold), ((fold.number, fold.test_start, fold.test_end),), fold)


def _of_split(frame: pl.DataFrame, split: Split) -> _Part:
    tested = tuple((group.number, group.start, group.end) for group in split.groups)
    return _Part(split.number, training_part(frame, split), tested)


def _scores(study: Study, spec: EngineSpec, part: _Part) -> dict[int, pl.DataFrame]:
    """Group → symbol, open_time, prediction."""
    lineage = Lineage(feature_fingerprint=study.available.fingerprint, horizon=study.experiment.label.horizon)
    artifact = fit(study, spec, part.training, lineage)
    return {group: scores(study, artifact, start, end) for group, start, end in part.tested}


def _counting(
    study: Study, spec: EngineSpec, parts: Sequence[_Part], made: Mapping[int, Mapping[int, pl.DataFrame]]
) -> dict[int, dict[int, pl.DataFrame]]:
    """Part → group → the predictions that count. Where no test comes before another they are judged by their inputs alone."""
    folds = [part.fold for part in parts if part.fold is not None]
    if folds:
        kept = tradable_folds(study, folds, [{spec.name: made[fold.number][fold.number]} for fold in folds], spec.name)
        return {fold.number: {fold.number: frame} for fold, frame in zip(folds, kept, strict=True)}
    return {part.number: _by_inputs(study, spec, part, made[part.number]) for part in parts}


def _by_inputs(study: Study, spec: EngineSpec, part: _Part, made: Mapping[int, pl.DataFrame]) -> dict[int, pl.DataFrame]:
    bounds = bounds_over(study, part.training)
    found = {}
    for group, start, end in part.tested:
        rejected = reject(study, {spec.name: made[group]}, feature_rows(study, start, end), bounds, {})
        found[group] = silenced(made[group], rejected.rows)
    return found


def _along(made: Mapping[int, Mapping[int, pl.DataFrame]], route: Sequence[int]) -> pl.DataFrame:
    """The predictions of a path; its k-th number tells which part tests the k-th group."""
    groups = sorted({group for scores in made.values() for group in scores})
    return pl.concat([made[part][group] for group, part in zip(groups, route, strict=True)]).sort("symbol", "open_time")


def _median(sharpes: Sequence[float]) -> int:
    """Which one is the median, the lower of two; one that is not defined counts as the lowest."""
    order = sorted(range(len(sharpes)), key=lambda at: (sharpes[at] == sharpes[at], sharpes[at], at))
    return order[(len(order) - 1) // 2]


def _count(study: Study, spec: EngineSpec, plan: Plan, embargo: int, returns: pl.DataFrame) -> str:
    config = {**configuration(study, spec), "splits": {**msgspec.to_builtins(plan), "embargo": embargo}}
    if plan.splitter == "walk_forward":
        config["splits"] = {**msgspec.to_builtins(study.splits), "embargo": embargo}
    return count(study, Evaluated.one("cross_validation", spec.name, config, returns)).trial_ids[0]


def _split_row(study: Study, part: _Part, made: Mapping[int, pl.DataFrame], labels: pl.DataFrame) -> dict[str, Any]:
    both = scored(pl.concat(list(made.values())), labels)
    found = prediction_metrics(both, study.experiment.label.horizon)
    return {
        "split": part.number,
        "tested_from": part.tested[0][1],
        "tested_until": part.tested[-1][2],
        "trained": int(part.training["label"].count()),
        "tested": both.height,
        **{name: finite(getattr(found, name)) for name in ("ic", "rank_ic", "t_stat")},
    }


def _path_row(study: Study, number: int, frame: pl.DataFrame, labels: pl.DataFrame, ratio: float) -> dict[str, Any]:
    found = prediction_metrics(scored(frame, labels), study.experiment.label.horizon)
    names = ("ic", "ic_low", "ic_high", "rank_ic", "icir", "t_stat", "hit_rate", "turnover")
    return {"path": number, **{name: finite(getattr(found, name)) for name in names}, "sharpe": finite(ratio)}
