"""As many assets in the pool of trainings as the variable COUNT names; each notes when it ran in the folder TRAININGS."""

import os
import time
from pathlib import Path

import dagster as dg

from assets.models.engines import TRAINING_POOL

COUNT = "COUNT_OF_TRAININGS"


def _model(number: int) -> dg.AssetsDefinition:
    @dg.asset(name=f"model_{number}", pool=TRAINING_POOL)
    def model() -> None:
        began = time.monotonic_ns()
        sum(range(1_000_000))  # something to overlap with
        Path(os.environ["TRAININGS"], str(number)).write_text(f"{began} {time.monotonic_ns()}")

    return model


def trainings() -> dg.JobDefinition:
    """All of them at once, as far as the executor is concerned."""
    count = int(os.environ[COUNT])
    parallel = dg.multiprocess_executor.configured({"max_concurrent": count, "start_method": {"forkserver": {}}})
    job = dg.define_asset_job("trainings", executor_def=parallel)
    return dg.Definitions(assets=[_model(number) for number in range(count)], jobs=[job]).resolve_job_def("trainings")
