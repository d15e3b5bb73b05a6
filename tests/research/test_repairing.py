"""The lake is a copy: what is damaged in it is said in one sentence and mended by one command."""

from pathlib import Path

import polars as pl
import pytest

from tests.research.panels import small_experiment
from tests.research.test_graph_of_steps import STEPS
from tidemill.domain.errors import IntegrityError
from tidemill.research.ingest import BARS
from tidemill.research.repairing import repair_lake
from tidemill.research.results import study_of
from tidemill.research.technical import TABLE
from tidemill.research.workspace import Workspace
from tidemill.storage.lake import Lake


def file_of(lake: Lake, table: str, key: str, partition: str) -> Path:
    return next((lake.root / table / f"dataset={key}" / f"partition={partition}").glob("*.parquet"))


def test_bars_come_back_from_postgres_and_the_rest_from_the_next_run(workspace: Workspace, folder: Path) -> None:
    experiment, lake = small_experiment(folder), workspace.lake
    study = study_of(workspace, experiment)
    steps = [STEPS[name] for name in ("bars", "instruments", "features")]
    for step in steps:
        step(study)
    bars, features = study.dataset.bars_key, study.features_key
    before = {
        key: (lake.manifests(table, key), lake.scan(table, key).collect()) for table, key in ((BARS, bars), (TABLE, features))
    }

    cut = file_of(lake, BARS, bars, "2021-02")
    cut.write_bytes(cut.read_bytes()[:200])
    garbage = file_of(lake, BARS, bars, "2021-03")
    garbage.write_bytes(b"\0" * garbage.stat().st_size)
    other = file_of(lake, BARS, bars, "2021-04")
    pl.read_parquet(other).with_columns(pl.col("close") + 1).write_parquet(other)
    (lake.root / BARS / f"dataset={bars}" / "partition=2021-05" / "manifest.json").write_text("{")
    file_of(lake, TABLE, features, "2021-06").unlink()

    for month in ("2021-02", "2021-05"):
        with pytest.raises(IntegrityError, match=r"is damaged\. Mend it with `tidemill data repair`\.$"):
            lake.scan(BARS, bars, partitions=[month])
    done = repair_lake(workspace)
    assert [one.partition for one in done.restored] == ["2021-02", "2021-03", "2021-04", "2021-05"]
    assert [(one.table, one.partition) for one in done.removed] == [(TABLE, "2021-06")]
    assert not done.lost
    manifests, frame = before[bars]
    assert lake.scan(BARS, bars).collect().equals(frame)
    assert {month: held.data_version for month, held in lake.manifests(BARS, bars).items()} == {
        month: held.data_version for month, held in manifests.items()
    }
    again = study_of(workspace, experiment)
    for step in steps:
        step(again)
    assert lake.scan(TABLE, features).collect().equals(before[features][1])
    mended = repair_lake(workspace)
    assert (mended.restored, mended.removed, mended.lost) == ((), (), ())
    assert mended.checked == done.checked
