"""Out-of-sample predictions of a study beside the labels that came true, worked out once for all steps that ask."""

from __future__ import annotations

from typing import NamedTuple, Self

import polars as pl

from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.metrics.predictions import information_coefficients, scored
from tidemill.storage.ordered import by_symbol
from tidemill.study.study import Study
from tidemill.study.tables import ENSEMBLE, LABELS, PREDICTIONS


def books(study: Study) -> dict[str, str]:
    """Book → lake key of the predictions that it trades, the ensemble first; an engine that failed has none."""
    return {ENSEMBLE: study.ensemble_key} | {spec.name: study.engine_key(spec) for spec in study.engines}


def require_predictions(study: Study, book: str) -> None:
    """UnknownNameError for a book that the experiment does not have, InputError when it has no predictions yet, or none because
    its engine failed.
    """
    known, failed = books(study), study.failed
    if book in failed:
        raise InputError(f"The engine {book} failed in the last run: {failed[book]} Repair it and run again.")
    if book not in known:
        raise UnknownNameError("engine in this experiment", book, known)
    if not study.lake.manifests(PREDICTIONS, known[book]):
        raise InputError(
            f"The experiment {study.experiment.name!r} has no predictions as its files stand now. Run it first: "
            "`tidemill run --experiment FILE`."
        )


def prediction_versions(study: Study) -> dict[str, str]:
    """Book → data version of its predictions in all folds."""
    return {book: study.table_version(PREDICTIONS, key) for book, key in books(study).items()}


def predictions_of(study: Study, book: str) -> pl.DataFrame:
    """Out-of-sample predictions of a book as they are stored, all folds, sorted by symbol and time."""
    return by_symbol(study.lake.scan(PREDICTIONS, books(study)[book]).collect())


def predicted_by(study: Study, book: str) -> pl.DataFrame:
    """symbol, open_time, prediction of `predictions_of`: what else is stored costs more to sort than these."""
    scan = study.lake.scan(PREDICTIONS, books(study)[book]).select("symbol", "open_time", "prediction")
    return study.once(("predictions", book), lambda: by_symbol(scan.collect()))


def scored_rows(study: Study, book: str) -> pl.DataFrame:
    """Predictions of a book with the labels that came true, as `metrics.predictions.scored` gives them."""
    return study.once(("scored", book), lambda: _scored(study, predicted_by(study, book)))


def coefficients_of(study: Study, book: str) -> pl.DataFrame:
    """`metrics.predictions.information_coefficients` of a book."""
    return study.once(("coefficients", book), lambda: information_coefficients(scored_rows(study, book)))


class _Outcomes(NamedTuple):
    """Which rows of a book's predictions have a label, in order of time and symbol, and those labels. keys: symbol, open_time
    of all its predictions, sorted.
    """

    keys: pl.DataFrame
    rows: pl.Series
    labelled: pl.DataFrame

    @classmethod
    def of(cls, predicted: pl.DataFrame, labels: pl.DataFrame) -> Self:
        keys = predicted.select("symbol", "open_time")
        both = keys.with_row_index("row").join(labels, on=("symbol", "open_time"), maintain_order="left")
        both = both.sort("open_time", maintain_order=True)  # within a time the symbols stand in order already
        return cls(keys, both["row"], both.drop("row"))


def _scored(study: Study, predicted: pl.DataFrame) -> pl.DataFrame:
    """All books of a study predict the same rows as a rule: labels are then looked for once, not once for each book."""
    labels = study.once("labels", lambda: study.lake.scan(LABELS, study.labels_key).collect())
    outcomes = study.once("outcomes", lambda: _Outcomes.of(predicted, labels))
    if not outcomes.keys.equals(predicted.select("symbol", "open_time")):
        return scored(predicted, labels)
    prediction = predicted["prediction"].gather(outcomes.rows)
    found = outcomes.labelled.select("symbol", "open_time", prediction, "label", "label_end_at")
    return found.filter((pl.col("prediction").is_finite() & pl.col("label").is_finite()).fill_null(value=False))
