"""Numbered files, each applied once and never changed afterwards."""

import asyncio
import shutil
from pathlib import Path

import pytest

from tidemill.config import Secret
from tidemill.domain.errors import IntegrityError, TidemillError
from tidemill.domain.market import Instrument
from tidemill.storage.bars import BarStore
from tidemill.storage.migrations import FOLDER, migrate, migrations
from tidemill.storage.postgres import Database

TABLES = """
instruments bars quarantine gaps adjustments models trials predictions signals positions equity config_versions check_verdicts
experiments deciders
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE first (a int);")
    (tmp_path / "0002_second.sql").write_text("CREATE TABLE second (a int); INSERT INTO second VALUES (1);")
    return tmp_path


async def test_the_tables_of_the_design_exist_after_the_shipped_migrations(fresh_dsn: Secret) -> None:
    database = await Database.connect(fresh_dsn)
    assert await migrate(database) == [migration.name for migration in migrations()]
    assert await migrate(database) == []
    found = {row["tablename"] for row in await database.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
    assert set(TABLES.split()) <= found
    await database.close()


async def test_instruments_of_an_earlier_home_keep_their_calendar_as_if_it_had_been_named(
    fresh_dsn: Secret, tmp_path: Path
) -> None:
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    for migration in migrations()[:11]:
        shutil.copy(FOLDER / f"{migration.name}.sql", earlier)
    database = await Database.connect(fresh_dsn)
    await migrate(database, earlier)
    row = "('file', 'KO', '24/7', '', 'USD', false, 0, 0, 0, 0, NULL, NULL)"
    await database.execute(f"INSERT INTO instruments VALUES {row}")
    assert await migrate(database) == [migration.name for migration in migrations()[11:]]
    (held,) = await BarStore(database).read_instruments("file")
    assert held == Instrument(venue="file", symbol="KO", calendar="24/7", calendar_inferred=False)
    await database.close()


async def test_only_what_is_missing_is_applied(database: Database, folder: Path) -> None:
    await database.execute("DROP TABLE schema_migrations")
    assert await migrate(database, folder) == ["0001_first", "0002_second"]
    (folder / "0003_third.sql").write_text("CREATE TABLE third ();")
    assert await migrate(database, folder) == ["0003_third"]


async def test_a_file_changed_after_it_was_applied_is_an_error(database: Database, folder: Path) -> None:
    await database.execute("DROP TABLE schema_migrations")
    await migrate(database, folder)
    (folder / "0001_first.sql").write_text("CREATE TABLE first (a bigint);")
    with pytest.raises(IntegrityError, match="0001_first was changed"):
        await migrate(database, folder)


async def test_a_database_of_a_newer_version_is_refused(database: Database, folder: Path) -> None:
    await database.execute("DROP TABLE schema_migrations")
    await migrate(database, folder)
    (folder / "0002_second.sql").unlink()
    with pytest.raises(IntegrityError, match="newer"):
        await migrate(database, folder)


async def test_a_migration_that_fails_leaves_nothing_of_itself(database: Database, folder: Path) -> None:
    await database.execute("DROP TABLE schema_migrations")
    (folder / "0003_third.sql").write_text("CREATE TABLE third (a int); SELECT 1/0;")
    with pytest.raises(TidemillError):
        await migrate(database, folder)
    assert await database.fetchval("SELECT to_regclass('third')") is None
    assert await database.fetchval("SELECT max(number) FROM schema_migrations") == 2
    (folder / "0003_third.sql").write_text("CREATE TABLE third (a int);")
    assert await migrate(database, folder) == ["0003_third"]


async def test_processes_that_migrate_at_once_apply_each_file_once(fresh_dsn: Secret) -> None:
    databases = [await Database.connect(fresh_dsn) for _ in range(4)]
    applied = await asyncio.gather(*(migrate(database) for database in databases))
    assert sorted(name for names in applied for name in names) == [migration.name for migration in migrations()]
    await asyncio.gather(*(database.close() for database in databases))


@pytest.mark.parametrize("name", ["0003_no.sql", "0001_again.sql", "two.sql", "0003-x.sql"])
def test_names_that_break_the_order_are_refused(tmp_path: Path, name: str) -> None:
    shutil.copy(FOLDER / "0001_market_data.sql", tmp_path / "0001_market_data.sql")
    (tmp_path / name).write_text("")
    with pytest.raises(IntegrityError):
        migrations(tmp_path)
