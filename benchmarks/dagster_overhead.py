"""What an asset costs Dagster on the instance's Postgres: its own storage against our pooled one, in one run.

`python -m benchmarks.dagster_overhead [--assets N] [--rounds N]`. The assets do nothing: all is Dagster's.
"""

import argparse
import os
import statistics
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psycopg2
from dagster._core.instance.ref import InstanceRef

from benchmarks.homes import new_homes
from orchestration.instance import EVENT_BATCH, variables
from orchestration.storage import dagster_dsn
from tidemill.config import Secret, Settings
from tidemill.embedded import servers

TARGET_MILLISECONDS = 45.0
CONFIGURATIONS = {
    "stock": {"postgres": {"postgres_url": {"env": "DSN"}}},
    "pooled": {
        "custom": {
            "module": "orchestration.storage",
            "class": "PooledPostgresStorage",
            "config": {"postgres_url": {"env": "DSN"}},
        }
    },
}
months = dg.MonthlyPartitionsDefinition(start_date="2000-01", fmt="%Y-%m", end_date="2013-03")


def chain(length: int, partitioned: bool) -> dg.JobDefinition:
    """`length` assets, each dependent on the one before it."""
    assets = []
    for number in range(length):
        options = {"partitions_def": months, "backfill_policy": dg.BackfillPolicy.single_run()} if partitioned else {}

        @dg.asset(key=["bench", f"a{number}"], deps=[["bench", f"a{number - 1}"]] if number else [], **options)
        def made() -> dg.MaterializeResult:
            return dg.MaterializeResult(metadata={"rows": 1})

        assets.append(made)
    job = dg.define_asset_job("bench", selection="*", executor_def=dg.in_process_executor)
    return dg.Definitions(assets=assets, jobs=[job]).resolve_job_def("bench")


@contextmanager
def instance(kind: str, dsn: Secret, folder: Path) -> Iterator[dg.DagsterInstance]:
    import yaml

    home = folder / kind
    home.mkdir()
    settings = {"telemetry": {"enabled": False}, "storage": CONFIGURATIONS[kind]}
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    schema = f"bench_{kind}"
    connection = psycopg2.connect(dsn.reveal())
    with connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA {schema}")
    connection.close()
    batch = str(EVENT_BATCH) if kind == "pooled" else "0"
    with variables({"DSN": dagster_dsn(dsn, schema).reveal(), "DAGSTER_EVENT_BATCH_SIZE": batch, "DAGSTER_HOME": str(home)}):
        no_capture = {
            "compute_logs": {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
        }
        with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home), overrides=no_capture)) as made:
            yield made


def measure(opened: dg.DagsterInstance, job: dg.JobDefinition, rounds: int, tags: dict[str, str]) -> tuple[float, float, float]:
    """Median milliseconds of a step, of a whole run, and of processor time in a run, which a busy machine disturbs less."""
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    steps, runs, busy = [], [], []
    for number in range(rounds + 1):
        began, began_busy = time.perf_counter(), time.process_time()
        result = job.execute_in_process(instance=opened, run_config=quiet, tags=tags)
        seconds = time.perf_counter() - began
        if number:  # the first round warms caches
            runs.append(seconds * 1000)
            busy.append((time.process_time() - began_busy) * 1000)
            steps += [
                event.step_success_data.duration_ms for event in result.all_events if event.event_type_value == "STEP_SUCCESS"
            ]
    return statistics.median(steps), statistics.median(runs), statistics.median(busy)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--assets", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    whole = {"dagster/asset_partition_range_start": "2000-01", "dagster/asset_partition_range_end": "2013-02"}
    found: dict[tuple[str, str], tuple[float, float, float]] = {}
    with new_homes() as (home,):
        settings = Settings(home=home, keeper_linger=0.0)
        with servers(settings) as started:
            for kind in CONFIGURATIONS:
                with instance(kind, started.postgres_dsn, home.parent) as opened:
                    found[kind, "one"] = measure(opened, chain(given.assets, False), given.rounds, {})
                    found[kind, "158 months"] = measure(opened, chain(2, True), 1, whole)
    print(
        f"{'':12} {'storage':8} {'ms/asset':>9} {'ms/run':>9} {'cpu/run':>9}   ({given.assets} assets, {os.cpu_count()} cores)"
    )
    for (kind, what), (step, run, busy) in sorted(found.items(), key=lambda item: item[0][1]):
        print(f"{what:12} {kind:8} {step:9.1f} {run:9.0f} {busy:9.0f}")
    for what in ("one", "158 months"):
        print(f"stock / pooled, {what}: {found['stock', what][1] / found['pooled', what][1]:.1f} ×")
    cost = found["pooled", "one"][1] / given.assets
    print(f"an asset costs {cost:.1f} ms of a run, all included (target {TARGET_MILLISECONDS:.0f})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
