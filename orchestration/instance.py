"""Dagster's instance for one home: its folder, its configuration, and the environment in which Dagster's processes run.

`dagster.yaml` at the repository root is the source; each start copies it into `<home>/dagster`, which is DAGSTER_HOME. It names
variables instead of addresses, so no file holds a password.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dagster import DagsterInstance
from dagster._core.instance.ref import InstanceRef
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import SQLAlchemyError

from orchestration.storage import dagster_dsn
from tidemill.config import Settings
from tidemill.domain.errors import ConfigError, StopError, UnavailableError
from tidemill.durable import write_file
from tidemill.embedded import Servers

PROJECT = Path(__file__).resolve().parent.parent
# Events of one asset's partitions go to the event log in one statement of at most so many rows.
EVENT_BATCH = 1000
# A run in the caller's process must not have its output taken away: the caller prints results and progress.
_NO_CAPTURE = {"compute_logs": {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}}


def dagster_home(settings: Settings) -> Path:
    """DAGSTER_HOME of this home."""
    return settings.home / "dagster"


def prepare_home(settings: Settings, source: Path = PROJECT / "dagster.yaml") -> Path:
    """Make the folder and put the configuration into it, whole or not at all. Returns DAGSTER_HOME.

    Raises ConfigError when `source` is missing, StopError when the home cannot be written.
    """
    try:
        text = source.read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"{source} cannot be read. Restore it from the repository.") from exc
    folder = dagster_home(settings)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(folder / "dagster.yaml", f"# Written at each start from {source}; changes here are lost.\n{text}")
    except OSError as exc:
        raise StopError(
            f"{folder} cannot be written ({exc.strerror}). Free space there or set TIDEMILL_HOME to another folder."
        ) from exc
    return folder


def _replace(target: Path, text: str) -> None:
    if target.is_file() and target.read_text(encoding="utf-8") == text:
        return
    write_file(target, text.encode(), mode=0o600)


def environment(settings: Settings, servers: Servers, *, flushed: bool = True) -> dict[str, str]:
    """Variables of every process that works with this home: Dagster's own, and ours with the addresses of the servers.

    flushed: see `dagster_dsn`; of Dagster's tables alone.
    """
    home = dagster_home(settings)
    return {
        "DAGSTER_HOME": str(home),
        "TIDEMILL_DAGSTER_DSN": dagster_dsn(servers.postgres_dsn, flushed=flushed).reveal(),
        "TIDEMILL_DAGSTER_OUTPUT": str(home / "output"),
        # `telemetry: {enabled: false}` stops the recording; only this stops the thread that sends whatever lies in
        # DAGSTER_HOME/logs. Nothing of ours is written there either.
        "DAGSTER_DISABLE_TELEMETRY": "yes",
        "DAGSTER_EVENT_BATCH_SIZE": str(EVENT_BATCH),
        "TIDEMILL_HOME": str(settings.home),
        "TIDEMILL_POSTGRES_DSN": servers.postgres_dsn.reveal(),
        "TIDEMILL_REDIS_URL": servers.redis_url.reveal(),
        "GX_ANALYTICS_ENABLED": "false",
    }


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """This process's environment with `values`, until the block is left."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def instance(settings: Settings, servers: Servers, *, flushed: bool = True) -> Iterator[DagsterInstance]:
    """The instance of this home, opened in this process, which has its environment inside the block.

    flushed: False for a run that ends with this process: 400 waits for the disk protect a log that nobody continues. Raises
    UnavailableError when Postgres does not answer.
    """
    folder = prepare_home(settings)
    with variables(environment(settings, servers, flushed=flushed)):
        opened = _open(folder)
        try:
            yield opened
        finally:
            opened.__exit__(None, None, None)


def _open(folder: Path) -> DagsterInstance:
    try:
        return DagsterInstance.from_ref(InstanceRef.from_dir(str(folder), overrides=_NO_CAPTURE)).__enter__()
    except (DagsterPostgresException, SQLAlchemyError) as exc:
        raise UnavailableError("Postgres did not answer when Dagster's tables were opened. Run `tidemill doctor`.") from exc
