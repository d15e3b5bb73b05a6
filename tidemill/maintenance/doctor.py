"""Whether this installation can work, and for everything that is wrong, what to do about it."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from tidemill.config import Secret, Settings
from tidemill.domain.errors import TidemillError
from tidemill.embedded import servers
from tidemill.keeper import postgres as postgres_programs
from tidemill.keeper import redis as redis_programs
from tidemill.keeper.folder import SYSTEM_FOLDER, Folder, existing, home_of, is_linked
from tidemill.keeper.processes import open_lock, try_lock

if TYPE_CHECKING:
    from tidemill.storage.postgres import Database

T = TypeVar("T")

LEAST_DISK = 1_000_000_000
MOST_CLOCK_DIFFERENCE = 1.0
_REINSTALL = "Remove .venv and run scripts/run again."
# That a home is not there now does not say that it was deleted: its disk may not be mounted, or a container may have it.
_ASIDE = (
    "A home that was moved takes its own along at its next command, and one that comes back with its disk needs it. "
    "Only those of homes that you deleted are of no use; look at each before you delete it."
)
_OURS = ("tidemill", "dagster", "jupyter")


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at. advice: what mends it; beside `ok`, what may be done, mostly empty."""

    name: str
    ok: bool
    detail: str
    advice: str = ""


def examine(settings: Settings) -> list[Finding]:
    """Look at everything, in the order in which one thing needs another. Starts the embedded servers if they do not run.

    Never raises for what it finds: a check that fails is a Finding.
    """
    findings = [check(settings) for check in _CHECKS]
    findings += [_port(name, port) for name, port in _ports(settings)]
    return [*findings, *_servers(settings)]


def _settings(_: Settings) -> Finding:
    """Where the settings come from; those that are wrong never come here."""
    named = os.environ.get("TIDEMILL_CONFIG") or "tidemill.yaml"
    return Finding("settings", True, named if Path(named).is_file() else "no file; defaults and TIDEMILL_ variables")


def _python(_: Settings) -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if version.startswith("3.11."):
        return Finding("python", True, version)
    return Finding(
        "python", False, f"{version}, but tidemill needs 3.11", "Install Python 3.11, remove .venv, and run scripts/run."
    )


def _home(settings: Settings) -> Finding:
    probe = settings.home / f".doctor.{os.getpid()}"
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as exc:
        return Finding("home", False, f"{settings.home}: {exc.strerror}", "Correct its permissions, or set TIDEMILL_HOME.")
    return Finding("home", True, str(settings.home))


def _disk(settings: Settings) -> Finding:
    """The home, the lake and the database may lie on disks of their own."""
    folder = existing(settings.home)
    places = {_nearest(settings.home), _nearest(settings.lake), *([folder.root] if folder else [])}
    free, place = min((shutil.disk_usage(place).free, str(place)) for place in places)
    detail = f"{free / 1e9:.1f} GB free at {place}"
    if free >= LEAST_DISK:
        return Finding("disk", True, detail)
    return Finding(
        "disk", False, detail, f"Free at least {LEAST_DISK / 1e9:.0f} GB there, or set TIDEMILL_HOME to another disk."
    )


def _nearest(path: Path) -> Path:
    """The path itself or the next folder above that exists."""
    return path if path.exists() or path == path.parent else _nearest(path.parent)


def _postgres_programs(settings: Settings) -> Finding:
    if settings.postgres_dsn is not None:
        return Finding("postgres programs", True, "not needed: TIDEMILL_POSTGRES_DSN is set")
    return _found("postgres programs", postgres_programs.wheel)


def _redis_programs(settings: Settings) -> Finding:
    if settings.redis_url is not None:
        return Finding("redis programs", True, "not needed: TIDEMILL_REDIS_URL is set")
    return _found("redis programs", lambda: Path(shutil.which("redis-server") or redis_programs.wheel()))


def _found(name: str, find: Callable[[], Path]) -> Finding:
    try:
        return Finding(name, True, str(find()))
    except TidemillError as exc:
        return Finding(name, False, str(exc), _REINSTALL)


def _lightgbm(_: Settings) -> Finding:
    """Its library needs the system's OpenMP, which a bare Debian does not have."""
    folder = _package("lightgbm")
    libraries = sorted(folder.glob("lib/lib_lightgbm.*")) if folder else []
    if not libraries:
        return Finding("lightgbm", False, "it is not installed", _REINSTALL)
    try:
        ctypes.CDLL(str(libraries[0]))
    except OSError as exc:
        advice = "Install OpenMP: `apt-get install libgomp1` (Debian, Ubuntu) or `brew install libomp` (macOS)."
        return Finding("lightgbm", False, str(exc), advice)
    return Finding("lightgbm", True, "its library loads")


def _torch(_: Settings) -> Finding:
    """Read from its version file: to import it takes more than a second."""
    folder = _package("torch")
    if folder is None or not (folder / "version.py").is_file():
        return Finding("torch", False, "it is not installed", _REINSTALL)
    text = (folder / "version.py").read_text(encoding="utf-8")
    version = re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE)
    cuda = re.search(r"^cuda[^=]*= '([^']+)'", text, re.MULTILINE)
    detail = f"{version[1] if version else 'unknown version'}, {f'CUDA {cuda[1]}' if cuda else 'CPU'} build"
    if cuda and not Path("/dev/nvidia0").exists():
        advice = (
            "It works, and wastes gigabytes: set TIDEMILL_TORCH_INDEX to PyTorch's CPU index, remove .venv, run scripts/run."
        )
        return Finding("torch", True, f"{detail} on a machine without a GPU. {advice}")
    return Finding("torch", True, detail)


def _clock(_: Settings) -> Finding:
    """A clock in the past would make bars that have closed look open."""
    newest = max(path.stat().st_mtime for path in Path(__file__).parent.parent.rglob("*.py"))
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if time.time() < newest - 60:
        return Finding("clock", False, f"{shown} is before this program was written", "Set the system clock (`timedatectl`).")
    return Finding("clock", True, shown)


def _leftovers(settings: Settings) -> Finding:
    """Locks and pids of processes that are gone, and data that no home leads to now."""
    folder = existing(settings.home)
    aside = _unlinked(folder) if os.geteuid() == 0 else []  # only root puts data there, and may look at them
    if aside:
        homes = ", ".join(f"{path} of {home_of(path)}" for path in aside)
        return Finding("leftovers", True, f"{len(aside)} databases whose homes are not where they were: {homes}", _ASIDE)
    state = folder.state() if folder else None
    if folder is None or state is None or state.keeper.alive() or not any(s.process.alive() for s in state.running.values()):
        return Finding("leftovers", True, "none")
    with closing(_Lock(folder.keeper)) as lock:
        if not lock.free:
            detail = f"another machine or container uses {folder.root}"
            return Finding("leftovers", False, detail, "Stop it there, or set TIDEMILL_HOME to another folder here.")
    return Finding("leftovers", True, "servers run whose keeper was killed; the next command takes them over")


def _stored(settings: Settings) -> Finding:
    """Checksums of all but the lake's rows and models' weights: there sizes are compared, and `data repair` reads them."""
    from tidemill.maintenance.repair import damage_at_a_glance

    wrong = damage_at_a_glance(settings)
    if not wrong:
        return Finding("stored data", True, "whole at a glance")
    return Finding("stored data", False, f"{len(wrong)} damaged, the first: {wrong[0]}", "Run `tidemill data repair`.")


def _unlinked(own: Folder | None) -> list[Path]:
    """Data to which no home leads. own: what the home that is looked at uses, whether or not it was moved lately."""
    found = [path for path in sorted(SYSTEM_FOLDER.glob("*")) if (path / "postgres").is_dir() and not is_linked(path)]
    return [path for path in found if own is None or path.resolve() != own.root]


class _Lock:
    """Looks whether a lock is free."""

    def __init__(self, path: Path) -> None:
        self._descriptor = open_lock(path)
        self.free = try_lock(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def _ports(settings: Settings) -> Iterator[tuple[str, int]]:
    yield "TIDEMILL_WEBSERVER_PORT", settings.webserver_port
    yield "TIDEMILL_JUPYTER_PORT", settings.jupyter_port


def _port(variable: str, port: int) -> Finding:
    """Whether `tidemill up` can listen there, or does already."""
    name = f"port {port}"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            command = _listener(port)
            owner = " ".join(command)[:120] or "another user's process"
            if any(Path(word).name.startswith(_OURS) for word in command):
                return Finding(name, True, f"in use by {owner}")
            return Finding(name, False, f"{exc.strerror} ({owner})", f"Stop what uses it, or set {variable} to another port.")
    return Finding(name, True, "free")


def _listener(port: int) -> list[str]:
    """Command line of who listens on a port; empty when this user may not see it."""
    import psutil

    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            where = connection.laddr
            if where and where[1] == port and connection.status == psutil.CONN_LISTEN and connection.pid:
                return psutil.Process(connection.pid).cmdline()
    return []


def _servers(settings: Settings) -> list[Finding]:
    """Both servers, attached to or started."""
    begun = time.perf_counter()
    try:
        with servers(settings) as found:
            attached = (time.perf_counter() - begun) * 1_000
            how = f"attached in {attached:.0f} ms" if found.embedded else "from the settings"
            return [
                Finding("servers", True, how),
                _ask("postgres", _postgres, found.postgres_dsn, settings),
                _ask("redis", _redis, found.redis_url, settings),
                _ask("trials", _trials, found.postgres_dsn, settings),
            ]
    except TidemillError as exc:
        return [
            Finding("servers", False, str(exc), "Do what it says; more is in the logs of the folder `servers` in the home.")
        ]


def _ask(name: str, question: Callable[[Secret, Settings], Finding], address: Secret, settings: Settings) -> Finding:
    try:
        return question(address, settings)
    except TidemillError as exc:
        variable = "TIDEMILL_POSTGRES_DSN" if name == "postgres" else "TIDEMILL_REDIS_URL"
        return Finding(name, False, str(exc), f"Start that server, correct {variable}, or unset it to use the embedded one.")


def _postgres(dsn: Secret, settings: Settings) -> Finding:
    """Its version, clock, schema, and the time of one question."""

    async def ask(database: Database) -> tuple[str, float, float, list[int]]:
        version = await database.fetchval("SHOW server_version")
        begun = time.perf_counter()
        ahead = float(await database.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")) - time.time()
        taken = (time.perf_counter() - begun) * 1_000
        known = await database.fetchval("SELECT to_regclass('schema_migrations')::text")
        rows = await database.fetch("SELECT number FROM schema_migrations") if known else []
        return str(version), ahead, taken, [int(row[0]) for row in rows]

    return _judged(*_answer(dsn, settings, ask))


def _judged(version: str, ahead: float, taken: float, applied: list[int]) -> Finding:
    from tidemill.storage.migrations import migrations

    newest = len(migrations())
    schema = f"schema {max(applied)} of {newest}" if applied else "no tables yet"
    detail = f"{version}, {schema}, {taken:.1f} ms a question"
    if applied and max(applied) > newest:
        return Finding("postgres", False, detail, "A newer tidemill made this database: update this one.")
    if abs(ahead) > MOST_CLOCK_DIFFERENCE:
        return Finding(
            "postgres", False, f"{detail}, its clock is off by {ahead:+.1f} s", "Set both machines' clocks (`timedatectl`)."
        )
    return Finding("postgres", True, detail)


def _trials(dsn: Secret, settings: Settings) -> Finding:
    """Whether the returns of the trials that were counted are there."""
    from tidemill.storage.lake import Lake
    from tidemill.storage.trials import is_stored, return_series

    lake, found = Lake(settings.lake), _answer(dsn, settings, return_series)
    lost = sum(trials for family, reference, trials in found if not is_stored(lake, family, reference))
    if not lost:
        return Finding("trials", True, f"{sum(trials for _, _, trials in found):,} with their returns")
    advice = "Run what made them again; where its data changed since, their Sharpe ratios stay and have no interval."
    return Finding("trials", True, f"{lost:,} without their returns (`tidemill trials compare` names them)", advice)


def _answer(dsn: Secret, settings: Settings, question: Callable[[Database], Awaitable[T]]) -> T:
    """What Postgres answers on a connection of its own."""
    from tidemill.storage.postgres import Database
    from tidemill.study.workspace import LoopThread

    async def ask() -> T:
        database = await Database.connect(dsn, connections=1, timeout=settings.database_timeout)
        try:
            return await question(database)
        finally:
            await database.close()

    loop = LoopThread()
    try:
        return loop.call(ask)
    finally:
        loop.close()


def _redis(url: Secret, settings: Settings) -> Finding:
    import redis

    try:
        with redis.Redis.from_url(url.reveal(), socket_timeout=settings.database_timeout) as client:
            about = client.info("server")
            begun = time.perf_counter()
            client.ping()
            taken = (time.perf_counter() - begun) * 1_000
    except (redis.RedisError, OSError, ValueError) as exc:
        advice = "Start it, correct TIDEMILL_REDIS_URL, or unset that to use the embedded one. Until then everything is slower."
        return Finding("redis", False, f"it does not answer: {str(exc).splitlines()[0]}", advice)
    version = about.get("valkey_version") or about.get("redis_version")
    return Finding("redis", True, f"{version}, {taken:.1f} ms a question")


def _package(name: str) -> Path | None:
    """Folder of an installed package; found without importing it."""
    spec = importlib.util.find_spec(name)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None


_CHECKS: tuple[Callable[[Settings], Finding], ...] = (
    _settings,
    _python,
    _home,
    _disk,
    _postgres_programs,
    _redis_programs,
    _lightgbm,
    _torch,
    _clock,
    _leftovers,
    _stored,
)
