"""Where a dataset comes from: its source, its venue, what its instruments may do and what is flagged in it."""

from __future__ import annotations

import polars as pl

from tidemill.config import Settings
from tidemill.domain.experiment import DatasetSpec
from tidemill.domain.market import Instrument
from tidemill.domain.ports import BarSource
from tidemill.market.sources import open_source
from tidemill.quality.flags import Flag
from tidemill.study.study import Study
from tidemill.study.tables import FLAGS
from tidemill.study.workspace import Workspace


def source_of(spec: DatasetSpec, settings: Settings) -> BarSource:
    return open_source(spec.source, settings)


def venue_of(spec: DatasetSpec, settings: Settings) -> str:
    """Under which name the bars of a data set are kept."""
    return source_of(spec, settings).venue


def instruments_of(workspace: Workspace, venue: str) -> dict[str, Instrument]:
    found = workspace.call(workspace.store.read_instruments, venue)
    return {instrument.symbol: instrument for instrument in found}


def flags_of(study: Study) -> pl.DataFrame:
    """Quality flags of the dataset: symbol, open_time, flag, flagged_at, detail; empty where there are none."""
    if "all" not in study.lake.manifests(FLAGS, study.dataset.bars_key):
        return pl.DataFrame(schema={"symbol": pl.String, "open_time": pl.Datetime("us", "UTC"), "flag": pl.String})
    return study.lake.scan(FLAGS, study.dataset.bars_key).collect()


def suspected_actions(study: Study) -> pl.DataFrame:
    """symbol, open_time of the first bar after each move that may be an unrecorded corporate action (NUMBERS, Fills)."""
    return (
        flags_of(study)
        .filter(pl.col("flag") == Flag.SUSPECTED_ACTION)
        .select("symbol", "open_time")
        .unique()
        .sort("symbol", "open_time")
    )
