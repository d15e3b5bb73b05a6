"""`tidemill deciders`: what decides for each book of an experiment, since when, whether it may still, and its successor."""

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

from tidemill.cli.common.output import counted, fail, json_option, number, write_json, write_table
from tidemill.domain.errors import StopError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tidemill.maintenance.renewal import Departure, Renewal
    from tidemill.metrics.calibration import Calibration
    from tidemill.storage.deciders import StoredDecider
    from tidemill.study.study import Study
    from tidemill.study.workspace import Workspace
    from tidemill.trading.decider import Decider, Part


@click.group()
def deciders() -> None:
    """List, show, explain and renew what decides; run a book again from it."""


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
        rows = _of_book(opened.call(in_force, opened.database, chosen), book)
    if as_json:
        write_json([_facts(row) for row in rows])
    elif not rows:
        click.echo("There is no such decider. `tidemill run` makes one for each fold and book.")
    else:
        names = {row.id: row.name for row in known}
        columns = ("decider", "experiment", "book", "from", "until")
        write_table("", columns, [(row.id, names.get(row.experiment, row.experiment), row.book, *_term(row)) for row in rows])


def _of_book(rows: "list[StoredDecider]", book: str | None) -> "list[StoredDecider]":
    """All without a book. UnknownNameError for one that none of them decides for."""
    known = tuple(dict.fromkeys(row.book for row in rows))
    if book is not None and known and book not in known:
        raise UnknownNameError("book", book, known)
    return [row for row in rows if book in (None, row.book)]


def _term(row: "StoredDecider") -> tuple[str, str]:
    return f"{row.valid_from:%Y-%m-%d %H:%M}", "–" if row.valid_to is None else f"{row.valid_to:%Y-%m-%d %H:%M}"


def _facts(row: "StoredDecider") -> dict[str, Any]:
    return {**msgspec.structs.asdict(row), "content": msgspec.json.decode(row.content)}


class _Meant(NamedTuple):
    """The decider that a person named, with its row and the workspace in which it lies."""

    opened: "Workspace"
    row: "StoredDecider"
    decider: "Decider"

    @property
    def study(self) -> "Study":
        """That of the experiment which it was made for."""
        from tidemill.experiments.tracked import content_of, experiments_of, meant
        from tidemill.study.sources import study_of

        known = self.opened.call(experiments_of, self.opened.database, self.opened.settings.home)
        return study_of(self.opened, content_of(meant(known, self.row.experiment)))


@contextmanager
def _meant(decider_id: str) -> "Iterator[_Meant]":
    from tidemill.cli.common.session import workspace
    from tidemill.queries.deciders import decider_named
    from tidemill.trading.decider import from_text

    with workspace() as opened:
        row = opened.call(decider_named, opened.database, decider_id)
        yield _Meant(opened, row, from_text(row.content, row.id))


@deciders.command()
@click.argument("decider_id", metavar="ID")
@json_option
def show(decider_id: str, as_json: bool) -> None:
    """What ID, or the beginning of one, is made of."""
    with _meant(decider_id) as found:
        row, decider = found.row, found.decider
    if as_json:
        write_json(_facts(row))
        return
    start, end = _term(row)
    told = [("decider", row.id), ("experiment", row.experiment), ("book", row.book), ("from", start), ("until", end)]
    told += [("succeeds", row.succeeds)] if row.succeeds else []
    for label, value in (*told, *_content(decider)):
        click.echo(f"{label:15} {value}")
    models = [(name, model, number(decider.weights.get(name, 1.0), 4)) for name, model in decider.models.items()]
    write_table("", ("engine", "model", "weight"), models)


def _limits_of(decider: "Decider") -> str:
    limits = decider.limits
    if limits is None:
        return "none"
    held = f"{limits.position:g} of equity a position, {limits.gross:g} gross, {limits.net:g} net"
    levels = f"{limits.drawdown.block:g} / {limits.drawdown.reduce:g} / {limits.drawdown.flatten:g}"
    return f"{held}; block, reduce, flatten at a loss of {levels}; collar {limits.collar:g}"


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
        ("limits", _limits_of(decider)),
    ]


@deciders.command()
@click.argument("decider_id", metavar="ID")
@json_option
def explain(decider_id: str, as_json: bool) -> None:
    """Whether ID may decide here: in force or not, and what is another one here than when it was made."""
    from tidemill.study.deciders import known_to
    from tidemill.trading.decider import parts_of

    with _meant(decider_id) as found:
        row, parts = found.row, parts_of(found.decider, known_to(found.study))
    other = [part.name for part in parts if not part.same]
    if as_json:
        told = [{"name": part.name, "kind": part.kind, "made": part.made, "here": part.here or None} for part in parts]
        write_json({"id": row.id, "superseded_at": row.superseded_at, "differs": other, "parts": told})
        return
    force = "in force" if row.superseded_at is None else f"superseded on {row.superseded_at:%Y-%m-%d %H:%M} UTC"
    click.echo(f"{row.id} decides for {row.book} from {' until '.join(_term(row))} UTC; it is {force}.")
    write_table("", ("computes with", "when it was made", "here"), [(part.name, *_compared(part)) for part in parts])
    click.echo(_advice(row, other))


def _compared(part: "Part") -> tuple[str, str]:
    """A version of code says nothing to people; a library's does."""
    if part.kind == "library":
        return part.made, part.here
    return "its code of then", "the same" if part.same else "another" if part.here else "gone"


def _advice(row: "StoredDecider", other: list[str]) -> str:
    """What a person can do."""
    if row.superseded_at is not None:
        return "`tidemill deciders list` shows what is in force in its place."
    if not other:
        return "It was made by the code and libraries that are here."
    return (
        f"It takes no new risk here: {', '.join(other)} {'is' if len(other) == 1 else 'are'} not what it was made with. "
        f"`tidemill deciders renew {row.id}` makes its successor from the same models, if its signals return; "
        "`tidemill run` makes new deciders; or install the version of Tidemill and of the libraries that it was made with."
    )


@deciders.command()
@click.argument("decider_id", metavar="ID")
@click.option("--accept", is_flag=True, help="Also where signals do not return, or none is stored to compare with.")
@json_option
@click.pass_context
def renew(ctx: click.Context, decider_id: str, accept: bool, as_json: bool) -> None:
    """Make the successor of ID by the code that is here, from the same models.

    Its features are proven causal, and the stored signals on its last 500 bars are made again. The exit code is 1, and nothing
    is kept, when some do not return; they are listed.
    """
    from tidemill.cli.common.progress import progress
    from tidemill.maintenance.renewal import renew as renew_decider

    with _meant(decider_id) as found, progress(f"Stepping {found.row.book} through its bars"):
        row, done = found.row, renew_decider(found.study, found.row, accept=accept)
    if as_json:
        write_json({"id": row.id, "succeeds": None, "stored": False, "departures": []} if done is None else done)
    elif done is None:
        click.echo(f"{row.id} was made by the code and libraries that are here; there is nothing to renew.")
    else:
        _tell(done)
    if done is not None and not done.stored:
        ctx.exit(fail(StopError(_refusal(done))))


_SHOWN = 20


def _tell(done: "Renewal") -> None:
    if done.departures:
        columns = ("time", "symbol", "weight stored", "weight here", "confidence stored", "confidence here")
        write_table("", columns, map(_cells, done.departures[:_SHOWN]))
        if len(done.departures) > _SHOWN:
            click.echo(f"{len(done.departures) - _SHOWN:,} more are not shown; --json shows them.")
    if done.stored:
        compared = f"{counted(done.signals, 'signal')} on {counted(done.bars, 'bar')}"
        said = f"{len(done.departures):,} of {compared} differ, which was accepted" if done.departures else f"{compared} return"
        click.echo(f"{done.id} succeeds {done.succeeds}: {said if done.signals else 'without a signal to compare'}.")


def _cells(one: "Departure") -> list[str]:
    numbers = (one.weight, one.weight_here, one.confidence, one.confidence_here)
    return [f"{one.open_time:%Y-%m-%d %H:%M}", one.symbol, *(number(value, 9) for value in numbers)]


def _refusal(done: "Renewal") -> str:
    why = f"{len(done.departures):,} of its signals on the last {counted(done.bars, 'bar')} would be others"
    told = why if done.departures else "no signal of it is stored that could be compared"
    return f"The decider {done.succeeds} was not renewed: {told}. Give --accept if that is meant."


@deciders.command()
@click.argument("decider_id", metavar="ID")
@json_option
def backtest(decider_id: str, as_json: bool) -> None:
    """Run the book of ID over its own range, bar by bar.

    It begins with cash and no loss, where the experiment's own book comes to that range with what it holds and has lost.
    """
    from tidemill.cli.common.progress import progress
    from tidemill.study.deciders import Term, known_to
    from tidemill.study.scheduled import book_by, figures_of
    from tidemill.trading.decider import strangers

    with _meant(decider_id) as found, progress(f"Stepping {found.row.book} through its bars"):
        row, other = found.row, [part.name for part in strangers(found.decider, known_to(found.study))]
        result = book_by(found.study, [Term(found.decider, row.valid_from, row.valid_to)])
        figures = figures_of(found.study, result)
    if other:
        named = ", another ".join(other)
        click.echo(f"{row.id} was made with another {named}: these are figures of what is here now.", err=True)
    if as_json:
        limits = msgspec.to_builtins(result.limits)
        write_json({"id": row.id, "differs": other, **figures, "limits": limits, "notes": result.notes})
        return
    write_table("", ("figure", "value"), [(name.replace("_", " "), number(value, 4)) for name, value in figures.items()])
    for note in result.notes:
        click.echo(note)


@deciders.command()
@click.argument("decider_id", metavar="ID")
@json_option
def calibration(decider_id: str, as_json: bool) -> None:
    """Whether what signals claim of themselves came true as often, for the book of ID over all folds of its run."""
    from tidemill.study.calibrating import calibration_of
    from tidemill.study.deciders import terms_of

    with _meant(decider_id) as meant:
        row, study = meant.row, meant.study
        found = calibration_of(study, terms_of(study, row.experiment, row.book))
    if as_json:
        tenths, refuted = [one._asdict() for one in found.tenths], None if found.holds is None else not found.holds
        times = {"times": found.times, "needed": found.needed}
        write_json({"id": row.id, "book": row.book, "refuted": refuted, "allowed": found.allowed, **times, "tenths": tenths})
        return
    click.echo(_verdict(row, found))
    columns = ("tenth", "outcomes", "claimed", "came true", "distance")
    told = [(str(at), f"{one[0]:,}", *(number(value, 3) for value in one[1:])) for at, one in enumerate(found.tenths, 1)]
    write_table("", columns, told)


def _verdict(row: "StoredDecider", found: "Calibration") -> str:
    of = f"The confidence of {row.book}, for which {row.id} decides,"
    if found.allowed is None:
        return (
            f"{of} is not judged: its run has outcomes of predictions with a confidence at {counted(found.times, 'bar time')}, "
            f"and {found.needed:,} are needed. A longer history brings them, or a shorter label.horizon asks for fewer."
        )
    largest = max(abs(one.distance) for one in found.tenths)
    return (
        f"{of} is {'not ' if found.holds else ''}refuted over all folds of its run: of ten tenths one lies {largest:.2f} "
        f"standard errors off, where chance alone explains {found.allowed:.2f}."
    )
