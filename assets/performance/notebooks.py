"""The notebooks that ship, executed on the results of a run: they open from their asset in the web UI."""

from typing import Any

import dagster as dg

from assets.reporting import details, metadata
from assets.upstream import study_for
from orchestration.notebook_page import address
from resources.experiment import ExperimentResource
from tidemill.provenance import source_version
from tidemill.steps.performance.notebooks import execute_notebook, executed_folder, executed_path, notebooks


def _notebook_asset(name: str) -> dg.AssetsDefinition:
    @dg.asset(
        key=["notebooks", name],
        group_name="monitoring",
        kinds={"jupyter"},
        owners=["team:research"],
        deps=[["performance", "report"]],
        code_version=source_version("tidemill.steps.performance.notebooks"),
        description=f"notebooks/{name}.ipynb, executed on the results of an experiment. The link in its metadata opens it.",
    )
    def notebook(context: dg.AssetExecutionContext, experiment: ExperimentResource) -> dg.MaterializeResult[Any]:
        study = study_for(context, experiment)
        report = execute_notebook(study, name)
        folder = executed_folder(study.workspace.settings)
        page = dg.MetadataValue.url(address(folder, executed_path(study, name)))
        shown = {"notebook": page, **details(report), **metadata(report)}
        return dg.MaterializeResult(metadata=shown, data_version=dg.DataVersion(report.data_version))

    return notebook


notebook_assets = [_notebook_asset(name) for name in notebooks()]
