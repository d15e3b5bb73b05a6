"""The notebooks that ship, executed on the results of a run: open them beside their asset in the web UI."""

from typing import Any

import dagster as dg

from assets.reporting import details, metadata
from resources.experiment import ExperimentResource
from tidemill.domain.provenance import source_version
from tidemill.research.notebooks import execute_notebook, notebooks


def _notebook_asset(name: str) -> dg.AssetsDefinition:
    @dg.asset(
        key=["notebooks", name],
        group_name="monitoring",
        kinds={"jupyter"},
        owners=["team:research"],
        deps=[["performance", "report"]],
        code_version=source_version("tidemill.research.notebooks"),
        description=f"notebooks/{name}.ipynb, executed on the results of an experiment. `View notebook` shows it.",
    )
    def notebook(experiment: ExperimentResource) -> dg.MaterializeResult[Any]:
        report = execute_notebook(experiment.study, name)
        shown = {"notebook": dg.MetadataValue.notebook(report.facts["path"]), **details(report), **metadata(report)}
        return dg.MaterializeResult(metadata=shown, data_version=dg.DataVersion(report.data_version))

    return notebook


notebook_assets = [_notebook_asset(name) for name in notebooks()]
