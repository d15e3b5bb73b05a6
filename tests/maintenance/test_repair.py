"""The lake is a copy: what is damaged in it is said in one sentence and mended by one command."""

from pathlib import Path

import polars as pl
import pytest

from tests.study.panels import small_experiment
from tidemill.domain.errors import IntegrityError
from tidemill.maintenance.repair import repair_lake
from tidemill.steps.market_data.bars import sync_bars
from tidemill.storage.lake import Lake
from tidemill.storage.trials import RETURNS
from tidemill.study.sources import study_of
from tidemill.study.tables import BARS, FEATURES
from tidemill.study.workspace import Workspace


def file_of(lake: Lake, table: str, key: str, partition: str) -> Path:
    return next((lake.root / table / f"dataset={key}" / f"partition={partition}").glob("*.parquet"))


def test_bars_come_back_from_postgres_and_what_is_computed_is_left_for_the_next_run(workspace: Workspace, folder: Path) -> None:
    study, lake = study_of(workspace, small_experiment(folder)), workspace.lake
    sync_bars(study)
    key = study.dataset.bars_key
    manifests, frame = lake.manifests(BARS, key), lake.scan(BARS, key).collect()
    lake.write(FEATURES, "some.1d.all", "2021-06", frame.head(9))

    cut = file_of(lake, BARS, key, "2021-02")
    cut.write_bytes(cut.read_bytes()[:200])
    garbage = file_of(lake, BARS, key, "2021-03")
    garbage.write_bytes(b"\0" * garbage.stat().st_size)
    other = file_of(lake, BARS, key, "2021-04")
    pl.read_parquet(other).with_columns(pl.col("close") + 1).write_parquet(other)
    (lake.root / BARS / f"dataset={key}" / "partition=2021-05" / "manifest.json").write_text("{")
    file_of(lake, FEATURES, "some.1d.all", "2021-06").unlink()
    lake.write(RETURNS, key, "a-trial", frame.head(3).select("open_time", "close"))
    file_of(lake, RETURNS, key, "a-trial").write_bytes(b"")

    for month in ("2021-02", "2021-05"):
        with pytest.raises(IntegrityError, match=r"is damaged\. Mend it with `tidemill data repair`\.$"):
            lake.scan(BARS, key, partitions=[month])
    done = repair_lake(workspace)
    assert [one.partition for one in done.restored] == ["2021-02", "2021-03", "2021-04", "2021-05"]
    assert [(one.table, one.partition) for one in done.removed] == [(FEATURES, "2021-06")]
    assert [one.partition for one in done.lost] == ["a-trial"]
    assert lake.scan(BARS, key).collect().equals(frame)
    mended = lake.manifests(BARS, key)
    assert {month: one.data_version for month, one in mended.items()} == {m: one.data_version for m, one in manifests.items()}
    assert not lake.manifests(FEATURES, "some.1d.all")
    again = repair_lake(workspace)
    assert (again.restored, again.removed, again.lost) == ((), (), ())
    assert lake.manifest(RETURNS, key, "a-trial") is None  # damaged, it would stop every judgement; gone, its trial is counted


def test_bars_that_postgres_does_not_have_are_read_from_their_source_again(workspace: Workspace, folder: Path) -> None:
    study, lake = study_of(workspace, small_experiment(folder)), workspace.lake
    sync_bars(study)
    key = study.dataset.bars_key
    frame = lake.scan(BARS, key).collect()
    lake.write(BARS, key, "1999-01", frame.head(5))
    file_of(lake, BARS, key, "1999-01").unlink()
    assert [one.partition for one in repair_lake(workspace).removed] == ["1999-01"]
    assert sync_bars(study_of(workspace, small_experiment(folder))).rows == frame.height
