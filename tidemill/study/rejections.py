"""Which predictions of a study do not count, and what is left to be traded without them."""

from __future__ import annotations

import polars as pl

from tidemill.quality.validity import (
    no_refusals,
)
from tidemill.study.study import Study
from tidemill.study.tables import REFUSALS

KEYS = ("symbol", "open_time")


def without(predicted: pl.DataFrame, refusals: pl.DataFrame) -> pl.DataFrame:
    return predicted.join(refusals.select(KEYS).unique(), on=KEYS, how="anti", maintain_order="left")


def refusals_of(study: Study, book: str | None = None) -> pl.DataFrame:
    """book, symbol, open_time, why, value, limit of what is refused, of one book or of all; empty before validation."""
    if not study.lake.manifests(REFUSALS, study.key):
        return no_refusals().with_columns(pl.lit("").alias("book")).select("book", *no_refusals().columns)
    rows = study.lake.scan(REFUSALS, study.key).collect()
    return rows if book is None else rows.filter(pl.col("book") == book)


def tradable(study: Study, book: str, predicted: pl.DataFrame) -> pl.DataFrame:
    """`predicted` of a book without what is refused, in its order."""
    return without(predicted, refusals_of(study, book))
