"""`tidemill models promote|undo|champions`: which models trade a dataset, and on what evidence."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidemill.cli.common.output import json_option, write_json, write_table
from tidemill.cli.common.progress import progress

if TYPE_CHECKING:
    from tidemill.study.study import Study
    from tidemill.study.workspace import Workspace


def _study(opened: "Workspace", file: Path | None) -> "Study":
    """The study of an experiment file, or of the report that was written last."""
    from tidemill.domain.errors import InputError
    from tidemill.experiments.files import load_experiment
    from tidemill.queries.experiments import latest_experiment
    from tidemill.study.registry import Registry
    from tidemill.study.sources import study_of

    if file is not None:
        return study_of(opened, load_experiment(file, registry=Registry.of(opened.settings)))
    experiment = opened.call(latest_experiment, opened.settings)
    if experiment is None:
        raise InputError("Nothing has been run yet. `tidemill run` makes what can be promoted.")
    return study_of(opened, experiment)


@click.command()
@click.option("--experiment", "file", type=click.Path(path_type=Path), help="YAML file; the experiment that was run last.")
@json_option
def promote(file: Path | None, as_json: bool) -> None:
    """Train a challenger, compare it with the champion on bars that neither saw, and promote it if it earned more."""
    from tidemill.cli.common.session import workspace
    from tidemill.steps.models.champion import consider

    with workspace() as opened, progress("Training and comparing a challenger"):
        report = consider(_study(opened, file))
    if as_json:
        facts, rows = report.facts, [dict(zip(report.columns, row, strict=True)) for row in report.table]
        told = {"bars_compared": facts.bars_compared, "promoted": facts.promoted, "outcome": report.notes[0]}
        write_json({"champion": facts.champion, **told, "compared": rows})
        return
    write_table("", [name.replace("_", " ") for name in report.columns], report.table)
    for note in report.notes:
        click.echo(note)


@click.command()
@click.argument("dataset")
@click.option("--why", required=True, help="For the record: why the promotion is taken back.")
@json_option
def undo(dataset: str, why: str, as_json: bool) -> None:
    """Take the last promotion in DATASET back; the champion before it is champion again."""
    from tidemill.cli.common.session import workspace
    from tidemill.storage import champions

    with workspace() as opened:
        undone, back = opened.call(champions.undo, opened.database, dataset, why)
    if as_json:
        write_json({"undone": undone.id, "champion": back.id if back else None})
    else:
        again = f"The champion is {back.book} of {back.promoted_at:%Y-%m-%d} again." if back else "There is no champion now."
        click.echo(f"Promotion {undone.id} ({undone.book}) was taken back. {again}")


@click.command("champions")
@json_option
def list_champions(as_json: bool) -> None:
    """Every promotion, the newest first, with its evidence in words."""
    from tidemill.cli.common.session import workspace
    from tidemill.queries.champions import promotions

    with workspace() as opened:
        found = opened.call(promotions, opened.database)
    if as_json:
        write_json(found)
    elif not found:
        click.echo("Nothing was promoted yet. `tidemill models promote` compares a challenger with cash.")
    else:
        rows = [
            (
                one.id,
                one.dataset,
                one.book,
                f"{one.promoted_at:%Y-%m-%d %H:%M}",
                "undone" if one.undone_at else one.source,
                one.undone_why or one.reason,
            )
            for one in found
        ]
        write_table("", ("promotion", "dataset", "book", "promoted", "state", "why"), rows)
