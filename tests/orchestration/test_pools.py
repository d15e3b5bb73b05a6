"""Trainings that are started at once: as many as the pool allows run at a time, and all of them finish."""

from pathlib import Path

import dagster as dg
import pytest

from assets.engine_keys import trained
from assets.models.engines import TRAINING_POOL, engine_assets
from orchestration.launcher import PROCESS_TAG, this_process
from orchestration.pools import free_places_of_the_dead
from tests.orchestration.pooled_definitions import COUNT, trainings
from tidemill.study.registry import SHIPPED_REGISTRY

LIMIT = 2


def test_every_engine_is_trained_within_the_pool() -> None:
    for asset in engine_assets(trained(SHIPPED_REGISTRY)):
        assert {op.pool for op in asset.node_def.iterate_op_defs()} == {TRAINING_POOL}


def test_the_instance_has_a_limit_for_every_pool(opened: dg.DagsterInstance) -> None:
    config = opened.event_log_storage.get_pool_config()
    assert config.default_pool_limit == 2
    assert config.pool_granularity is not None
    assert config.pool_granularity.value == "op"


def most_at_once(spans: list[tuple[int, int]]) -> int:
    """How many of the (begin, end) spans overlap at the busiest moment."""
    return max(sum(begin <= moment < end for begin, end in spans) for moment, _ in spans)


@pytest.mark.parametrize("count", [5, pytest.param(12, marks=pytest.mark.long)])
def test_trainings_at_once_finish_and_never_more_than_the_limit_run(
    opened: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setenv("TRAININGS", str(tmp_path))
    monkeypatch.setenv(COUNT, str(count))
    opened.event_log_storage.set_concurrency_slots(TRAINING_POOL, LIMIT)
    with dg.execute_job(dg.reconstructable(trainings), instance=opened) as result:
        assert result.success
    spans = [tuple(map(int, file.read_text().split())) for file in tmp_path.iterdir() if file.name.isdigit()]
    assert len(spans) == count
    assert most_at_once([(begin, end) for begin, end in spans]) <= LIMIT
    assert opened.event_log_storage.get_concurrency_info(TRAINING_POOL).active_slot_count == 0


@pytest.mark.parametrize("tag", ["999999@1.00", None])
def test_the_place_of_a_killed_run_is_given_back_and_that_of_a_living_one_is_kept(
    opened: dg.DagsterInstance, tag: str | None
) -> None:
    storage = opened.event_log_storage
    storage.set_concurrency_slots(TRAINING_POOL, 2)

    @dg.job
    def nothing() -> None: ...

    process = this_process() if tag is None else tag
    run = opened.create_run_for_job(nothing, tags={PROCESS_TAG: process})
    storage.claim_concurrency_slot(TRAINING_POOL, run.run_id, "model")
    assert storage.get_concurrency_info(TRAINING_POOL).active_slot_count == 1
    assert free_places_of_the_dead(opened) == ([] if tag is None else [run.run_id])
    assert storage.get_concurrency_info(TRAINING_POOL).active_slot_count == (1 if tag is None else 0)
