"""Predictions held against their inputs and their past: what fails is kept beside them, shown, and not traded.

One partition of the lake's table `refusals` for each fold, with a row for each prediction that does not count and why. A fold
is judged again only when its predictions, its features, its bounds or the rules have changed, so a new day costs one fold.
"""

from __future__ import annotations

from typing import Any

import msgspec
import polars as pl

from tidemill.provenance import fingerprint
from tidemill.quality.validity import (
    WHY,
    PastRange,
    widened,
)
from tidemill.storage.lake import Manifest
from tidemill.study import code as code_of
from tidemill.study.freshness import Table, drop_others, is_made_of
from tidemill.study.model_index import month_versions, touched
from tidemill.study.rejections import bounds_over, feature_rows, reject, rejections_of
from tidemill.study.scoring import books
from tidemill.study.study import Study
from tidemill.study.tables import FEATURE_BOUNDS, FEATURES, PREDICTIONS, REFUSALS, partition_of
from tidemill.validation.splits import Fold

MANY = 0.05  # of the predictions: more rejected ones than this are worth a warning


class GuardResult(msgspec.Struct, frozen=True, kw_only=True):
    """What validation came to. counts: (book, why) → predictions rejected. judged: predictions looked at, over all books."""

    worked: int
    judged: int
    counts: dict[tuple[str, str], int]
    version: str

    @property
    def rejected(self) -> int:
        return sum(self.counts.values())

    @property
    def share(self) -> float:
        return self.rejected / self.judged if self.judged else 0.0

    def sentences(self) -> tuple[str, ...]:
        """One for each book and reason, the most frequent first."""
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return tuple(f"{book}: {count:,} predictions were not traded, {WHY[why]}." for (book, why), count in ordered)


def validate_predictions(study: Study) -> GuardResult:
    """Judge every fold whose inputs changed, and say what is rejected in all of them."""
    code, months = (
        code_of.rejections(),
        month_versions(study, FEATURES),
    )
    keys = books(study)
    predictions = {book: study.lake.manifests(PREDICTIONS, key) for book, key in keys.items()}
    have, bounds, worked = study.lake.manifests(REFUSALS, study.key), study.lake.manifests(FEATURE_BOUNDS, study.key), 0
    ranges: dict[str, list[PastRange | None]] = {book: [] for book in keys}
    for fold in study.folds:
        partition = partition_of(fold)
        past = {book: widened(known) for book, known in ranges.items()}
        seen = {book: found[partition].data_version for book, found in predictions.items() if partition in found}
        window = (touched(months, fold.train_start, fold.train_end), touched(months, fold.test_start, fold.test_end))
        part_fingerprint = fingerprint(code, study.experiment.validation, study.available.names, fold, seen, past, window)
        held = have.get(partition)
        if held is None or not is_made_of(held, part_fingerprint) or partition not in bounds:
            held = _judge_fold(study, fold, past, fingerprint(code, study.available.names, fold, window[0]), part_fingerprint)
            have[partition], worked = held, worked + 1
        for book, known in held.metadata["ranges"].items():
            ranges.setdefault(book, []).append(PastRange(*known) if known else None)
    wanted = [partition_of(fold) for fold in study.folds]
    drop_others(study.lake, [Table(REFUSALS, study.key), Table(FEATURE_BOUNDS, study.key)], wanted)
    return _judgement({part: have[part] for part in wanted}, predictions, worked)


def _judgement(have: dict[str, Manifest], predictions: dict[str, dict[str, Manifest]], worked: int) -> GuardResult:
    counts: dict[tuple[str, str], int] = {}
    for manifest in have.values():
        for book, why, count in manifest.metadata["counts"]:
            counts[book, why] = counts.get((book, why), 0) + count
    judged = sum(manifest.rows for found in predictions.values() for manifest in found.values())
    version = fingerprint({name: manifest.data_version for name, manifest in sorted(have.items())})
    return GuardResult(worked=worked, judged=judged, counts=counts, version=version)


def _judge_fold(
    study: Study, fold: Fold, past: dict[str, PastRange | None], window_fingerprint: str, part_fingerprint: str
) -> Manifest:
    predicted = {
        book: study.lake.scan(PREDICTIONS, key, partitions=[partition_of(fold)]).collect() for book, key in books(study).items()
    }
    tested = feature_rows(study, fold.test_start, fold.test_end)
    found = reject(study, predicted, tested, _bounds(study, fold, window_fingerprint), past)
    counts = found.rows.group_by("book", "why").len().sort("book", "why").rows()
    facts: dict[str, Any] = {
        "counts": [list(row) for row in counts],
        "ranges": {k: list(v) if v else None for k, v in found.said.items()},
    }
    return study.lake.write(REFUSALS, study.key, partition_of(fold), found.rows, fingerprint=part_fingerprint, metadata=facts)


def _bounds(study: Study, fold: Fold, part_fingerprint: str) -> pl.DataFrame:
    """Bounds of the features over the fold's training window; kept while the window is the same."""
    partition = partition_of(fold)
    held = study.lake.manifest(FEATURE_BOUNDS, study.key, partition)
    if held is None or not is_made_of(held, part_fingerprint):
        made = bounds_over(study, feature_rows(study, fold.train_start, fold.train_end))
        study.lake.write(FEATURE_BOUNDS, study.key, partition, made, fingerprint=part_fingerprint)
        return made
    return study.lake.scan(FEATURE_BOUNDS, study.key, partitions=[partition]).collect()


def rejection_counts(study: Study) -> pl.DataFrame:
    """book, why (a sentence), predictions: a small table for the report; empty where everything counts."""
    rows = (
        rejections_of(study)
        .group_by("book", "why")
        .len("predictions")
        .sort("predictions", "book", "why", descending=[True, False, False])
    )
    return rows.with_columns(pl.col("why").replace_strict(WHY, return_dtype=pl.String))
