"""The study of a run for one of its assets: what the asset depends on was made, in whatever process, or it is said."""

import dagster as dg

from resources.experiment import ExperimentResource
from tidemill.steps.made import require_made
from tidemill.study.study import Study


def study_for(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> Study:
    """The study. InputError names what the asset depends on and was never made."""
    key = context.asset_key
    upstream = (other.to_user_string() for other in context.assets_def.asset_deps[key])
    require_made(experiment.study, key.to_user_string(), upstream)
    return experiment.study
