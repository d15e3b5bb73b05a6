"""`tidemill experiments`: what was run, what a file would run, and what goes on with every new bar."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tidemill.cli.common.output import counted, json_option, write_json, write_table

if TYPE_CHECKING:
    from tidemill.domain.experiment import Experiment
    from tidemill.storage.experiments import StoredExperiment


@click.group()
def experiments() -> None:
    """List, show and check experiments; say which go on with every new bar."""


@experiments.command("list")
@json_option
def list_experiments(as_json: bool) -> None:
    """Every experiment that was run, the newest run first."""
    from tidemill.experiments.tracked import fitting

    rows = _rows()
    if as_json:
        write_json([_facts(row) for row in rows])
        return
    if not rows:
        click.echo("No experiment was run yet. `tidemill run` runs the sample, `--experiment FILE` one of your own.")
        return
    held = {row.id: experiment for row, experiment in fitting(rows)}
    columns = ("experiment", "name", "source", "bars", "mode", "tracked since", "last run")
    write_table("", columns, [_line(row, held.get(row.id)) for row in rows])


def _rows() -> "list[StoredExperiment]":
    from tidemill.cli.common.session import workspace
    from tidemill.experiments.tracked import experiments_of

    with workspace() as opened:
        return opened.call(experiments_of, opened.database, opened.settings.home)


def _line(row: "StoredExperiment", experiment: "Experiment | None") -> tuple[str, ...]:
    """experiment: None for one that fits the schema no longer."""
    source, interval = ("–", "–") if experiment is None else (experiment.dataset.source, experiment.dataset.interval)
    since = "–" if row.tracked_since is None else f"{row.tracked_since:%Y-%m-%d %H:%M}"
    return row.id, row.name, source, interval, row.mode, since, f"{row.last_run_at:%Y-%m-%d %H:%M}"


def _facts(row: "StoredExperiment") -> dict[str, Any]:
    import msgspec

    return {**msgspec.structs.asdict(row), "content": msgspec.json.decode(row.content)}


@experiments.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """What NAME was run with: a name (of several the one that was run last), an id, or the beginning of one."""
    from tidemill.experiments.files import to_text
    from tidemill.experiments.tracked import content_of, meant

    rows = _rows()
    row = meant(rows, name)
    if as_json:
        write_json(_facts(row))
        return
    for label, value in _described(row):
        click.echo(f"{label:15} {value}")
    others = [other.id for other in rows if other.name == row.name and other.id != row.id]
    if others:
        click.echo(f"{'of that name':15} {', '.join(others)}")
    click.echo(f"\n{to_text(content_of(row))}", nl=False)


def _described(row: "StoredExperiment") -> list[tuple[str, str]]:
    times = [("tracked since", row.tracked_since), ("anchor", row.anchor), ("first run", row.first_run_at)]
    found = [("experiment", row.id), ("file", row.origin or "–"), ("mode", row.mode)]
    return [*found, *((label, _time(at)) for label, at in (*times, ("last run", row.last_run_at)))]


def _time(at: Any) -> str:
    return "–" if at is None else f"{at:%Y-%m-%d %H:%M} UTC"


@experiments.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def check(file: Path, as_json: bool) -> None:
    """Read FILE, or an experiment that ships, and say whether it can be run. Nothing is run; exit code 1 when it cannot."""
    from tidemill.cli.common.session import registry, workspace
    from tidemill.experiments.files import load_experiment
    from tidemill.experiments.tracked import experiments_of, id_of, require_own_name

    experiment = load_experiment(file, registry=registry())
    with workspace() as opened:
        rows = opened.call(experiments_of, opened.database, opened.settings.home)
    require_own_name(rows, experiment, file)
    own, known = id_of(experiment), {row.id for row in rows}
    if as_json:
        write_json({"experiment": own, "name": experiment.name, "was_run": own in known})
        return
    told, engines = "was run before" if own in known else "was not run yet", counted(len(experiment.engines), "engine")
    click.echo(f"{experiment.name} ({own}) can be run: {engines} on {experiment.dataset.source}. It {told}.")


@experiments.command()
@click.argument("name")
@json_option
def track(name: str, as_json: bool) -> None:
    """Run NAME, or an id or the beginning of one, again with every new bar, while `tidemill up` runs."""
    from tidemill.cli.common.session import workspace
    from tidemill.experiments.tracked import start_tracking

    with workspace() as opened:
        row = opened.call(start_tracking, opened.database, opened.settings.home, name)
    _say(row, as_json, tracked=True)


@experiments.command()
@click.argument("name")
@json_option
def untrack(name: str, as_json: bool) -> None:
    """Run NAME, or an id or the beginning of one, no longer by itself. What it made stays."""
    from tidemill.cli.common.session import workspace
    from tidemill.experiments.tracked import stop_tracking

    with workspace() as opened:
        row = opened.call(stop_tracking, opened.database, opened.settings.home, name)
    _say(row, as_json, tracked=False)


def _say(row: "StoredExperiment", as_json: bool, *, tracked: bool) -> None:
    if as_json:
        write_json({"experiment": row.id, "name": row.name, "tracked": tracked})
    else:
        click.echo(f"{row.name} ({row.id}) {'goes on with every new bar' if tracked else 'goes on no longer'}.")
