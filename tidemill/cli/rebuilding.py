"""`tidemill models train|rebuild`: one engine on every fold of an experiment; one model again from its manifest."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidemill.cli.common.arguments import experiment_option
from tidemill.cli.common.output import fail, json_option, write_json, write_table
from tidemill.domain.errors import StopError

if TYPE_CHECKING:
    from tidemill.maintenance.rebuild import Rebuilt


@click.command()
@click.argument("engine", required=False)
@experiment_option
@click.option("--source", help="sample (default), file:PATH, binance, coinbase or kraken.")
@click.option("--from", "model_id", help="A model to be made again from its manifest, as `rebuild` does.")
@json_option
@click.pass_context
def train(
    ctx: click.Context, engine: str | None, file: Path | None, source: str | None, model_id: str | None, as_json: bool
) -> None:
    """Train ENGINE on every fold of an experiment; what was trained from the same inputs is not trained again."""
    if model_id is not None:
        if engine is not None or file is not None or source is not None:
            raise click.UsageError("--from names a model, whose manifest holds everything else; leave the other options out.")
        ctx.invoke(rebuild, model_id=model_id, as_json=as_json)
        return
    if engine is None:
        raise click.UsageError("Name the engine to train, or a model with --from.")
    import msgspec

    from tidemill.cli.common.progress import progress
    from tidemill.cli.common.session import registry, workspace
    from tidemill.experiments.files import experiment_on
    from tidemill.steps.models.alone import train_alone
    from tidemill.study.sources import study_of

    experiment = experiment_on(file, {"source": source} if source else {}, registry=registry())
    with workspace() as opened, progress(f"Training {engine}"):
        report = train_alone(study_of(opened, experiment), engine)
    if as_json:
        write_json(msgspec.to_builtins(report))
    else:
        columns = ("fold", "model", "trained from", "to", "rows", "tested from", "to")
        write_table(f"{engine}: {report.facts.folds_trained} of {report.facts.folds} folds", columns, report.table)


@click.command()
@click.argument("model_id")
@click.option("--restore", is_flag=True, help="Store the new model where the old one was, if it is equal.")
@json_option
@click.pass_context
def rebuild(ctx: click.Context, model_id: str, restore: bool = False, as_json: bool = False) -> None:
    """Make a model again from its manifest alone and compare the hashes; exit code 1 when they differ."""
    from tidemill.cli.common.progress import progress
    from tidemill.cli.common.session import workspace
    from tidemill.maintenance import rebuild as rebuilding

    with workspace() as opened, progress(f"Making {model_id} again"):
        found = (rebuilding.restore if restore else rebuilding.rebuild)(opened, model_id)
    _show(found, as_json)
    if not found.same:
        ctx.exit(fail(StopError(f"{model_id} was made again and differs: {found.why}.")))


def _show(found: "Rebuilt", as_json: bool) -> None:
    import msgspec

    if as_json:
        write_json(msgspec.to_builtins(found))
    elif found.same:
        click.echo(f"{found.model_id} was made again from its manifest, bit for bit: {found.hash}")
