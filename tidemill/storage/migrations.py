"""Numbered SQL files, applied in order, each in a transaction, each once.

`schema_migrations` keeps the checksum of every file that was applied. A file that was changed afterwards, or is missing, is an
IntegrityError: history is corrected by a new file. Processes that migrate at the same time take turns by an advisory lock.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tidemill.domain.errors import IntegrityError, UnavailableError
from tidemill.storage.postgres import Connection, Database

FOLDER = Path(__file__).resolve().parent / "migrations"
_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_LOCK = 7_464_643_105  # any constant that nobody else uses
_PATIENCE = 60.0
_POLL = 0.05

_RECORD = "INSERT INTO schema_migrations (number, name, checksum) VALUES ($1, $2, $3)"
_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    number integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now()
)
"""


class Migration(msgspec.Struct, frozen=True):
    """One file: its number, name, text and the SHA-256 of its text."""

    number: int
    name: str
    sql: str
    checksum: str


def migrations(folder: Path = FOLDER) -> list[Migration]:
    """The files of `folder` by number. IntegrityError when a name is wrong or a number is missing or doubled."""
    found = []
    for path in sorted(folder.glob("*.sql")):
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise IntegrityError(f"{path.name} is not the name of a migration. Name it like 0002_what_it_does.sql.")
        text = path.read_text(encoding="utf-8")
        found.append(Migration(int(match[1]), path.stem, text, hashlib.sha256(text.encode()).hexdigest()))
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise IntegrityError(f"The migrations in {folder} are not numbered 1, 2, 3 … without gaps. Rename them.")
    return found


async def migrate(database: Database, folder: Path = FOLDER) -> list[str]:
    """Apply what is missing; returns the names applied now. Nothing to do costs two short queries.

    Raises IntegrityError when a file that was applied has changed or vanished, UnavailableError when another process migrates
    for more than a minute.
    """
    wanted = migrations(folder)
    done = await _recorded(database)
    _verify(done, wanted)
    return [
        migration.name for migration in wanted if migration.number not in done and await _apply(database, migration, wanted)
    ]


async def _recorded(connection: Database | Connection) -> dict[int, str]:
    """Checksums of the applied migrations by number."""
    if await connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
        return {}
    return {row["number"]: row["checksum"] for row in await connection.fetch("SELECT number, checksum FROM schema_migrations")}


def _verify(done: Mapping[int, str], wanted: Sequence[Migration]) -> None:
    known = {migration.number: migration for migration in wanted}
    for number, checksum in done.items():
        if number not in known:
            raise IntegrityError(
                f"The database was made by a newer Tidemill (migration {number:04d}). Update this installation."
            )
        if known[number].checksum != checksum:
            raise IntegrityError(
                f"Migration {known[number].name} was changed after it was applied. Restore the file and add a new one."
            )


async def _apply(database: Database, migration: Migration, wanted: Sequence[Migration]) -> bool:
    """Apply one file under the lock; False when another process did so meanwhile."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        async with database.transaction() as connection:
            if await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _LOCK):
                await connection.execute(_TABLE)
                done = await _recorded(connection)
                _verify(done, wanted)
                if migration.number in done:
                    return False
                await connection.execute(migration.sql)
                await connection.execute(_RECORD, migration.number, migration.name, migration.checksum)
                return True
        await asyncio.sleep(_POLL)
    raise UnavailableError("Another process has been migrating the database for a minute. Wait until it ends, then try again.")
