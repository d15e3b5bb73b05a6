"""Hyper-parameter search through optuna: on the walk-forward folds before a held-out tail, every trial in the ledger.

The folds at the end are held out: no trial is trained, scored or judged on anything in them, labels that reach into them
included. The best trial is then scored on them once. A trial's value is the mean rank IC out of sample, or the Sharpe ratio a
year after the experiment's costs, over the folds of the search.

Trials lie in a journal of optuna, lines of JSON in the home, so a search that was stopped goes on where it was; the sampler is
seeded for each trial by its number, and finds the same whether or not it was interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import polars as pl

from tidemill.domain.errors import InputError
from tidemill.domain.experiment import EngineSpec, Experiment
from tidemill.durable import make_folder
from tidemill.metrics.predictions import information_coefficients, scored
from tidemill.metrics.returns import sharpe
from tidemill.models.base import Dimension, Lineage
from tidemill.models.checking import check_engine
from tidemill.models.registry import code_version
from tidemill.provenance import fingerprint
from tidemill.steps.upstream import bring_up_to_date
from tidemill.study import code as code_of
from tidemill.study.book import Span, book, book_fingerprint
from tidemill.study.counting import Evaluated, bars_a_year, configuration, count, data_version
from tidemill.study.fitting import fit, scores
from tidemill.study.rejections import tradable_folds
from tidemill.study.study import Study
from tidemill.validation.splits import Fold, training_rows

if TYPE_CHECKING:
    from optuna import Study as Journal
    from optuna.trial import Trial

Metric = Literal["rank_ic", "sharpe"]
METRICS: tuple[Metric, ...] = ("rank_ic", "sharpe")
# Share of the folds that is held out, the newest ones, and one at least.
_HELD_OUT = 0.25


class Score(msgspec.Struct, frozen=True):
    """How parameters did over some folds; None where not defined. sharpe: a year, after costs. trial: id in the ledger."""

    rank_ic: float | None
    sharpe: float | None
    trial: str


class Searched(msgspec.Struct, frozen=True, kw_only=True):
    """trials: number, params, value of each, in order. value: of the best. held_out: its score on the folds of the tail.

    folds, held_out_folds: how many took part in the search, and how many did not. experiment: that of the search, with the best
    parameters of the engine in it.
    """

    engine: str
    metric: str
    trials: tuple[dict[str, Any], ...]
    params: dict[str, Any]
    value: float
    held_out: Score
    folds: int
    held_out_folds: int
    experiment: Experiment


def search(
    study: Study,
    engine: str,
    *,
    trials: int,
    metric: Metric = "rank_ic",
    held_out: int | None = None,
    told: Callable[[int, float | None], None] = lambda number, value: None,
) -> Searched:
    """Search the space that `engine` declares until `trials` trials are done, those of an earlier call included.

    held_out: folds at the end that take no part; None is a quarter of them. told: called with the number and value of each new
    trial. Raises UnknownNameError for the engine, InputError where there is nothing to search or too few folds.
    """
    if not (space := study.registry.engines.find(engine).info.space):
        raise InputError(f"The engine {engine} declares no parameters to search. Choose another engine.")
    if metric not in METRICS or trials < 1:
        raise InputError("A search needs at least one trial, and rank_ic or sharpe as its metric.")
    check_engine(EngineSpec(name=engine), study.features.names, study.registry.engines)
    bring_up_to_date(study)
    searched, tail = _divided(study.folds, held_out)
    journal = _journal(study, engine, metric, len(tail))
    for number in range(len([one for one in journal.trials if one.state.is_finished()]), trials):
        journal.sampler = _sampler(study.experiment.seed + number)
        trial = journal.ask()
        params = _suggested(trial, space)
        score = score_of(study, EngineSpec(name=engine, params=params), searched, until=tail[0])
        value = getattr(score, metric)
        _tell(journal, trial, value)
        told(number, value)
    return _result(study, engine, metric, journal, searched, tail)


def _divided(folds: list[Fold], held_out: int | None) -> tuple[list[Fold], list[Fold]]:
    count = max(1, round(len(folds) * _HELD_OUT)) if held_out is None else held_out
    if not 1 <= count < len(folds):
        raise InputError(f"{count} of {len(folds)} folds cannot be held out. Hold out at least 1 and leave at least 1.")
    return folds[:-count], folds[-count:]


def journal_path(study: Study, engine: str) -> Path:
    """The file that keeps the trials of all searches for an engine on a dataset."""
    return study.workspace.settings.home / "search" / f"{study.dataset.key}.{engine}.journal"


def _journal(study: Study, engine: str, metric: str, held_out: int) -> Journal:
    import optuna
    from optuna.storages import JournalStorage

    from tidemill.storage.journal import Journal as JournalFile

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = journal_path(study, engine)
    make_folder(path.parent)
    made, stated = study.registry.engines.find(engine), msgspec.structs.replace(study.experiment, name="", engines=())
    data = (study.features_version, study.labels_version, study.splits)
    code = (code_version(made), code_of.search())
    decided = (code, made.info.space, metric, held_out, *data, stated, book_fingerprint(study))
    return optuna.create_study(
        storage=JournalStorage(JournalFile(path)),
        study_name=fingerprint(*decided),
        direction="maximize",
        load_if_exists=True,
    )


def _sampler(seed: int) -> Any:
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed)


def _tell(journal: Journal, trial: Trial, value: float | None) -> None:
    from optuna.trial import TrialState

    if value is None:
        journal.tell(trial, state=TrialState.FAIL)
    else:
        journal.tell(trial, value)


def _suggested(trial: Trial, space: tuple[Dimension, ...]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for one in space:
        if one.whole:
            made[one.name] = trial.suggest_int(one.name, round(one.low), round(one.high), log=one.log)
        else:
            made[one.name] = trial.suggest_float(one.name, one.low, one.high, log=one.log)
    return made


def score_of(study: Study, spec: EngineSpec, folds: list[Fold], until: Fold | None, before: Sequence[Fold] = ()) -> Score:
    """How `spec` does out of sample on `folds`, counted as one trial; nothing is looked at from the cut of `until` on.

    before: folds that come before them. What the engine said there decides with what is rejected, and nothing else.
    """
    every = [*before, *folds]
    made = [_predicted(study, spec, fold) for fold in every]
    kept = tradable_folds(study, every, [{spec.name: frame} for frame in made], spec.name)
    predictions, counting = (_joined(frames[len(before) :], until) for frames in (made, kept))
    skill = information_coefficients(scored(predictions, _outcomes(study, until)))["rank_ic"].mean()
    returns = book(study, counting, Span(folds[0].test_start, until.train_end if until else folds[-1].test_end)).returns
    ratio = sharpe(returns["return"].to_numpy(), bars_a_year(study, returns["time"]))
    rank_ic = float(skill) if isinstance(skill, float) else None
    trial = _counted(study, spec, returns, rank_ic, searched=until is not None)
    return Score(rank_ic, float(ratio) if math.isfinite(ratio) else None, trial)


def _joined(frames: Sequence[pl.DataFrame], until: Fold | None) -> pl.DataFrame:
    """The predictions of several folds before the cut of `until`."""
    rows = pl.concat(frames).sort("symbol", "open_time")
    return rows if until is None else rows.filter(pl.col("open_time") < until.train_end)


def _outcomes(study: Study, until: Fold | None) -> pl.DataFrame:
    """The labels that were known at the cut of `until`."""
    labels = study.training_frame.select("symbol", "open_time", "label", "label_end_at")
    return labels if until is None else labels.filter(pl.col("label_end_at") <= until.train_end)


def _predicted(study: Study, spec: EngineSpec, fold: Fold) -> pl.DataFrame:
    lineage = Lineage(feature_fingerprint=study.available.fingerprint, horizon=study.experiment.label.horizon)
    artifact = fit(study, spec, training_rows(study.training_frame, fold), lineage)
    return scores(study, artifact, fold.test_start, fold.test_end)


def _counted(study: Study, spec: EngineSpec, returns: pl.DataFrame, rank_ic: float | None, *, searched: bool) -> str:
    """The trial in the ledger; the held-out folds are other data than those of the search."""
    version = fingerprint(data_version(study), "search" if searched else "held out", study.splits)
    more = {"version": version, "metrics": [{"rank_ic": rank_ic}]}
    return count(study, Evaluated.one("search", spec.name, configuration(study, spec), returns, **more)).trial_ids[0]


def _result(study: Study, engine: str, metric: str, journal: Journal, searched: list[Fold], tail: list[Fold]) -> Searched:
    rows: tuple[dict[str, Any], ...] = tuple(
        {"number": one.number, "params": dict(one.params), "value": one.value if one.values else None} for one in journal.trials
    )
    valued = [row for row in rows if row["value"] is not None]
    if not valued:
        raise InputError(f"No trial of {engine} has a {metric}: its predictions never differ. Give more symbols or bars.")
    best = max(valued, key=lambda row: (row["value"], -row["number"]))
    spec = EngineSpec(name=engine, params=best["params"])
    others = tuple(one for one in study.experiment.engines if one.name != engine)
    return Searched(
        engine=engine,
        metric=metric,
        trials=rows,
        params=best["params"],
        value=best["value"],
        held_out=score_of(study, spec, tail, until=None, before=searched),
        folds=len(searched),
        held_out_folds=len(tail),
        experiment=msgspec.structs.replace(study.experiment, engines=(*others, spec)),
    )


def experiment_text(experiment: Experiment) -> str:
    """An experiment as the YAML file that `tidemill run --experiment` reads."""
    import yaml

    return str(yaml.safe_dump(msgspec.to_builtins(experiment), sort_keys=False, allow_unicode=True))
