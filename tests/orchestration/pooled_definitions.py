"""Twelve assets in the pool of trainings, each of which notes when it ran in the folder TRAININGS."""

import os
import time
from pathlib import Path

import dagster as dg

from assets.models.engines import TRAINING_POOL

COUNT = 12


def _model(number: int) -> dg.AssetsDefinition:
    @dg.asset(name=f"model_{number}", pool=TRAINING_POOL)
    def model() -> None:
        began = time.monotonic_ns()
        sum(range(1_000_000))  # something to overlap with
        Path(os.environ["TRAININGS"], str(number)).write_text(f"{began} {time.monotonic_ns()}")

    return model


def trainings() -> dg.JobDefinition:
    """All twelve at once, as far as the executor is concerned."""
    parallel = dg.multiprocess_executor.configured({"max_concurrent": COUNT, "start_method": {"forkserver": {}}})
    job = dg.define_asset_job("trainings", executor_def=parallel)
    return dg.Definitions(assets=[_model(number) for number in range(COUNT)], jobs=[job]).resolve_job_def("trainings")
