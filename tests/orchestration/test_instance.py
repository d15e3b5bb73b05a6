import os
from pathlib import Path

import pytest
import yaml
from dagster import DagsterInstance

from orchestration.instance import PROJECT, dagster_home, environment, instance, prepare_home
from tidemill.config import Secret, Settings
from tidemill.domain.errors import ConfigError, StopError, UnavailableError
from tidemill.embedded import Servers


def test_no_file_of_the_home_holds_the_password_and_none_is_readable_by_others(
    opened: DagsterInstance, settings: Settings
) -> None:
    opened.get_runs_count()
    password = settings.postgres_dsn.reveal().split("@")[0].rpartition(":")[2]
    files = [path for path in dagster_home(settings).rglob("*") if path.is_file()]
    assert [path for path in files if password.encode() in path.read_bytes()] == []
    assert [path for path in files if path.name == "dagster.yaml" and path.stat().st_mode & 0o077] == []


def test_a_changed_configuration_in_the_home_is_put_right_at_the_next_start(settings: Settings) -> None:
    written = prepare_home(settings) / "dagster.yaml"
    written.write_text("telemetry: {enabled: true}\n")
    prepare_home(settings)
    assert yaml.safe_load(written.read_text()) == yaml.safe_load((PROJECT / "dagster.yaml").read_text())


def test_the_environment_of_the_process_is_as_before_afterwards(settings: Settings, own_servers: Servers) -> None:
    before = dict(os.environ)
    with instance(settings, own_servers):
        assert Path(os.environ["DAGSTER_HOME"]) == dagster_home(settings)
    assert dict(os.environ) == before


def test_nothing_is_sent_to_anybody(opened: DagsterInstance, settings: Settings, own_servers: Servers) -> None:
    from dagster._core.telemetry_upload import is_running_in_test

    assert not opened.telemetry_enabled
    # Dagster sends DAGSTER_HOME/logs whatever the configuration says, unless this variable is set.
    assert is_running_in_test()
    values = environment(settings, own_servers)
    assert values["GX_ANALYTICS_ENABLED"] == "false"
    assert dagster_home(settings) / "logs" not in [Path(value) for value in values.values()]


def test_an_unreachable_postgres_is_said_in_a_sentence(tmp_path: Path) -> None:
    nobody = Servers(
        postgres_dsn=Secret("postgresql://u:p@127.0.0.1:1/d"), redis_url=Secret("redis://127.0.0.1:1/0"), embedded=False
    )
    with pytest.raises(UnavailableError, match="Postgres did not answer"), instance(Settings(home=tmp_path), nobody):
        pytest.fail("there is no server")


def test_a_home_that_cannot_be_written_and_a_lost_configuration_are_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StopError, match="cannot be written"):
        prepare_home(Settings(home=tmp_path / "file"))
    with pytest.raises(ConfigError, match="cannot be read"):
        prepare_home(Settings(home=tmp_path), source=tmp_path / "none.yaml")
