import hashlib
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.run_request import experiment_config, range_tags
from sensors.experiments import experiments_in
from sensors.new_data import (
    Folder,
    InboxFile,
    Tracked,
    decide,
    digest_of,
    interval_of,
    new_data_sensor,
    open_folder,
    tracked_experiments,
)
from tests.orchestration import small_definitions
from tidemill.config import Secret, Settings, load_settings
from tidemill.domain.errors import InputError
from tidemill.domain.experiment import DatasetSpec, Experiment
from tidemill.experiments.tracked import row_of
from tidemill.storage.experiments import StoredExperiment, record
from tidemill.study.workspace import open_workspace

NOW = datetime(2024, 5, 3, 12, 0, 30, tzinfo=UTC)
LONG_AGO = int((NOW - timedelta(hours=1)).timestamp() * 1e9)
INBOX = Path("/inbox")


def folder(contents: dict[str, str], modified: int = LONG_AGO) -> Folder:
    """A folder whose files' digests are their contents."""
    files = [InboxFile(name, len(text), modified) for name, text in contents.items()]
    return Folder(INBOX, files, lambda file: contents[file.name])


def keys(cursor: str | None, now_there: Folder, tracked: Sequence[Tracked] = (), now: datetime = NOW) -> tuple[list[str], str]:
    requests, after = decide(cursor, now_there, tracked, now)
    return [request.run_key for request in requests], after


def test_a_new_file_asks_for_one_run_of_its_own_data_set_and_then_for_none() -> None:
    requests, cursor = decide(None, folder({"prices_1h.csv": "a"}), (), NOW)
    assert [request.dataset for request in requests] == [DatasetSpec(source="file:/inbox/prices_1h.csv", interval="1h")]
    assert keys(cursor, folder({"prices_1h.csv": "a"})) == ([], cursor)


def test_files_in_a_folder_are_one_data_set_and_one_run() -> None:
    requests, cursor = decide(None, folder({"panel/a.csv": "1", "panel/b/c.csv": "2", "x.csv": "3"}), (), NOW)
    assert [request.dataset.source for request in requests] == ["file:/inbox/panel", "file:/inbox/x.csv"]
    changed, _ = keys(cursor, folder({"panel/a.csv": "1", "panel/b/c.csv": "new", "x.csv": "3"}))
    assert [key.rpartition(":")[0] for key in changed] == ["file:panel"]


def test_a_touched_file_with_the_same_content_asks_for_nothing() -> None:
    _, cursor = decide(None, folder({"a.csv": "1"}), (), NOW)
    assert keys(cursor, folder({"a.csv": "1"}, LONG_AGO + 5))[0] == []


def test_the_same_change_has_the_same_run_key_and_another_change_another() -> None:
    first, _ = keys(None, folder({"a.csv": "1"}))
    again, cursor = keys(None, folder({"a.csv": "1"}))
    other, _ = keys(cursor, folder({"a.csv": "2"}, LONG_AGO + 1))
    assert first == again != other


def test_a_file_that_is_still_written_to_waits_until_it_has_settled() -> None:
    growing = int((NOW - timedelta(seconds=1)).timestamp() * 1e9)
    waiting, cursor = keys(None, folder({"a.csv": "1"}, growing))
    assert waiting == []
    assert len(keys(cursor, folder({"a.csv": "1"}, growing), now=NOW + timedelta(seconds=10))[0]) == 1


def test_a_vanished_file_asks_for_nothing_and_for_a_run_when_it_comes_back() -> None:
    _, cursor = decide(None, folder({"a.csv": "1"}), (), NOW)
    gone, cursor = keys(cursor, folder({}))
    assert gone == []
    assert len(keys(cursor, folder({"a.csv": "1"}))[0]) == 1


@given(st.lists(st.dictionaries(st.sampled_from(["a.csv", "b.csv", "d/x.csv", "d/y.csv"]), st.sampled_from("123")), max_size=6))
def test_a_folder_that_does_not_change_never_asks_twice(history: list[dict[str, str]]) -> None:
    cursor = None
    for step, contents in enumerate(history):
        _, cursor = keys(cursor, folder(contents, LONG_AGO + step))
        assert keys(cursor, folder(contents, LONG_AGO + step)) == ([], cursor)


def venue(interval: str = "1h", **changes: str) -> Experiment:
    return Experiment(name="live", dataset=DatasetSpec(source="binance", interval=interval, **changes))


def test_a_closed_bar_asks_once_for_a_run_of_the_same_experiment() -> None:
    tracked = [Tracked(venue(), NOW - timedelta(minutes=5))]  # 11:55: the 11:00 bar was open then
    requests, cursor = decide(None, folder({}), tracked, NOW)
    assert requests == []  # seen for the first time: what closed before is the next run's matter
    (first,), cursor = keys(cursor, folder({}), tracked, NOW + timedelta(hours=1))
    assert first.startswith("bar:")
    assert first.endswith("2024-05-03T13:00")
    assert keys(cursor, folder({}), tracked, NOW + timedelta(hours=1, minutes=40))[0] == []


def test_a_run_by_hand_after_the_bar_closed_makes_the_sensor_ask_for_none() -> None:
    _, cursor = decide(None, folder({}), [Tracked(venue(), NOW)], NOW)
    later = NOW + timedelta(hours=1)
    assert keys(cursor, folder({}), [Tracked(venue(), later)], later)[0] == []


NAMES = {"prices.csv": "1d", "binance_1h": "1h", "eurusd.15m.csv": "15m", "sp500_daily_2013_2018": "1d", "x_1M.csv": "1d"}


@pytest.mark.parametrize(("name", "interval"), NAMES.items())
def test_the_end_of_a_name_tells_the_interval(name: str, interval: str) -> None:
    assert interval_of(name) == interval


def test_only_settled_visible_data_files_are_listed(tmp_path: Path) -> None:
    for name in ("b.parquet", "a.CSV", "notes.txt", ".hidden.csv", "sub/c.csv", ".git/d.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "link.csv").symlink_to("/etc/passwd")
    listed = open_folder(tmp_path)
    assert [file.name for file in listed.files] == ["a.CSV", "b.parquet", "sub/c.csv"]
    assert open_folder(tmp_path / "none").files == []
    assert len({listed.digest(file) for file in listed.files}) == 3


def test_a_large_file_is_known_by_its_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensors.new_data._WHOLE_BYTES", 10)
    monkeypatch.setattr("sensors.new_data._PIECE_BYTES", 4)

    def digest(text: str) -> str:
        (tmp_path / "f").write_text(text)
        return digest_of(tmp_path, InboxFile("f", len(text), 0))

    assert len({digest("aaaabbbbcccc"), digest("xaaabbbbcccc"), digest("aaaabbbbcccx"), digest("aaaabbbbbcccc")}) == 4


def text_of(run_config: Any) -> str:
    return str(run_config["resources"]["experiment"]["config"]["yaml_text"])


def months(experiment: Experiment, settings: Settings) -> tuple[str, str]:
    if "bad" in experiment.dataset.source:
        raise InputError("The file is empty. Give another one.")
    return "2021-01", "2021-04"


@pytest.fixture
def home(tmp_path: Path, migrated_dsn: Secret, redis_url: Secret, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path))
    monkeypatch.setenv("TIDEMILL_POSTGRES_DSN", migrated_dsn.reveal())
    monkeypatch.setenv("TIDEMILL_REDIS_URL", redis_url.reveal())
    monkeypatch.setenv("TIDEMILL_CONNECTIONS", "2")
    (tmp_path / "inbox").mkdir()
    for name in ("good.csv", "bad.csv"):
        (tmp_path / "inbox" / name).write_text(f"symbol,date\n{name}")
        os.utime(tmp_path / "inbox" / name, (1_000_000_000, 1_000_000_000))
    return tmp_path


def test_a_tick_asks_for_a_run_of_the_range_and_one_bad_file_stops_no_other(home: Path) -> None:
    sensor = new_data_sensor(small_definitions.main, months, small_definitions.asset_selection)
    with dg.DagsterInstance.ephemeral() as instance:
        result = sensor(dg.build_sensor_context(instance=instance))
        assert isinstance(result, dg.SensorResult)
        (request,) = result.run_requests or []
        assert request.tags.items() >= range_tags(("2021-01", "2021-04")).items()
        assert f"file:{home}/inbox/good.csv" in text_of(request.run_config)
        assert set(json.loads(result.cursor or "")["files"]) == {"good.csv", "bad.csv"}
        # The request is one that the job can run, whole range and all.
        job = small_definitions.defs.resolve_job_def("main")
        selection = request.asset_selection
        assert [key.path[-1] for key in selection or []] == ["bars", "technical", "ridge"]
        made = job.execute_in_process(
            run_config=request.run_config, tags=request.tags, instance=instance, asset_selection=selection
        )
        assert made.success
        second = sensor(dg.build_sensor_context(instance=instance, cursor=result.cursor))
        assert isinstance(second, dg.SensorResult)
        assert not second.run_requests


def stored(settings: Settings, *experiments: Experiment) -> list[StoredExperiment]:
    """Rows of experiments that were run one after the other."""
    with open_workspace(settings) as opened:
        for at, experiment in enumerate(experiments):
            opened.call(record, opened.database, row_of(experiment, NOW + timedelta(minutes=at)))
    return experiments_in(settings)


def test_experiments_on_a_venue_that_go_on_are_tracked_from_their_newest_run(home: Path) -> None:
    rows = stored(load_settings(), venue(), venue(end="2020-01-01"), Experiment(name="sample", dataset=DatasetSpec()), venue())
    assert tracked_experiments(rows) == [Tracked(venue(), NOW + timedelta(minutes=3))]


def test_however_many_runs_come_after_it_an_experiment_goes_on(home: Path) -> None:
    tried = [venue(end="2020-01-01", interval=f"{minutes}m") for minutes in range(1, 60)] * 2
    rows = stored(load_settings(), venue(), *tried)
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(101):
            instance.add_run(dg.DagsterRun(job_name="main", status=dg.DagsterRunStatus.SUCCESS))
        sensor = new_data_sensor(small_definitions.main, months)
        first = sensor(dg.build_sensor_context(instance=instance))
        assert isinstance(first, dg.SensorResult)
    assert [item.experiment for item in tracked_experiments(rows)] == [venue()]
    key = hashlib.sha256(msgspec.json.encode(venue())).hexdigest()[:16]
    assert key in json.loads(first.cursor or "")["bars"]


def test_a_row_that_fits_no_longer_does_not_stop_the_others(home: Path) -> None:
    old = msgspec.structs.replace(row_of(venue("5m"), NOW), content='{"name": "old"}')
    assert [item.experiment for item in tracked_experiments([old, row_of(venue(), NOW)])] == [venue()]


def test_the_experiment_survives_the_way_through_run_config() -> None:
    text = text_of(experiment_config(venue()))
    assert msgspec.yaml.decode(text, type=Experiment) == venue()
    assert range_tags(None) == {}
