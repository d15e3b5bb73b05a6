"""What a run measured, as the frames that its steps kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tidemill.domain.limits_reached import LimitsReached
from tidemill.study.tables import BENCHMARK, ENGINES, EQUITY, METRICS, PORTFOLIO, SELECTION

if TYPE_CHECKING:
    import polars as pl

    from tidemill.storage.lake import Lake


def engine_metrics(lake: Lake, key: str) -> pl.DataFrame:
    """One row for each book: skill, Sharpe before and after costs, costs, what the ledger makes of it. key: of the study."""
    skill = lake.scan(METRICS, key, partitions=[ENGINES]).collect()
    judged = lake.scan(METRICS, key, partitions=[SELECTION]).collect()
    return skill.join(judged, on="book", how="left", maintain_order="left")


def portfolio_metrics(lake: Lake, key: str) -> pl.DataFrame:
    """One row for each book and the benchmark, one column for each metric. key: of the study."""
    return lake.scan(METRICS, key, partitions=[PORTFOLIO]).collect()


def limits_of(lake: Lake, key: str) -> dict[str, LimitsReached | None]:
    """Book → what its limits did to it, None where it was traded without any. key: of the study."""
    found = {book: manifest.metadata.get("limits") for book, manifest in lake.manifests(EQUITY, key).items()}
    return {book: msgspec.convert(told, LimitsReached | None) for book, told in found.items() if book != BENCHMARK}
