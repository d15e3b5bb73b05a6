"""The study of a run for one of its assets: what the asset depends on was made, in whatever process, or it is said, and so is
a run that does not say which months of an asset it makes."""

import dagster as dg

from resources.experiment import ExperimentResource
from tidemill.domain.errors import InputError
from tidemill.steps.made import require_made
from tidemill.study.study import Study


def study_for(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> Study:
    """The study. InputError names what the asset depends on and was never made, or what the run does not say."""
    _require_months(context)
    key = context.asset_key
    upstream = (other.to_user_string() for other in context.assets_def.asset_deps[key])
    require_made(experiment.study, key.to_user_string(), upstream)
    return experiment.study


def _require_months(context: dg.AssetExecutionContext) -> None:
    """Dagster would say it only when the work is done, and not how to go on."""
    if context.assets_def.partitions_def is None or context.has_partition_key_range:
        return
    raise InputError(
        f"{context.asset_key.to_user_string()} is made by months, and the run does not say which. Give `job execute` "
        """--tags '{"dagster/asset_partition_range_start": "2024-01", "dagster/asset_partition_range_end": "2024-12"}', """
        "give `asset materialize` --partition-range 2024-01...2024-12, or choose the partitions in the web UI."
    )
