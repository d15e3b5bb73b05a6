"""Places in Dagster's pools: how many steps of a kind run at once, over all runs of this home.

The pool `training` bounds how many models are trained at the same time, whoever started the runs; dagster.yaml holds the limit.
"""

from dagster import DagsterInstance

from orchestration.launcher import PROCESS_TAG, process_lives


def free_places_of_the_dead(opened: DagsterInstance) -> list[str]:
    """Give back the places of runs that are over or whose process is gone; returns their ids.

    A killed process gives nothing back, and without the daemon nobody else would: the next training would wait for ever.
    """
    storage = opened.event_log_storage
    held: set[str] = set()
    for pool in storage.get_concurrency_keys():
        info = storage.get_concurrency_info(pool)
        held |= set(info.active_run_ids) | {step.run_id for step in info.pending_steps}
    dead = sorted(run_id for run_id in held if not _lives(opened, run_id))
    for run_id in dead:
        storage.free_concurrency_slots_for_run(run_id)
    return dead


def _lives(opened: DagsterInstance, run_id: str) -> bool:
    run = opened.get_run_by_id(run_id)
    if run is None or run.is_finished:
        return False
    process = run.tags.get(PROCESS_TAG)
    return process is None or process_lives(process)  # a launched run is watched by run monitoring
