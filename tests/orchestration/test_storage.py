import os
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlsplit

import dagster as dg
import psycopg2
import pytest
import sqlalchemy
from dagster import DagsterEvent, DagsterEventType, DagsterInstance, DagsterRun, EventLogEntry
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.events import AssetMaterializationPlannedData
from dagster_postgres import PostgresEventLogStorage

from orchestration.storage import Pool, PooledEventLogStorage, PooledPostgresStorage, PooledRunStorage, dagster_dsn
from tidemill.config import Secret
from tidemill.domain.errors import ConfigError


def ask(dsn: Secret, query: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(dsn.reveal())
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()
    finally:
        connection.close()


def test_the_address_selects_the_schema_and_keeps_what_it_said_before() -> None:
    made = dagster_dsn(Secret("postgres://u:p%40ss@h:5/d?options=-cjit%3Doff&sslmode=require")).reveal()
    assert urlsplit(made).scheme == "postgresql"
    assert parse_qs(urlsplit(made).query) == {"options": ["-cjit=off -csearch_path=dagster"], "sslmode": ["require"]}
    assert "p%40ss" in made


def test_what_is_not_an_address_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigError) as caught:
        dagster_dsn(Secret("hunter2"))
    assert "hunter2" not in str(caught.value)


def test_tables_are_made_once_by_processes_that_start_together_and_only_in_their_schema(fresh_dsn: Secret) -> None:
    url = dagster_dsn(fresh_dsn).reveal()
    with ThreadPoolExecutor(4) as threads:
        storages = list(threads.map(lambda _: PooledPostgresStorage(url), range(4)))
    assert {storage.run_storage.get_runs_count() for storage in storages} == {0}
    for storage in storages:
        storage.run_storage.dispose()
    schemas = ask(
        fresh_dsn, "SELECT DISTINCT schemaname FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    )
    assert schemas == [("dagster",)]


OTHERS = (
    "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)


def test_a_cut_connection_is_replaced_before_it_is_used(own_dsn: Secret, opened: DagsterInstance) -> None:
    opened.add_run(DagsterRun(job_name="j"))
    assert ask(own_dsn, f"SELECT pg_terminate_backend(pid, 10_000) {OTHERS}"), "the pool held no connection"
    assert opened.get_runs_count() == 1


def test_a_connection_that_was_checked_is_the_one_that_was_kept(own_dsn: Secret) -> None:
    pool, query, pids = Pool(dagster_dsn(own_dsn).reveal()), sqlalchemy.text("SELECT pg_backend_pid()"), set()
    for _ in range(5):
        with pool.engine.connect() as connection:
            pids.add(connection.execute(query).scalar_one())
    pool.close()
    assert len(pids) == 1


def test_a_table_that_a_migration_makes_is_noticed_and_then_not_asked_for_again(opened: DagsterInstance) -> None:
    storage = opened.event_log_storage
    assert isinstance(storage, PooledEventLogStorage)
    assert not storage.has_table("made_later")
    with storage._engine.connect() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE made_later (id int)"))
        assert storage.has_table("made_later")
        connection.execute(sqlalchemy.text("DROP TABLE made_later"))
    assert storage.has_table("made_later")


def test_columns_of_runs_that_a_migration_adds_are_noticed_and_then_not_asked_for_again(opened: DagsterInstance) -> None:
    storage = opened.run_storage
    assert isinstance(storage, PooledRunStorage)
    with storage._engine.connect() as connection:
        connection.execute(sqlalchemy.text("ALTER TABLE runs RENAME COLUMN start_time TO later"))
        assert not storage.has_run_stats_index_cols()
        connection.execute(sqlalchemy.text("ALTER TABLE runs RENAME COLUMN later TO start_time"))
        assert storage.has_run_stats_index_cols()
        connection.execute(sqlalchemy.text("ALTER TABLE runs RENAME COLUMN start_time TO later"))
    assert storage.has_run_stats_index_cols()


def planned(run_id: str) -> list[EventLogEntry]:
    """What a run over two days of `a` with two checks, and of `b`, plans."""
    days = (
        dg.DailyPartitionsDefinition("2024-01-01")
        .subset_with_partition_keys(["2024-01-02", "2024-01-05"])
        .to_serializable_subset()
    )
    data: list[AssetMaterializationPlannedData | AssetCheckEvaluationPlanned] = [
        AssetMaterializationPlannedData(dg.AssetKey(["x", "a"]), partitions_subset=days),
        AssetMaterializationPlannedData(dg.AssetKey("b")),
        AssetCheckEvaluationPlanned(asset_key=dg.AssetKey(["x", "a"]), check_name="good", partitions_subset=days),
        AssetCheckEvaluationPlanned(asset_key=dg.AssetKey(["x", "a"]), check_name="better"),
    ]
    kinds = (DagsterEventType.ASSET_MATERIALIZATION_PLANNED, DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED)
    return [
        EventLogEntry(
            error_info=None,
            level=10,
            user_message="",
            run_id=run_id,
            timestamp=1.0e9 + number,
            job_name="j",
            step_key="s",
            dagster_event=DagsterEvent(
                kinds[isinstance(one, AssetCheckEvaluationPlanned)].value, "j", step_key="s", event_specific_data=one
            ),
        )
        for number, one in enumerate(data)
    ]


def test_a_plan_in_one_statement_is_stored_as_dagster_itself_stores_it_one_by_one(
    own_dsn: Secret, opened: DagsterInstance
) -> None:
    def stored(run_id: str) -> list[list[tuple[object, ...]]]:
        event = f"replace(%s::text, '{run_id}', '')"
        dsn = dagster_dsn(own_dsn)
        return [
            ask(dsn, f"SELECT {event % 'event'}, dagster_event_type, timestamp, step_key, asset_key, partition FROM event_logs "
                f"WHERE run_id = '{run_id}' ORDER BY id"),
            ask(dsn, "SELECT asset_key, last_materialization, last_run_id, last_materialization_timestamp FROM asset_keys "
                f"WHERE last_run_id = '{run_id}' ORDER BY asset_key"),
            ask(dsn, f"SELECT c.asset_key, check_name, c.partition, execution_status, {event % 'evaluation_event'}, "
                "evaluation_event_timestamp, l.event = evaluation_event FROM asset_check_executions c JOIN event_logs l "
                f"ON l.id = evaluation_event_storage_id WHERE c.run_id = '{run_id}' ORDER BY check_name, c.partition"),
        ]  # fmt: skip

    storage = opened.event_log_storage
    storage.store_event_batch([])
    for event in planned("first"):
        PostgresEventLogStorage.store_event(storage, event)
    one_by_one = stored("first")
    storage.store_event_batch(planned("second"))
    together = stored("second")
    assert [len(rows) for rows in one_by_one] == [4, 2, 3]
    assert together[0] == one_by_one[0]
    assert [row[:2] + row[3:] for row in together[1]] == [row[:2] + row[3:] for row in one_by_one[1]]
    assert together[2] == one_by_one[2]


@pytest.mark.parametrize(("flushed", "waits"), [(True, "on"), (False, "off")])
def test_only_a_log_that_may_lose_its_end_does_not_wait_for_the_disk(own_dsn: Secret, flushed: bool, waits: str) -> None:
    pool = Pool(dagster_dsn(own_dsn, flushed=flushed).reveal())
    with pool.engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("SHOW synchronous_commit")).scalar_one() == waits
    pool.close()


def test_a_closed_instance_holds_no_connection(own_dsn: Secret, opened: DagsterInstance) -> None:
    opened.get_runs_count()
    opened.dispose()
    deadline = time.monotonic() + 20  # the server notices a closed connection a moment later
    while ask(own_dsn, f"SELECT count(*) {OTHERS}") != [(0,)]:
        assert time.monotonic() < deadline


def test_the_three_storages_share_one_pool_also_in_the_web_server(opened: DagsterInstance) -> None:
    opened.optimize_for_webserver(statement_timeout=1234, pool_recycle=1, max_overflow=1)
    engines = {storage._engine for storage in (opened.run_storage, opened.event_log_storage, opened.schedule_storage)}
    assert len(engines) == 1
    with engines.pop().connect() as connection:
        assert connection.execute(sqlalchemy.text("SHOW statement_timeout")).scalar_one() == "1234ms"


def test_a_forked_child_opens_its_own_connection(own_dsn: Secret) -> None:
    pool = Pool(dagster_dsn(own_dsn).reveal())
    query = sqlalchemy.text("SELECT pg_backend_pid()")
    with pool.engine.connect() as connection:
        parent = connection.execute(query).scalar_one()
    child = os.fork()
    if child == 0:
        with pool.engine.connect() as connection:
            os._exit(0 if connection.execute(query).scalar_one() != parent else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with pool.engine.connect() as connection:
        assert connection.execute(query).scalar_one() == parent
    pool.close()
