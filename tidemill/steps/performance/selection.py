"""The books of a run in the trial ledger, and what the number of trials makes of their Sharpe ratios."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl

from tidemill.provenance import fingerprint
from tidemill.storage.lake import Manifest
from tidemill.storage.trials import config_hash, family_version, is_stored, ledger_since, read_trials, trial_id
from tidemill.study import code as code_of
from tidemill.study.counting import Evaluated, bars_a_year, configuration, count, data_version, label_text, select_trials
from tidemill.study.freshness import is_made_of
from tidemill.study.scoring import books
from tidemill.study.study import Study
from tidemill.study.tables import EQUITY, METRICS, SELECTION


def judge_books(study: Study) -> tuple[Manifest, bool]:
    """Count the books of a run as trials and write what the ledger makes of them; the manifest, and whether there was work.

    Nothing is gathered while neither the books nor the ledger's trials on this source changed.
    """
    equity = {name: manifest.fingerprint for name, manifest in study.lake.manifests(EQUITY, study.key).items()}
    ids = book_trials(study)
    code, family = code_of.selection(), study.dataset.bars_key
    held = study.lake.manifest(METRICS, study.key, SELECTION)
    wanted = fingerprint(code, equity, ids, _version(study, family))
    if held is not None and is_made_of(held, wanted) and _have_returns(study, ids):
        return held, False
    evaluated = _evaluated(study)
    count(study, evaluated)
    frame = pl.DataFrame(_rows(study, ids, bars_a_year(study, evaluated.times[1:])), infer_schema_length=None)
    part_fingerprint = fingerprint(code, equity, ids, _version(study, family))
    return study.lake.write(METRICS, study.key, SELECTION, frame, fingerprint=part_fingerprint), True


def _have_returns(study: Study, ids: dict[str, str]) -> bool:
    """Whether the series of all books are there: they lie in a table of their own."""
    found = study.workspace.call(read_trials, study.workspace.database, trial_ids=list(ids.values()))
    stored = [is_stored(study.lake, *row) for row in found.select("family", "returns_ref").iter_rows()]
    return len(stored) == len(set(ids.values())) and all(stored)


def book_trials(study: Study) -> dict[str, str]:
    """Book → id of its trial."""
    version, label = data_version(study), label_text(study.experiment.label)
    return {
        book: trial_id(config_hash(book, configuration(study, book)), version, label, study.dataset.key)
        for book in books(study)
    }


def _version(study: Study, family: str) -> str:
    return study.workspace.call(family_version, study.workspace.database, family)


def _evaluated(study: Study) -> Evaluated:
    """The books' net returns over the times that any of them has."""
    frames = [
        study.lake.scan(EQUITY, study.key, partitions=[book]).select("time", pl.lit(book).alias("book"), "return").collect()
        for book in books(study)
    ]
    wide = pl.concat(frames).pivot("book", index="time", values="return").sort("time")
    names = tuple(books(study))
    returns = wide.select(pl.col(names).cast(pl.Float64).fill_null(np.nan)).to_numpy()
    return Evaluated("run", names, [configuration(study, book) for book in names], wide["time"], returns)


def _rows(study: Study, ids: dict[str, str], periods: float) -> list[dict[str, Any]]:
    workspace = study.workspace
    counted = workspace.call(read_trials, workspace.database, family=study.dataset.bars_key)
    found = select_trials(workspace.lake, counted, list(ids.values()))
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
