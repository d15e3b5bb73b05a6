"""`tidemill deciders`: what decides for each book of an experiment, since when, and whether it may still."""

from typing import TYPE_CHECKING, Any

import click

from tidemill.cli.common.output import json_option, number, write_json, write_table

if TYPE_CHECKING:
    from tidemill.metrics.calibration import Calibration
    from tidemill.storage.deciders import StoredDecider
    from tidemill.study.study import Study
    from tidemill.study.workspace import Workspace
    from tidemill.trading.decider import Decider


@click.group()
def deciders() -> None:
    """List, show and explain what decides; run a book again from it."""


@deciders.command("list")
@click.option("--experiment", help="Of one experiment, by name or id; all when left out.")
@click.option("--book", help="Of one book: ensemble, or an engine.")
@json_option
def list_deciders(experiment: str | None, book: str | None, as_json: bool) -> None:
    """Those of the newest run of each experiment, by book and time."""
    from tidemill.cli.common.session import workspace
    from tidemill.experiments.tracked import experiments_of, meant
    from tidemill.storage.deciders import in_force

    with workspace() as opened:
        known = opened.call(experiments_of, opened.database, opened.settings.home)
        chosen = None if experiment is None else meant(known, experiment).id
        rows = opened.call(in_force, opened.database, chosen, book)
    if as_json:
        write_json([_facts(row) for row in rows])
    elif not rows:
        click.echo("There is no such decider. `tidemill run` makes one for each fold and book.")
    else:
        names = {row.id: row.name for row in known}
        columns = ("decider", "experiment", "book", "from", "until")
        write_table("", columns, [(row.id, names.get(row.experiment, row.experiment), row.book, *_term(row)) for row in rows])


def _term(row: "StoredDecider") -> tuple[str, str]:
    return f"{row.valid_from:%Y-%m-%d %H:%M}", "–" if row.valid_to is None else f"{row.valid_to:%Y-%m-%d %H:%M}"


def _facts(row: "StoredDecider") -> dict[str, Any]:
    import msgspec

    return {**msgspec.structs.asdict(row), "content": msgspec.json.decode(row.content)}


@deciders.command()
@click.argument("decider_id", metavar="ID")
@json_option
def show(decider_id: str, as_json: bool) -> None:
    """What ID, or the beginning of one, is made of."""
    from tidemill.cli.common.session import workspace

    with workspace() as opened:
        row, decider = _read(opened, decider_id)
    if as_json:
        write_json(_facts(row))
        return
    start, end = _term(row)
    told = [("decider", row.id), ("experiment", row.experiment), ("book", row.book), ("from", start), ("until", end)]
    for label, value in (*told, *_content(decider)):
        click.echo(f"{label:15} {value}")
    models = [(name, model, number(decider.weights.get(name, 1.0), 4)) for name, model in decider.models.items()]
    write_table("", ("engine", "model", "weight"), models)


def _content(decider: "Decider") -> list[tuple[str, str]]:
    strategy = decider.strategy
    params = ", ".join(f"{name} {value}" for name, value in strategy.params.items())
    neutral = "" if strategy.neutralise is None else f", neutral by {strategy.neutralise.by}"
    return [
        ("strategy", f"{strategy.name} ({params}){neutral}"),
        ("anchor", f"{decider.anchor:%Y-%m-%d %H:%M} UTC"),
        ("features", f"{len(decider.features)} ({decider.feature_fingerprint[:12]})"),
        ("calendars", ", ".join(decider.calendars) or "–"),
        ("looks back", f"{decider.look_back} bars"),
        ("costs", f"{decider.costs.fee_bps:g} + {decider.costs.slippage_bps:g} basis points"),
    ]


@deciders.command()
@click.argument("decider_id", metavar="ID")
@json_option
def explain(decider_id: str, as_json: bool) -> None:
    """Whether ID may decide here: in force or not, and what is another one here than when it was made."""
    from tidemill.cli.common.session import workspace
    from tidemill.study.deciders import known_to
    from tidemill.trading.decider import strangers

    with workspace() as opened:
        row, decider = _read(opened, decider_id)
        told = strangers(decider, known_to(_study(opened, row)))
    force = "in force" if row.superseded_at is None else f"superseded on {row.superseded_at:%Y-%m-%d %H:%M} UTC"
    if as_json:
        write_json({"id": row.id, "superseded_at": row.superseded_at, "differs": told})
        return
    click.echo(f"{row.id} decides for {row.book} from {' until '.join(_term(row))} UTC; it is {force}.")
    click.echo("It was made by the code and libraries that are here." if not told else "It takes no new risk here:")
    for sentence in told:
        click.echo(f"  {sentence}")


@deciders.command()
@click.argument("decider_id", metavar="ID")
@json_option
def backtest(decider_id: str, as_json: bool) -> None:
    """Run the book of ID over its own range, bar by bar; the figures are those of the experiment for that range."""
    from tidemill.cli.common.progress import progress
    from tidemill.cli.common.session import workspace
    from tidemill.study.deciders import Term
    from tidemill.study.scheduled import figures_by

    with workspace() as opened:
        row, decider = _read(opened, decider_id)
        with progress(f"Stepping {row.book} through its bars"):
            found = figures_by(_study(opened, row), [Term(decider, row.valid_from, row.valid_to)])
    if as_json:
        write_json({"id": row.id, **found})
        return
    write_table("", ("figure", "value"), [(name.replace("_", " "), number(value, 4)) for name, value in found.items()])


@deciders.command()
@click.argument("decider_id", metavar="ID")
@json_option
def calibration(decider_id: str, as_json: bool) -> None:
    """Whether what signals claim of themselves came true as often, for the book of ID over all folds of its run."""
    from tidemill.cli.common.session import workspace
    from tidemill.study.calibrating import calibration_of
    from tidemill.study.deciders import terms_of

    with workspace() as opened:
        row, _ = _read(opened, decider_id)
        study = _study(opened, row)
        found = calibration_of(study, terms_of(study, row.experiment, row.book))
    if as_json:
        tenths, refuted = [one._asdict() for one in found.tenths], None if found.holds is None else not found.holds
        write_json({"book": row.book, "refuted": refuted, "allowed": found.allowed, "tenths": tenths})
        return
    click.echo(_verdict(row.book, found))
    columns = ("tenth", "outcomes", "claimed", "came true", "distance")
    told = [(str(at), f"{one[0]:,}", *(number(value, 3) for value in one[1:])) for at, one in enumerate(found.tenths, 1)]
    write_table("", columns, told)


def _verdict(book: str, found: "Calibration") -> str:
    if found.allowed is None:
        return f"The confidence of {book} is not judged: its run has too few outcomes of predictions with a confidence."
    largest = max(abs(one.distance) for one in found.tenths)
    return (
        f"The confidence of {book} is {'not ' if found.holds else ''}refuted: of ten tenths one lies {largest:.2f} standard "
        f"errors off, where chance alone explains {found.allowed:.2f}."
    )


def _read(opened: "Workspace", decider_id: str) -> "tuple[StoredDecider, Decider]":
    from tidemill.queries.deciders import decider_named
    from tidemill.trading.decider import from_text

    row = opened.call(decider_named, opened.database, decider_id)
    return row, from_text(row.content, row.id)


def _study(opened: "Workspace", row: "StoredDecider") -> "Study":
    """That of the experiment which a decider was made for."""
    from tidemill.experiments.tracked import content_of, experiments_of, meant
    from tidemill.study.sources import study_of

    known = opened.call(experiments_of, opened.database, opened.settings.home)
    return study_of(opened, content_of(meant(known, row.experiment)))
