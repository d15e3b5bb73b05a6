"""`tidemill champions`: which models trade a dataset, since when, and on what evidence."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tidemill.cli.common.output import json_option, write_json, write_table
from tidemill.cli.common.progress import progress

if TYPE_CHECKING:
    from tidemill.steps.models.champion import ChallengeFacts
    from tidemill.storage.champions import Champion
    from tidemill.study.freshness import StepReport
    from tidemill.study.study import Study
    from tidemill.study.workspace import Workspace


@click.group()
def champions() -> None:
    """List and show champions, promote a challenger, take a promotion back."""


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
        raise InputError("Nothing has been run yet. Run `tidemill run` first: it trains the models to promote.")
    return study_of(opened, experiment)


@champions.command()
@click.option("--experiment", "file", type=click.Path(path_type=Path), help="YAML file; the experiment that was run last.")
@click.option("--accept", is_flag=True, help="Promote it also where its figures are too good to be taken as they are.")
@json_option
def promote(file: Path | None, accept: bool, as_json: bool) -> None:
    """Train a challenger, compare it with the champion on bars that neither saw, and promote it if it earned more."""
    from tidemill.cli.common.session import workspace
    from tidemill.steps.models.champion import consider

    with workspace() as opened, progress("Training and comparing a challenger"):
        study = _study(opened, file)
        report = consider(study, accept=accept)
    if as_json:
        facts, rows = report.facts, [dict(zip(report.columns, row, strict=True)) for row in report.table]
        told = {"bars_compared": facts.bars_compared, "promoted": facts.promoted, "outcome": report.notes[0]}
        told |= {"experiment": study.experiment.name, "dataset": study.dataset.key}
        write_json({"champion": facts.champion, **told, "compared": rows})
        return
    title = f"{study.experiment.name} on {study.dataset.key}"
    write_table(title, [name.replace("_", " ") for name in report.columns], [_shown(report, row) for row in report.table])
    if not report.worked:
        click.echo("Nothing that decides it has changed since the last comparison, which came to this:")
    for note in report.notes:
        click.echo(note)


def _shown(report: "StepReport[ChallengeFacts]", row: tuple[Any, ...]) -> list[object]:
    """The figures of one side as a person reads them."""
    from tidemill.reports.numbers import number, percent, whole

    shapes: dict[str, Callable[[Any], str]] = {"rank_ic": partial(number, digits=3), "sharpe": number}
    shapes |= dict.fromkeys(("total_return", "max_drawdown"), percent) | dict.fromkeys(("costs", "trades"), whole)
    return [shapes.get(name, str)(value) for name, value in zip(report.columns, row, strict=True)]


@champions.command()
@click.argument("dataset")
@click.option("--why", required=True, help="For the record: why the promotion is taken back.")
@json_option
def undo(dataset: str, why: str, as_json: bool) -> None:
    """Take the last promotion in DATASET back; the champion before it is champion again."""
    from tidemill.cli.common.session import workspace
    from tidemill.storage.champions import undo as take_back

    if not why.strip():
        raise click.UsageError("Say why with --why: it stands in the record for whoever looks next.")
    with workspace() as opened:
        undone, back = opened.call(take_back, opened.database, dataset, why)
    if as_json:
        write_json({"undone": undone.id, "champion": back.id if back else None})
    else:
        again = f"The champion is {back.book} of {back.promoted_at:%Y-%m-%d} again." if back else "There is no champion now."
        click.echo(f"Promotion {undone.id} ({undone.book}) was taken back. {again}")


@champions.command("list")
@click.option("--dataset", help="Only those of one dataset.  [default: all]")
@json_option
def list_champions(dataset: str | None, as_json: bool) -> None:
    """Every promotion, the newest first, with its evidence in words."""
    found = _promotions(dataset)
    if as_json:
        write_json(found)
    elif not found:
        where = f" in {dataset}" if dataset else ""
        click.echo(f"Nothing was promoted yet{where}. `tidemill champions promote` compares a challenger with cash.")
    else:
        columns = ("promotion", "dataset", "book", "promoted", "state", "why")
        write_table("", columns, [_line(one) for one in found])


@champions.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """The champion of a dataset, or a promotion by its number: its models and weights, and on what evidence."""
    from tidemill.queries.champions import promotion

    found = promotion(_promotions(), name)
    if as_json:
        write_json(found)
        return
    for label, value in _described(found):
        click.echo(f"{label:15} {value}")
    rows = [(engine, found.weights.get(engine), model) for engine, model in found.models.items()]
    click.echo()
    write_table("", ("engine", "weight", "model"), rows)


def _promotions(dataset: str | None = None) -> "tuple[Champion, ...]":
    from tidemill.cli.common.session import workspace
    from tidemill.queries.champions import promotions

    with workspace() as opened:
        return opened.call(promotions, opened.database, dataset)


def _line(one: "Champion") -> tuple[object, ...]:
    return one.id, one.dataset, one.book, f"{one.promoted_at:%Y-%m-%d %H:%M}", _state(one), one.undone_why or one.reason


def _state(one: "Champion") -> str:
    return "undone" if one.undone_at else one.source


def _described(one: "Champion") -> list[tuple[str, object]]:
    undone = [("undone", f"{one.undone_at:%Y-%m-%d %H:%M} UTC: {one.undone_why}")] if one.undone_at else []
    return [
        ("promotion", one.id),
        ("dataset", one.dataset),
        ("experiment", one.experiment.name),
        ("book", one.book),
        ("promoted", f"{one.promoted_at:%Y-%m-%d %H:%M} UTC by the {one.source}"),
        ("trained until", f"{one.trained_until:%Y-%m-%d %H:%M} UTC"),
        ("why", one.reason),
        *undone,
    ]
