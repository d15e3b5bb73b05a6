"""The books of a run in the trial ledger, and what the number of trials makes of their Sharpe ratios."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import polars as pl

from tidemill.domain.experiment import EngineSpec
from tidemill.models.registry import engine as engine_named
from tidemill.provenance import fingerprint, source_version
from tidemill.storage.lake import Manifest
from tidemill.storage.trials import TrialBatch, config_hash, family_version, ledger_since, read_trials, trial_id
from tidemill.study.counting import judge, label_text, record_trials
from tidemill.study.model_index import spec_of
from tidemill.study.scoring import books
from tidemill.study.study import Study
from tidemill.study.tables import ENSEMBLE, EQUITY, METRICS, SELECTION

_DECIDES_NOTHING = ("name", "dataset", "label", "benchmark", "promotion", "modules", "engines")


def judge_books(study: Study, periods: float) -> tuple[Manifest, bool]:
    """Count the books of a run as trials and write what the ledger makes of them; the manifest, and whether there was work.

    periods: returns in a year. Nothing is gathered while neither the books nor the ledger's trials on this source changed.
    """
    equity = {name: manifest.fingerprint for name, manifest in study.lake.manifests(EQUITY, study.key).items()}
    ids = book_trials(study)
    code, family = source_version("tidemill.steps.performance.selection"), study.dataset.bars_key
    held = study.lake.manifest(METRICS, study.key, SELECTION)
    if held is not None and held.fingerprint == fingerprint(code, equity, ids, _version(study, family)):
        return held, False
    record_trials(study.workspace, _batch(study, periods))
    frame = pl.DataFrame(_rows(study, ids, periods), infer_schema_length=None)
    print_ = fingerprint(code, equity, ids, _version(study, family))
    return study.lake.write(METRICS, study.key, SELECTION, frame, fingerprint=print_), True


def book_trials(study: Study) -> dict[str, str]:
    """Book → id of its trial."""
    version, label = data_version(study), label_text(study.experiment.label)
    return {
        book: trial_id(config_hash(book, configuration(study, book)), version, label, study.dataset.key)
        for book in books(study)
    }


def configuration(study: Study, book: str | EngineSpec) -> dict[str, Any]:
    """Everything that decides a book besides data, label and universe, as the experiment states it with all defaults.

    The experiment's name, its benchmark and its rules of promotion decide nothing. Code of a user's own counts by its hash.
    """
    from tidemill.strategies.registry import source_of, strategy

    spec = study.experiment.strategy
    if isinstance(book, EngineSpec):
        members: tuple[EngineSpec, ...] = (book,)
    else:
        members = study.experiment.engines if book == ENSEMBLE else (spec_of(study, book),)
    stated: dict[str, Any] = msgspec.to_builtins(study.experiment)
    for name in _DECIDES_NOTHING if book == ENSEMBLE else (*_DECIDES_NOTHING, "ensemble"):
        del stated[name]
    stated["features"]["definitions"] = study.features.fingerprint
    stated["strategy"]["params"] = msgspec.to_builtins(strategy(spec.name).parse(spec.params))
    own = {"strategy": source_of(spec.name), "label": getattr(study.label, "source", "")}
    own |= {member.name: getattr(engine_named(member.name), "source", "") for member in members}
    return {
        **stated,
        "engines": [msgspec.to_builtins(member) for member in members],
        "code": {name: source for name, source in own.items() if source},
    }


def _version(study: Study, family: str) -> str:
    return study.workspace.call(family_version, study.workspace.database, family)


def data_version(study: Study) -> str:
    """Of the bars and the corporate actions of the source."""
    actions = study.adjustments.sort("symbol", "ex_time", "kind").rows()
    return fingerprint(study.bars_version, actions)


def _batch(study: Study, periods: float) -> TrialBatch:
    """The books' net returns over the times that any of them has."""
    frames = [
        study.lake.scan(EQUITY, study.key, partitions=[book]).select("time", pl.lit(book).alias("book"), "return").collect()
        for book in books(study)
    ]
    wide = pl.concat(frames).pivot("book", index="time", values="return").sort("time")
    names = tuple(books(study))
    return TrialBatch(
        experiment=study.experiment.name,
        kind="run",
        family=study.dataset.bars_key,
        universe=study.dataset.key,
        data_version=data_version(study),
        label=label_text(study.experiment.label),
        engines=names,
        configs=[configuration(study, book) for book in names],
        times=wide["time"].cast(pl.Datetime("us", "UTC")),
        returns=wide.select(pl.col(names).cast(pl.Float64).fill_null(np.nan)).to_numpy(),
        periods_per_year=periods,
    )


def _rows(study: Study, ids: dict[str, str], periods: float) -> list[dict[str, Any]]:
    workspace = study.workspace
    counted = workspace.call(read_trials, workspace.database, family=study.dataset.bars_key)
    found = judge(workspace, counted, list(ids.values()))
    by_trial = {row["trial_id"]: row for row in found.trials.to_dicts()}
    selection, since = found.selection, workspace.call(ledger_since, workspace.database)
    overfitting = selection.overfitting
    common = {
        "trials": selection.trials,
        "trial_clusters": selection.clusters,
        "expected_maximum_sharpe": selection.expected_maximum * math.sqrt(periods),
        "expected_maximum_sharpe_clustered": selection.expected_maximum_clustered * math.sqrt(periods),
        "pbo": overfitting.pbo if overfitting else None,
        "pbo_trials": overfitting.trials if overfitting else None,
        "pbo_blocks": overfitting.blocks if overfitting else None,
        "counted_since": since.since,
    }
    own = ("deflated_sharpe", "deflated_sharpe_clustered", "pbo_when_best")
    return [
        {"book": book, "trial": trial, **{name: by_trial[trial][name] for name in own}, **common} for book, trial in ids.items()
    ]
