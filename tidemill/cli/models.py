"""`tidemill models`: what was trained, from what."""

import click

from tidemill.cli.champions import list_champions, promote, undo
from tidemill.cli.common.output import json_option, write_json, write_table
from tidemill.cli.proving import prove_models
from tidemill.cli.rebuilding import rebuild, train
from tidemill.cli.search import search


@click.group()
def models() -> None:
    """Train, prove, search, list, show and promote models."""


@models.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """Every trained model, newest first."""
    from tidemill.cli.common.session import workspace
    from tidemill.study.model_index import stored_models

    with workspace() as opened:
        found = stored_models(opened)
    if as_json:
        write_json(found)
    elif not found:
        click.echo("No model has been trained yet. `tidemill run` trains them.")
    else:
        columns = ("model", "engine", "dataset", "fold", "trained from", "to", "rows")
        write_table(
            "",
            columns,
            [
                (row["model_id"], row["engine"], row["dataset"], row["fold"], row["start"][:10], row["end"][:10], row["rows"])
                for row in found
            ],
        )


@models.command()
@click.argument("model_id")
@json_option
def show(model_id: str, as_json: bool) -> None:
    """What one model was made of, down to the versions of its data."""
    from tidemill.cli.common.session import workspace
    from tidemill.maintenance.rebuild import lineage, weights_shown
    from tidemill.study.model_index import model_manifest

    with workspace() as opened:
        found = model_manifest(opened, model_id)
        made_of, weights = lineage(opened, model_id), weights_shown(found)
    if as_json:
        shown = {"weights": weights} if weights else {}
        write_json(
            {**found, **shown, "lineage": [{"depth": depth, "name": what, "version": held} for depth, what, held in made_of]}
        )
        return
    if weights:
        write_table("Weights", ("engine", "weight"), list(weights.items()))
    for key, value in found.items():
        long = isinstance(value, dict | list | tuple) and len(str(value)) > 200
        click.echo(f"{key:20} {f'{len(value)} entries (--json shows them)' if long else value}")
    click.echo("\nMade of, down to the versions of its data:")
    for depth, what, held in made_of:
        click.echo(f"{'  ' * depth}{what:{40 - 2 * depth}} {held}")


for added in (train, rebuild, prove_models, search, promote, undo, list_champions):
    models.add_command(added)
