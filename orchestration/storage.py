"""Dagster's Postgres storage with a connection pool.

The stock storage opens a connection for every operation, which is most of what an asset costs. Here the run, event log and
schedule storages of a process share one pool, and what a run over many partitions plans is one event per asset instead of one
per partition (docs/decisions/0014-pooled-dagster-storage.md).
"""

import os
import select
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Self
from weakref import WeakSet

import sqlalchemy
from dagster import DagsterEventType, EventLogEntry
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.migration import ASSET_KEY_INDEX_COLS
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, AssetKeyTable, SqlEventLogStorageTable
from dagster._serdes import ConfigurableClassData, serialize_value
from dagster_postgres import DagsterPostgresStorage, PostgresEventLogStorage, PostgresRunStorage, PostgresScheduleStorage
from dagster_postgres.utils import pg_url_from_config
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError

from tidemill.config import Secret
from tidemill.domain.errors import ConfigError

SCHEMA = "dagster"
KEPT_CONNECTIONS, MOST_CONNECTIONS = 2, 10
# Any constant does, as long as nobody else locks it: serialises the creation of tables by processes that start together.
_CREATION_LOCK = 7_411_030
_PLANNED = {DagsterEventType.ASSET_MATERIALIZATION_PLANNED, DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED}


def dagster_dsn(dsn: Secret, schema: str = SCHEMA, *, flushed: bool = True) -> Secret:
    """`dsn` with `schema` as its search path, so that Dagster's tables and ours share one database without meeting.

    flushed: False does not wait for the disk at each commit: a crash of the server takes the last 0.6 s of the log with it,
    never something in between. Raises ConfigError when `dsn` is not a Postgres address.
    """
    try:
        url = make_url(dsn.reveal())
    except ArgumentError as exc:
        raise ConfigError(
            "TIDEMILL_POSTGRES_DSN is not an address. It has the form postgresql://user:password@host:port/database."
        ) from exc
    wait = "" if flushed else "-csynchronous_commit=off"
    options = " ".join(filter(None, (_option(url), f"-csearch_path={schema}", wait)))
    url = url.set(drivername="postgresql").update_query_dict({"options": options})
    return Secret(url.render_as_string(hide_password=False))


def _option(url: URL) -> str:
    options = url.query.get("options", "")
    return options if isinstance(options, str) else " ".join(options)


class Pool:
    """One engine for the three storages of a process. Connections are checked before use, so a restarted server is no error.

    The check asks the socket, not the server: one that was closed at the other end has something to read, and a statement to
    find that out would be every second one.
    """

    def __init__(self, url: str) -> None:
        self.engine = sqlalchemy.create_engine(
            url,
            isolation_level="AUTOCOMMIT",
            pool_size=KEPT_CONNECTIONS,
            max_overflow=MOST_CONNECTIONS - KEPT_CONNECTIONS,
            pool_use_lifo=True,
        )
        sqlalchemy.event.listen(self.engine, "checkout", _check)
        self._statement_timeout: int | None = None
        _POOLS.add(self)

    def limit_statements(self, milliseconds: int) -> None:
        """Connections opened from now on give up a statement after so long; those at hand are replaced."""
        if self._statement_timeout is None:
            sqlalchemy.event.listen(self.engine, "connect", self._set_timeout)
        self._statement_timeout = milliseconds
        self.engine.dispose()

    def _set_timeout(self, connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('statement_timeout', %s, false)", (str(self._statement_timeout),))

    def close(self) -> None:
        self.engine.dispose()

    def forget(self) -> None:
        """Drop connections without closing them: they belong to the parent of this forked process."""
        self.engine.dispose(close=False)


def _check(connection: Any, _record: object, _proxy: object) -> None:
    """An idle connection has nothing to read, unless its server ended it: then the pool opens another.

    What a server says unasked (a notice, a changed setting) looks the same, is rare, and costs a new connection.
    """
    watch = select.poll()  # unlike `select`, it takes any number of open files
    watch.register(connection.fileno(), select.POLLIN)
    if watch.poll(0):
        raise sqlalchemy.exc.DisconnectionError


_POOLS: WeakSet[Pool] = WeakSet()


def _forget_connections() -> None:
    for pool in list(_POOLS):
        pool.forget()


os.register_at_fork(after_in_child=_forget_connections)


class _OnPool:
    """What the three storages have in common: the stock constructor without its look at the tables, then the shared engine."""

    _engine: sqlalchemy.Engine

    def __init__(self, postgres_url: str, pool: Pool) -> None:
        super().__init__(postgres_url, should_autocreate_tables=False)  # type: ignore[call-arg]  # the stock storage beside this mixin
        self._pool, self._engine = pool, pool.engine

    def optimize_for_webserver(self, statement_timeout: int, pool_recycle: int, max_overflow: int) -> None:
        """Take the timeout (milliseconds) only: the stock storages make an engine of their own here, ours has its pool."""
        self._pool.limit_statements(statement_timeout)

    def dispose(self) -> None:
        super().dispose()  # type: ignore[misc]  # as above
        self._pool.close()


class PooledRunStorage(_OnPool, PostgresRunStorage):
    """Run storage on a shared pool. Columns that a migration adds to the runs are asked for until they are there."""

    _has_run_stats = False

    def has_run_stats_index_cols(self) -> bool:
        self._has_run_stats = self._has_run_stats or super().has_run_stats_index_cols()
        return self._has_run_stats


class PooledScheduleStorage(_OnPool, PostgresScheduleStorage):
    """Schedule storage on a shared pool."""


class PooledEventLogStorage(_OnPool, PostgresEventLogStorage):
    """Event log on a shared pool. What is asked at every event of a schema that does not change while open is asked once."""

    def store_event(self, event: EventLogEntry) -> None:
        """As every SQL storage does: Postgres' own also notifies watchers of old versions, a commit more for each event."""
        SqlEventLogStorage.store_event(self, event)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """What a run plans in one statement for each table, instead of two for each event; all other batches as ever."""
        if not events or not {event.dagster_event_type for event in events} <= _PLANNED:
            super().store_event_batch(events)
            return
        with self.index_transaction() as connection:
            stored = connection.execute(self.prepare_insert_event_batch(events).returning(SqlEventLogStorageTable.c.id))
            numbered = [(event, event_id) for event, (event_id,) in zip(events, stored.fetchall(), strict=True)]
            indexed = self.has_secondary_index(ASSET_KEY_INDEX_COLS)
            assets = {
                event.dagster_event.asset_key.to_string(): self._get_asset_entry_values(event, event_id, indexed)
                for event, event_id in numbered
                if event.dagster_event and event.dagster_event.asset_key
            }
            if assets:
                upsert = postgresql.insert(AssetKeyTable).values([{"asset_key": key, **row} for key, row in assets.items()])
                changed = {name: upsert.excluded[name] for name in next(iter(assets.values()))}
                connection.execute(upsert.on_conflict_do_update(index_elements=["asset_key"], set_=changed))
            checks = [row for event, event_id in numbered for row in self._planned_check(event, event_id)]
            if checks:
                connection.execute(AssetCheckExecutionsTable.insert(), checks)

    def _planned_check(self, event: EventLogEntry, event_id: int) -> Iterator[dict[str, object]]:
        planned = event.dagster_event.event_specific_data if event.dagster_event else None
        if not isinstance(planned, AssetCheckEvaluationPlanned):
            return
        for partition in planned.partitions_subset.get_partition_keys() if planned.partitions_subset else [None]:
            yield {
                "asset_key": planned.asset_key.to_string(),
                "check_name": planned.check_name,
                "partition": partition,
                "run_id": event.run_id,
                "execution_status": AssetCheckExecutionRecordStatus.PLANNED.value,
                "evaluation_event": serialize_value(event),
                "evaluation_event_timestamp": self._event_insert_timestamp(event),  # type: ignore[no-untyped-call]
                "evaluation_event_storage_id": event_id,
            }

    def has_table(self, table_name: str) -> bool:
        if table_name not in self._known_tables:
            if not super().has_table(table_name):
                return False  # a migration may make it
            self._known_tables.add(table_name)
        return True

    @cached_property
    def _known_tables(self) -> set[str]:
        return set()

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        if column_name not in self._known_columns:
            self._known_columns[column_name] = super()._has_asset_key_col_on_connection(conn, column_name)
        return self._known_columns[column_name]

    @cached_property
    def _known_columns(self) -> dict[str, bool]:
        return {}

    @property
    def supports_partition_subset_in_asset_materialization_planned_events(self) -> bool:
        """One planned event for all partitions of an asset. The price: a failed run marks no single partition as failed."""
        return True


class PooledPostgresStorage(DagsterPostgresStorage):
    """What `dagster.yaml` names under `storage: {custom: …}`; configured as Dagster's own `storage: {postgres: …}`."""

    def __init__(
        self, postgres_url: str, should_autocreate_tables: bool = True, inst_data: ConfigurableClassData | None = None
    ) -> None:
        super().__init__(postgres_url, should_autocreate_tables=False, inst_data=inst_data)
        pool = Pool(postgres_url)
        if should_autocreate_tables:
            _create_missing_tables(postgres_url, pool)
        self._run_storage = PooledRunStorage(postgres_url, pool)
        self._event_log_storage = PooledEventLogStorage(postgres_url, pool)
        self._schedule_storage = PooledScheduleStorage(postgres_url, pool)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        return cls(pg_url_from_config(config_value), config_value.get("should_autocreate_tables", True), inst_data)


def _create_missing_tables(postgres_url: str, pool: Pool) -> None:
    with pool.engine.connect() as connection:
        if _tables_exist(connection):
            return
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": _CREATION_LOCK})
        try:
            connection.execute(sqlalchemy.schema.CreateSchema(_schema(postgres_url), if_not_exists=True))
            # The stock constructors create and stamp what is missing.
            for storage in (PostgresRunStorage, PostgresEventLogStorage, PostgresScheduleStorage):
                storage(postgres_url, should_autocreate_tables=True)
        finally:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_unlock(:key)"), {"key": _CREATION_LOCK})


def _tables_exist(connection: Connection) -> bool:
    names = ["runs", "instance_info", "event_logs", "jobs"]
    query = sqlalchemy.text("SELECT count(to_regclass(name)) FROM unnest(:names) AS name")
    return int(connection.execute(query, {"names": names}).scalar_one()) == len(names)


def _schema(postgres_url: str) -> str:
    """The schema that `postgres_url` selects by its search path; `public` without one."""
    for option in _option(make_url(postgres_url)).split():
        if option.startswith("-csearch_path="):
            return option.removeprefix("-csearch_path=").split(",")[0]
    return "public"
