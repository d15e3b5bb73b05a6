"""Predictions held against their inputs and their past: what fails is kept beside them, shown, and not traded.

One partition of the lake's table `refusals` for each fold, with a row for each prediction that does not count and why. A fold
is judged again only when its predictions, its features, its bounds or the rules have changed, so a new day costs one fold.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import polars as pl

from tidemill.models.ensemble import ranks
from tidemill.provenance import fingerprint, source_version
from tidemill.quality.validity import (
    DISAGREEMENT,
    DISTANCE,
    MEMBERS,
    MISSING,
    RANGE,
    WHY,
    PastRange,
    disagreement,
    distances,
    feature_bounds,
    missing_share,
    no_refusals,
    outside,
    past_range,
    refused,
    widened,
)
from tidemill.storage.lake import Manifest
from tidemill.study.model_index import month_versions, touched
from tidemill.study.rejections import KEYS, refusals_of, without
from tidemill.study.scoring import books
from tidemill.study.study import Study
from tidemill.study.tables import ENSEMBLE, FEATURES, PREDICTIONS, REFUSALS, partition_of
from tidemill.validation.splits import Fold

BOUNDS = "feature_bounds"
MANY = 0.05  # of the predictions: more refused ones than this is worth a warning
_SAMPLE = 20_000  # rows of a training window that its bounds are estimated from


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What validation came to. counts: (book, why) → predictions refused. judged: predictions looked at, over all books."""

    worked: int
    judged: int
    counts: dict[tuple[str, str], int]
    version: str

    @property
    def refused(self) -> int:
        return sum(self.counts.values())

    @property
    def share(self) -> float:
        return self.refused / self.judged if self.judged else 0.0

    def sentences(self) -> tuple[str, ...]:
        """One for each book and reason, the most frequent first."""
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return tuple(f"{book}: {count:,} predictions were not traded, {WHY[why]}." for (book, why), count in ordered)


def validate_predictions(study: Study) -> Judgement:
    """Judge every fold whose inputs changed, and say what is refused in all of them."""
    code, months = (
        source_version("tidemill.quality.validity", "tidemill.steps.predictions.validity"),
        month_versions(study, FEATURES),
    )
    keys = books(study)
    predictions = {book: study.lake.manifests(PREDICTIONS, key) for book, key in keys.items()}
    have, worked = study.lake.manifests(REFUSALS, study.key), 0
    ranges: dict[str, list[PastRange | None]] = {book: [] for book in keys}
    for fold in study.folds:
        partition = partition_of(fold)
        past = {book: widened(known) for book, known in ranges.items()}
        seen = {book: found[partition].data_version for book, found in predictions.items() if partition in found}
        window = (touched(months, fold.train_start, fold.train_end), touched(months, fold.test_start, fold.test_end))
        print_ = fingerprint(code, study.experiment.validation, study.available.names, fold, seen, past, window)
        held = have.get(partition)
        if held is None or held.fingerprint != print_:
            held = _judge_fold(study, fold, past, fingerprint(code, study.available.names, fold, window[0]), print_)
            have[partition], worked = held, worked + 1
        for book, known in held.metadata["ranges"].items():
            ranges.setdefault(book, []).append(PastRange(*known) if known else None)
    for gone in have.keys() - {partition_of(fold) for fold in study.folds}:
        study.lake.drop(REFUSALS, study.key, gone)
        del have[gone]
    return _judgement(have, predictions, worked)


def _judgement(have: dict[str, Manifest], predictions: dict[str, dict[str, Manifest]], worked: int) -> Judgement:
    counts: dict[tuple[str, str], int] = {}
    for manifest in have.values():
        for book, why, count in manifest.metadata["counts"]:
            counts[book, why] = counts.get((book, why), 0) + count
    judged = sum(manifest.rows for found in predictions.values() for manifest in found.values())
    version = fingerprint({name: manifest.data_version for name, manifest in sorted(have.items())})
    return Judgement(worked=worked, judged=judged, counts=counts, version=version)


def _judge_fold(study: Study, fold: Fold, past: dict[str, PastRange | None], window_print: str, print_: str) -> Manifest:
    predicted = {
        book: study.lake.scan(PREDICTIONS, key, partitions=[partition_of(fold)]).collect() for book, key in books(study).items()
    }
    own = {book: predicted[book] for book in predicted if book != ENSEMBLE}
    by_inputs = _by_inputs(study, fold, window_print)
    by_range = {book: _by_range(study, frame, past.get(book)) for book, frame in own.items()}
    together = _by_others(study, own, by_range)
    found = [
        frame.with_columns(pl.lit(book).alias("book"))
        for book in predicted
        for frame in (by_inputs, together if book == ENSEMBLE else by_range[book])
    ]
    rows = pl.concat(found).select("book", *no_refusals().columns).sort("book", *KEYS, "why")
    counts = rows.group_by("book", "why").len().sort("book", "why").rows()
    said = {book: past_range(without(frame, by_range[book])["prediction"]) for book, frame in own.items()}
    facts: dict[str, Any] = {
        "counts": [list(row) for row in counts],
        "ranges": {k: list(v) if v else None for k, v in said.items()},
    }
    return study.lake.write(REFUSALS, study.key, partition_of(fold), rows, fingerprint=print_, metadata=facts)


def _by_inputs(study: Study, fold: Fold, window_print: str) -> pl.DataFrame:
    """Rows of the fold's test window with too many unknown features, or far from its training window."""
    spec, names = study.experiment.validation, study.available.names
    rows = _feature_rows(study, fold.test_start, fold.test_end)
    found = [no_refusals()]
    if spec.missing is not None:
        found.append(refused(rows, missing_share(rows, names), spec.missing, MISSING))
    if spec.distance is not None:
        found.append(refused(rows, distances(rows, _bounds(study, fold, window_print)), spec.distance, DISTANCE))
    return pl.concat(found)


def _bounds(study: Study, fold: Fold, print_: str) -> pl.DataFrame:
    """Bounds of the features over the fold's training window, from a sample of its rows; kept while the window is the same."""
    partition = partition_of(fold)
    held = study.lake.manifest(BOUNDS, study.key, partition)
    if held is None or held.fingerprint != print_:
        rows = _feature_rows(study, fold.train_start, fold.train_end)
        made = feature_bounds(rows.gather_every(max(rows.height // _SAMPLE, 1)), study.available.names)
        study.lake.write(BOUNDS, study.key, partition, made, fingerprint=print_)
        return made
    return study.lake.scan(BOUNDS, study.key, partitions=[partition]).collect()


def _feature_rows(study: Study, start: datetime, end: datetime) -> pl.DataFrame:
    frame = study.features_until(end, start, 0)
    return frame.filter(pl.col("open_time").is_between(start, end, closed="left"))


def _by_range(study: Study, predicted: pl.DataFrame, past: PastRange | None) -> pl.DataFrame:
    """Predictions of an engine far outside of what it said in earlier folds; none while there are too few of those."""
    spec = study.experiment.validation
    if spec.range is None or past is None or past.size < spec.history:
        return no_refusals()
    return refused(predicted, outside(predicted["prediction"], past), spec.range, RANGE)


def _by_others(study: Study, own: dict[str, pl.DataFrame], by_range: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Predictions of the ensemble whose engines contradict each other, or were refused by their range in their majority."""
    spec, names = study.experiment.validation, tuple(own)
    found = [no_refusals()]
    if spec.disagreement is not None and len(names) > 1:
        columns = ("symbol", "open_time", "engine", "prediction")
        ranked = ranks(pl.concat([frame.select(columns) for frame in own.values()]), names)
        found.append(refused(ranked, disagreement(ranked, names), spec.disagreement, DISAGREEMENT))
    members = pl.concat(list(by_range.values())).group_by(KEYS).agg((pl.len() / len(names)).alias("share")).sort(KEYS)
    found.append(refused(members, members["share"], 0.5, MEMBERS))
    return pl.concat(found)


def refusal_counts(study: Study) -> pl.DataFrame:
    """book, why (a sentence), predictions: a small table for the report; empty where everything counts."""
    rows = (
        refusals_of(study)
        .group_by("book", "why")
        .len("predictions")
        .sort("predictions", "book", "why", descending=[True, False, False])
    )
    return rows.with_columns(pl.col("why").replace_strict(WHY, return_dtype=pl.String))
