import io
import json
from collections.abc import Iterator

import pytest
import structlog

from tidemill import telemetry
from tidemill.config import Secret
from tidemill.domain.errors import ConfigError


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    telemetry.configure("info", json=True, stream=stream)
    yield stream
    structlog.reset_defaults()


def test_a_line_is_json_with_level_time_component_and_correlation_id(lines: io.StringIO) -> None:
    with telemetry.correlated("run-7"):
        telemetry.logger("tidemill.x").info("stored", rows=3)
    line = json.loads(lines.getvalue())
    assert {key: line[key] for key in ("event", "level", "component", "rows", "correlation_id")} == {
        "event": "stored",
        "level": "info",
        "component": "tidemill.x",
        "rows": 3,
        "correlation_id": "run-7",
    }
    assert line["timestamp"].endswith("Z")


def test_below_its_level_nothing_is_written(lines: io.StringIO) -> None:
    telemetry.logger("tidemill.x").debug("detail")
    assert lines.getvalue() == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("password", "hunter2"),
        ("api_key", "hunter2"),
        ("Authorization", "Bearer hunter2"),
        ("refresh_token", ["hunter2"]),
        ("postgres_dsn", "hunter2"),
        ("anything", Secret("hunter2")),
        ("address", "postgresql://tidemill:hunter2@127.0.0.1:5432/x"),
        ("nested", {"deep": {"client_secret": "hunter2"}}),
        ("listed", ["redis://:hunter2@host/0"]),
    ],
)
def test_secrets_are_masked_by_name_by_type_and_in_addresses(lines: io.StringIO, name: str, value: object) -> None:
    telemetry.logger("tidemill.x").info("connected", **{name: value})
    assert "hunter2" not in lines.getvalue()
    assert "***" in lines.getvalue()


def test_an_address_in_a_traceback_is_masked(lines: io.StringIO) -> None:
    try:
        raise ValueError("postgresql://tidemill:hunter2@host/x")
    except ValueError:
        telemetry.logger("tidemill.x").exception("failed")
    assert "ValueError" in lines.getvalue()
    assert "hunter2" not in lines.getvalue()


def test_the_correlation_id_is_gone_outside_and_nests() -> None:
    assert telemetry.correlation_id() == ""
    with telemetry.correlated() as outer:
        assert len(outer) == 16
        with telemetry.correlated("inner"):
            assert telemetry.correlation_id() == "inner"
        assert telemetry.correlation_id() == outer
    assert telemetry.correlation_id() == ""


def test_an_unknown_level_is_a_setting_to_correct() -> None:
    with pytest.raises(ConfigError, match="debug, info, warning"):
        telemetry.configure("loud")


def test_without_set_up_lines_go_to_stderr_and_never_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    structlog.reset_defaults()
    telemetry.logger("tidemill.x").warning("careful")
    told = capsys.readouterr()
    assert told.out == ""
    assert "careful" in told.err
    structlog.reset_defaults()


def test_for_people_a_line_is_plain_text() -> None:
    stream = io.StringIO()
    telemetry.configure("warning", json=False, stream=stream)
    telemetry.logger("tidemill.x").warning("careful", rows=3)
    structlog.reset_defaults()
    assert "careful" in stream.getvalue()
    assert "rows=3" in stream.getvalue()
