"""Calling commands in this process, against a database of the test's own on the shared servers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest

from tests.study.panels import daily_bars
from tidemill.cli.main import main
from tidemill.config import Secret


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line that a failure says, once it is sure that it failed as it should."""
        assert self.code == 1, self
        assert self.out == ""
        assert self.err.startswith("Error: ")
        assert self.err.count("\n") == 1
        assert "defect" not in self.err
        return self.err.removeprefix("Error: ").rstrip("\n")


Tidemill = Callable[..., Answer]


@pytest.fixture
def tidemill(capsys: pytest.CaptureFixture[str]) -> Tidemill:
    """`tidemill("data", "show", "AAPL")` calls the command line and gives exit code, stdout and stderr."""

    def call(*arguments: object) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return Answer(stopped.value.code, out, err)

    return call


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder; no settings but the defaults, a home inside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TIDEMILL_LOG_LEVEL", "warning")
    return tmp_path


@pytest.fixture
def home(work: Path, migrated_dsn: Secret, redis_url: Secret, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`work` with an empty database and the shared Redis in force."""
    monkeypatch.setenv("TIDEMILL_POSTGRES_DSN", migrated_dsn.reveal())
    monkeypatch.setenv("TIDEMILL_REDIS_URL", redis_url.reveal())
    monkeypatch.setenv("TIDEMILL_CONNECTIONS", "4")
    return work


@pytest.fixture(scope="session")
def panel() -> pl.DataFrame:
    """120 days of two symbols."""
    return daily_bars(120, ("AAA", "BBB"))


@pytest.fixture
def panel_file(work: Path, panel: pl.DataFrame) -> Path:
    path = work / "panel.csv"
    panel.write_csv(path)
    return path
