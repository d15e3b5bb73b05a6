"""A source is more than its name on disk: two files of one name do not mix, and what a home has keeps its name."""

from pathlib import Path

import polars as pl
import pytest

from tests.study.panels import before_day, small_experiment
from tests.study.running import run, worked
from tidemill.config import Settings
from tidemill.domain.errors import InputError
from tidemill.domain.experiment import DatasetSpec, Experiment
from tidemill.steps.market_data.bars import month_range, sync_bars
from tidemill.study.sources import claimed, name_import, study_of, venue_of
from tidemill.study.workspace import Workspace


@pytest.fixture
def twins(tmp_path: Path, panel: pl.DataFrame) -> tuple[Experiment, Experiment]:
    """Experiments on two files of one name in different folders, with different symbols in them."""
    made = []
    for name, symbols in (("one", ["AAA", "BBB", "CCC", "DDD"]), ("other", ["CCC", "DDD", "EEE", "FFF"])):
        file = tmp_path / name / "prices.parquet"
        file.parent.mkdir()
        before_day(panel, 300).filter(pl.col("symbol").is_in(symbols)).write_parquet(file)
        made.append(small_experiment(file))
    return made[0], made[1]


def test_two_files_of_one_name_in_different_folders_do_not_mix(
    workspace: Workspace, settings: Settings, twins: tuple[Experiment, Experiment]
) -> None:
    first, _ = run(workspace, twins[0])
    second, _ = run(workspace, twins[1])
    assert first.dataset.venue == "prices"
    assert second.dataset.venue.startswith("prices-")
    assert first.bars["symbol"].unique().sort().to_list() == ["AAA", "BBB", "CCC", "DDD"]
    assert second.bars["symbol"].unique().sort().to_list() == ["CCC", "DDD", "EEE", "FFF"]
    # Nothing of one is work for the other, and who looks without a server finds each under its own name.
    for experiment, study in zip(twins, (first, second), strict=True):
        assert worked(run(workspace, experiment)[1]) == set()
        assert venue_of(experiment.dataset, settings) == study.dataset.venue
        assert month_range(experiment, settings) == ("2021-10", "2021-10")


def test_a_file_keeps_its_name_whichever_way_its_path_is_written(
    workspace: Workspace, twins: tuple[Experiment, Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(workspace, twins[0])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "one")
    for path in ("one/prices.parquet", "other/../one/prices.parquet", "link/prices.parquet"):
        assert claimed(workspace, DatasetSpec(source=f"file:{path}")) == study.dataset.venue
    assert claimed(workspace, twins[1].dataset) != study.dataset.venue


def test_a_home_of_before_keeps_the_name_of_its_data_for_the_file_that_they_came_from(
    workspace: Workspace, twins: tuple[Experiment, Experiment]
) -> None:
    study = study_of(workspace, twins[1])
    sync_bars(study)
    workspace.call(workspace.database.execute, "DELETE FROM sources")  # as an earlier version left it
    assert claimed(workspace, twins[0].dataset) != "prices"
    assert claimed(workspace, twins[1].dataset) == study.dataset.venue == "prices"


def test_a_file_that_is_called_as_a_venue_or_as_a_named_import_gets_a_name_of_its_own(
    workspace: Workspace, twins: tuple[Experiment, Experiment], tmp_path: Path
) -> None:
    name_import(workspace, "prices")
    assert claimed(workspace, twins[0].dataset).startswith("prices-")
    file = tmp_path / "binance.parquet"
    (tmp_path / "one" / "prices.parquet").rename(file)
    assert claimed(workspace, DatasetSpec(source=f"file:{file}")).startswith("binance-")


def test_an_import_under_a_name_that_a_file_owns_is_refused(workspace: Workspace, twins: tuple[Experiment, Experiment]) -> None:
    assert claimed(workspace, twins[0].dataset) == "prices"
    with pytest.raises(InputError, match=r"The name prices belongs to the source file:.*one/prices.parquet. Choose another"):
        name_import(workspace, "prices")
    name_import(workspace, "mine")
    name_import(workspace, "mine")


def test_nothing_is_imported_among_the_built_in_bars(workspace: Workspace) -> None:
    with pytest.raises(
        InputError, match=r"sample is the name of the built-in bars, to which no others can be added\. Choose another --venue"
    ):
        name_import(workspace, "sample")


def test_the_key_of_a_study_on_the_only_file_of_its_name_is_what_it_was_before(
    workspace: Workspace, twins: tuple[Experiment, Experiment]
) -> None:
    study = study_of(workspace, twins[0])
    assert study.dataset.key == "prices.1d.all"
    assert study.key.startswith("prices.1d.all.")
