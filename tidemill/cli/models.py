"""`tidemill models`: what was trained, from what."""

import copy
from typing import TYPE_CHECKING, Any

import click

from tidemill.cli.champions import list_champions, promote, undo
from tidemill.cli.common.output import json_option, write_json, write_table
from tidemill.cli.proving import prove_models
from tidemill.cli.rebuilding import rebuild, train
from tidemill.cli.search import search

if TYPE_CHECKING:
    from tidemill.queries.models import ModelDetails


@click.group()
def models() -> None:
    """Train, prove, search, list and show models."""


@models.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """Every trained model, newest first."""
    from tidemill.cli.common.session import workspace
    from tidemill.queries.models import stored_models

    with workspace() as opened:
        found = opened.call(stored_models, opened.settings)
    if as_json:
        write_json(found)
    elif not found:
        click.echo("No model has been trained yet. `tidemill run` trains them.")
    else:
        columns = ("model", "engine", "dataset", "fold", "trained from", "to", "rows")
        write_table(
            "",
            columns,
            [(one.model_id, one.engine, one.dataset, one.fold, one.start[:10], one.end[:10], one.rows) for one in found],
        )


@models.command()
@click.argument("model_id")
@json_option
def show(model_id: str, as_json: bool) -> None:
    """What one model was made of, down to the versions of its data."""
    from tidemill.cli.common.session import workspace
    from tidemill.queries.models import model_details

    with workspace() as opened:
        found = opened.call(model_details, opened.settings, model_id)
    if as_json:
        shown = {"weights": found.weights} if found.weights else {}
        write_json({**_stated(found), **shown, "lineage": [one._asdict() for one in found.lineage]})
        return
    if found.weights:
        write_table("Weights", ("engine", "weight"), list(found.weights.items()))
    for key, value in _stated(found).items():
        long = isinstance(value, dict | list | tuple) and len(str(value)) > 200
        click.echo(f"{key:20} {f'{len(value)} entries (--json shows them)' if long else value}")
    click.echo("\nMade of, down to the versions of its data:")
    for one in found.lineage:
        click.echo(f"{'  ' * one.depth}{one.name:{40 - 2 * one.depth}} {one.version}")


def _stated(found: "ModelDetails") -> dict[str, Any]:
    """What its manifest says, in one level."""
    import msgspec

    inputs = msgspec.to_builtins(found.inputs)
    return {"model_id": found.model_id, "hash": found.hash, **inputs, "metrics": found.metrics, "origin": found.origin}


for added in (train, rebuild, prove_models, search):
    models.add_command(added)
# As they were called before `tidemill champions`: they go on working and are listed there alone.
for name, moved in (("promote", promote), ("undo", undo), ("champions", list_champions)):
    earlier = copy.copy(moved)
    earlier.hidden = True
    models.add_command(earlier, name)
