"""Which predictions of a study do not count: one judgement for every door that trades some.

A run keeps what it rejects (table `refusals`); promotion, search and cross-validation judge what they predicted themselves, by
the same rules. A fold is held against its features, against what its engines said in earlier folds, and against one another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import polars as pl

from tidemill.models.ensemble import ranks
from tidemill.quality.validity import (
    DISAGREEMENT,
    DISTANCE,
    MEMBERS,
    MISSING,
    RANGE,
    PastRange,
    disagreement,
    distances,
    feature_bounds,
    missing_share,
    no_rejections,
    outside,
    past_range,
    rejected_rows,
    widened,
)
from tidemill.study.study import Study
from tidemill.study.tables import ENSEMBLE, REFUSALS, partition_of
from tidemill.validation.splits import Fold

KEYS = ("symbol", "open_time")
_SAMPLE = 20_000  # rows of a training window that its bounds are estimated from

# Engine → what it said before, None where it said nothing.
Past = Mapping[str, PastRange | None]
# Book → symbol, open_time, prediction: the engines, and the ensemble of them where there is one.
Predicted = Mapping[str, pl.DataFrame]


class Rejected(NamedTuple):
    """rows: book, symbol, open_time, why, value, limit. said: engine → range of its predictions that count."""

    rows: pl.DataFrame
    said: dict[str, PastRange | None]

    def of(self, book: str) -> pl.DataFrame:
        """The rejected predictions of one book."""
        return self.rows.filter(pl.col("book") == book)


def reject(study: Study, predicted: Predicted, tested: pl.DataFrame, bounds: pl.DataFrame, past: Past) -> Rejected:
    """Judge the predictions of one stretch of time.

    tested: feature rows of its bars. bounds: `bounds_over` the rows that its models were trained on. past: of its engines; an
    engine that is not in it is not held against its past.
    """
    own = {book: frame for book, frame in predicted.items() if book != ENSEMBLE}
    by_inputs = _by_inputs(study, tested, bounds)
    by_range = {book: _by_range(study, frame, past.get(book)) for book, frame in own.items()}
    together = _by_others(study, own, by_range) if ENSEMBLE in predicted else no_rejections()
    found = [
        frame.with_columns(pl.lit(book).alias("book"))
        for book in predicted
        for frame in (by_inputs, together if book == ENSEMBLE else by_range[book])
    ]
    rows = pl.concat(found).select("book", *no_rejections().columns).sort("book", *KEYS, "why")
    return Rejected(rows, {book: past_range(without(frame, by_range[book])["prediction"]) for book, frame in own.items()})


def reject_fold(study: Study, fold: Fold, predicted: Predicted, past: Past) -> Rejected:
    """Judge the predictions of a walk-forward fold, or of any window that is trained and tested like one."""
    trained = feature_rows(study, fold.train_start, fold.train_end)
    tested = feature_rows(study, fold.test_start, fold.test_end)
    return reject(study, predicted, tested, bounds_over(study, trained), past)


def tradable_folds(study: Study, folds: Sequence[Fold], predicted: Sequence[Predicted], book: str) -> list[pl.DataFrame]:
    """Of each fold the predictions of a book that count; a fold's engines are held against the folds before it."""
    said: list[Past] = []
    kept = []
    for fold, frames in zip(folds, predicted, strict=True):
        past = {name: widened([earlier.get(name) for earlier in said]) for name in frames}
        found = reject_fold(study, fold, frames, past)
        said.append(found.said)
        kept.append(silenced(frames[book], found.of(book)))
    return kept


def stored_past(study: Study, before: datetime) -> dict[str, PastRange | None]:
    """What the engines of a study that has run said in its folds that ended at or before a moment."""
    folds = {partition_of(fold) for fold in study.folds if fold.test_end <= before}
    said: dict[str, list[PastRange | None]] = {}
    for part, manifest in sorted(study.lake.manifests(REFUSALS, study.key).items()):
        for book, known in manifest.metadata["ranges"].items() if part in folds else ():
            said.setdefault(book, []).append(PastRange(*known) if known else None)
    return {book: widened(known) for book, known in said.items()}


def bounds_over(study: Study, rows: pl.DataFrame) -> pl.DataFrame:
    """Bounds of the features over rows that a model was trained on, from a sample of them."""
    return feature_bounds(rows.gather_every(max(rows.height // _SAMPLE, 1)), study.available.names)


def feature_rows(study: Study, start: datetime, end: datetime) -> pl.DataFrame:
    """The features of the bars in [start, end)."""
    frame = study.features_until(end, start, 0)
    return frame.filter(pl.col("open_time").is_between(start, end, closed="left"))


def _by_inputs(study: Study, rows: pl.DataFrame, bounds: pl.DataFrame) -> pl.DataFrame:
    """Rows with too many unknown features, or far from what the models were trained on."""
    spec, names = study.experiment.validation, study.available.names
    found = [no_rejections()]
    if spec.missing is not None:
        found.append(rejected_rows(rows, missing_share(rows, names), spec.missing, MISSING))
    if spec.distance is not None:
        found.append(rejected_rows(rows, distances(rows, bounds), spec.distance, DISTANCE))
    return pl.concat(found)


def _by_range(study: Study, predicted: pl.DataFrame, past: PastRange | None) -> pl.DataFrame:
    """Predictions of an engine far outside of what it said before; none while that is too little."""
    spec = study.experiment.validation
    if spec.range is None or past is None or past.size < spec.history:
        return no_rejections()
    return rejected_rows(predicted, outside(predicted["prediction"], past), spec.range, RANGE)


def _by_others(study: Study, own: Predicted, by_range: Predicted) -> pl.DataFrame:
    """Predictions of the ensemble whose engines contradict each other, or were rejected by their range in their majority."""
    spec, names = study.experiment.validation, tuple(own)
    found = [no_rejections()]
    if spec.disagreement is not None and len(names) > 1:
        told = [frame.select(*KEYS, pl.lit(name).alias("engine"), "prediction") for name, frame in own.items()]
        ranked = ranks(pl.concat(told), names)
        found.append(rejected_rows(ranked, disagreement(ranked, names), spec.disagreement, DISAGREEMENT))
    members = pl.concat(list(by_range.values())).group_by(KEYS).agg((pl.len() / len(names)).alias("share")).sort(KEYS)
    found.append(rejected_rows(members, members["share"], 0.5, MEMBERS))
    return pl.concat(found)


def without(predicted: pl.DataFrame, rejected: pl.DataFrame) -> pl.DataFrame:
    """`predicted` without what is rejected, in its order."""
    return predicted.join(rejected.select(KEYS).unique(), on=KEYS, how="anti", maintain_order="left")


def rejections_of(study: Study, book: str | None = None) -> pl.DataFrame:
    """book, symbol, open_time, why, value, limit of what a run rejected, of one book or of all; empty before it did."""
    if not study.lake.manifests(REFUSALS, study.key):
        return no_rejections().with_columns(pl.lit("").alias("book")).select("book", *no_rejections().columns)
    rows = study.lake.scan(REFUSALS, study.key).collect()
    return rows if book is None else rows.filter(pl.col("book") == book)


def silenced(predicted: pl.DataFrame, rejected: pl.DataFrame) -> pl.DataFrame:
    """`predicted` without a value where it is rejected, in its order: that a symbol was predicted is known all the same."""
    keys = rejected.select(KEYS).unique().with_columns(rejected=True)
    marked = predicted.join(keys, on=KEYS, how="left", maintain_order="left")
    return marked.with_columns(pl.when(pl.col("rejected").is_null()).then("prediction").alias("prediction")).drop("rejected")


def tradable(study: Study, book: str, predicted: pl.DataFrame) -> pl.DataFrame:
    """`predicted` of a book, silenced where the run rejected it, in its order."""
    return silenced(predicted, rejections_of(study, book))
