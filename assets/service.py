"""What a service is: a group of assets with their checks, their resources, and the job that makes them."""

from collections.abc import Sequence

import dagster as dg

from resources.environments import resources


def service(
    name: str, about: str, assets: Sequence[dg.AssetsDefinition], checks: Sequence[dg.AssetChecksDefinition] = ()
) -> dg.Definitions:
    """Definitions that can be a code location of their own: what the assets lean on in other services is a key to them."""
    job = dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(*assets),
        description=f"{about} Only what this service makes: what others make is read as it is.",
    )
    # What is chosen by hand goes on in one process too: to start one for each asset and check takes longer than most of them.
    executor = dg.in_process_executor
    return dg.Definitions(assets=assets, asset_checks=checks, jobs=[job], resources=resources, executor=executor)
