"""`tidemill data`: bars in, bars out."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidemill.calendars import NAMES
from tidemill.cli.bars import write_bars_csv, write_bars_table
from tidemill.cli.common.arguments import INTERVAL, MOMENT, SYMBOLS, existing, ordered, writable
from tidemill.cli.common.output import counted, json_option, write_json, write_table
from tidemill.cli.common.progress import Counted, progress
from tidemill.cli.pruning import prune
from tidemill.cli.repairing import repair
from tidemill.domain.intervals import Interval

if TYPE_CHECKING:
    import polars as pl

    from tidemill.steps.market_data.ingest import ImportReport


@click.group()
def data() -> None:
    """Import, fetch, show, resample and export bars; list gaps and rows in quarantine; repair and prune the home."""


data.add_command(repair)
data.add_command(prune)


def _report(report: "ImportReport", as_json: bool) -> None:
    if as_json:
        write_json(report)
        return
    click.echo(
        f"{report.venue} {report.interval}: {report.rows:,} rows read, {report.inserted:,} new, "
        f"{report.unchanged:,} unchanged, {report.restated:,} restated, {report.duplicates:,} repeated, "
        f"{report.quarantined:,} quarantined; "
        f"{counted(report.symbols, 'symbol')}"
        + (f", {report.start:%Y-%m-%d} to {report.end:%Y-%m-%d}." if report.start and report.end else ".")
    )
    for title, counts in (("quarantined", report.reasons), ("flagged", report.flags)):
        for reason, count in sorted(counts.items()):
            click.echo(f"  {title}: {reason.replace('_', ' ')}: {count:,}")
    if report.quarantined:
        click.echo("  `tidemill data quarantine` lists the rows in quarantine.")
    if report.gaps:
        missing = counted(report.missing_bars, "missing bar")
        click.echo(f"  {counted(report.gaps, 'gap')} with {missing}; `tidemill data gaps` lists them.")
    for note in filter(None, (report.loss, *report.notes)):
        click.echo(f"  {note}")


@data.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--interval", type=INTERVAL, default="1d", show_default=True, help="Length of the bars.")
@click.option("--venue", help="Name to keep the bars under; by default made from the name of the file or folder.")
@click.option(
    "--calendar",
    type=click.Choice(["auto", *NAMES]),
    default="auto",
    show_default=True,
    help="When its symbols trade; told by the bars of each when left out.",
)
@json_option
def import_(path: Path, interval: Interval, venue: str | None, calendar: str, as_json: bool) -> None:
    """Import CSV or Parquet bars: the good rows in, each bad one to quarantine with its reason and line."""
    from tidemill.cli.common.session import workspace
    from tidemill.market.files import FileSource
    from tidemill.steps.market_data.ingest import import_bars
    from tidemill.study.sources import claimed_venue, name_import

    chosen = None if calendar == "auto" else calendar
    source = FileSource(existing(path, "file"), venue=venue, calendar=chosen)
    with workspace() as opened, progress(f"Importing {path.name}") as say:
        if venue is not None:
            name_import(opened, source.venue)
        named = source.kept_under(claimed_venue(opened, source))
        report = import_bars(opened, Counted(named, say), interval=interval)
    _report(report, as_json)


@data.command()
@click.option("--source", required=True, help="sample, file:PATH, binance, coinbase or kraken.")
@click.option("--symbols", type=SYMBOLS, default="", help="Separated by commas; all that the source has when left out.")
@click.option("--interval", type=INTERVAL, default="1d", show_default=True, help="Length of the bars.")
@click.option("--start", type=MOMENT, help="First open time, inclusive.")
@click.option("--end", type=MOMENT, help="Last open time, exclusive.")
@json_option
def sync(
    source: str, symbols: tuple[str, ...], interval: Interval, start: datetime | None, end: datetime | None, as_json: bool
) -> None:
    """Fetch what is new from a source."""
    from tidemill.cli.common.session import workspace
    from tidemill.domain.experiment import DatasetSpec
    from tidemill.steps.market_data.ingest import import_bars
    from tidemill.study.sources import bar_source, claimed

    ordered(start, end)
    with workspace() as opened, progress(f"Fetching from {source}") as say:
        chosen = DatasetSpec(source=source)
        counted = Counted(bar_source(chosen, opened.settings, claimed(opened, chosen)), say)
        report = import_bars(opened, counted, interval=interval, symbols=symbols, start=start, end=end)
    _report(report, as_json)


@data.command()
@click.argument("symbol")
@click.option("--interval", type=INTERVAL, help="Needed when the symbol exists in several intervals.")
@click.option("--venue", help="Needed when the symbol exists at several venues.")
@click.option("--start", type=MOMENT, help="First open time, inclusive.")
@click.option("--end", type=MOMENT, help="Last open time, exclusive.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="The newest N bars.")
@click.option("--as-of", type=MOMENT, help="What was known at this time, before later restatements.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv", "parquet"]),
    default="table",
    show_default=True,
    help="How to write them on stdout.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def show(
    symbol: str,
    interval: Interval | None,
    venue: str | None,
    start: datetime | None,
    end: datetime | None,
    limit: int,
    as_of: datetime | None,
    form: str,
    as_json: bool,
) -> None:
    """The newest bars of a symbol, also as they were known at an earlier time."""
    import sys

    from tidemill.cli.common.session import workspace
    from tidemill.queries.bars import BarSelection, bar_rows_of, bars_of

    ordered(start, end)
    wanted = BarSelection(symbol=symbol, venue=venue, interval=interval, start=start, end=end, as_of=as_of, limit=limit)
    if form == "parquet" and not as_json:
        if sys.stdout.isatty():
            raise click.UsageError(
                "Parquet cannot be shown on a terminal. Redirect it to a file: … --format parquet > bars.parquet"
            )
        with workspace() as opened:
            frame = opened.call(bars_of, opened.database, wanted)
        frame.write_parquet(sys.stdout.buffer)
        return
    with workspace() as opened:
        found = opened.call(bar_rows_of, opened.database, wanted)
    if as_json or form == "json":
        write_json(found.rows)
    elif form == "csv":
        write_bars_csv(found.rows)
    else:
        write_bars_table(f"{symbol}, {found.dataset}", found.rows)


@data.command()
@click.option("--venue", help="Only of this venue.")
@click.option("--interval", type=INTERVAL, help="Only of bars of this length.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="The newest N gaps.")
@json_option
def gaps(venue: str | None, interval: Interval | None, limit: int, as_json: bool) -> None:
    """Bars that should exist and do not, newest first."""
    from tidemill.cli.common.session import workspace
    from tidemill.queries.datasets import gaps_of

    with workspace() as opened:
        found = opened.call(gaps_of, opened.database, venue=venue, interval=interval)
    frame = found.head(limit)
    if as_json:
        write_json(frame.to_dicts())
    elif frame.is_empty():
        click.echo("No gaps.")
    else:
        write_table("", ("venue", "interval", "symbol", "from", "until", "missing bars"), _cells(frame))
        if found.height > limit:
            click.echo(f"{found.height - limit:,} older gaps are not shown; --limit shows more.")


def _cells(frame: "pl.DataFrame") -> list[list[object]]:
    return [[f"{cell:%Y-%m-%d %H:%M}" if isinstance(cell, datetime) else cell for cell in row] for row in frame.iter_rows()]


@data.command()
@click.option("--venue", help="Only of this venue.")
@click.option("--interval", type=INTERVAL, help="Only of bars of this length.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most N rows.")
@json_option
def quarantine(venue: str | None, interval: Interval | None, limit: int, as_json: bool) -> None:
    """Rows of sources that are no bars, and why, in the order of their files and lines."""
    from tidemill.cli.common.session import workspace

    with workspace() as opened:
        frame = opened.call(opened.store.read_quarantine, venue, interval, limit=limit + 1)
    shown = frame.head(limit)
    if as_json:
        write_json(shown.to_dicts())
    elif frame.is_empty():
        click.echo("No row is in quarantine.")
    else:
        rows = shown.select("venue", "interval", "symbol", "open_time", "source", "source_line", "reason", "detail")
        write_table("", ("venue", "interval", "symbol", "time", "source", "line", "reason", "detail"), _cells(rows))
        if frame.height > limit:
            click.echo("There are more; --limit shows them.")


@data.command()
@click.argument("venue")
@click.option("--interval", type=INTERVAL, required=True, help="Length of the bars.")
@json_option
def confirm(venue: str, interval: Interval, as_json: bool) -> None:
    """Take a source that lost more than a tenth of its bars for whole: its books may be promoted again."""
    from tidemill.cli.common.session import workspace
    from tidemill.study.losses import confirm as confirm_source

    with workspace() as opened:
        loss = confirm_source(opened, venue, interval)
    if as_json:
        write_json({"venue": venue, "interval": str(interval), "confirmed": loss})
    elif loss is None:
        click.echo(f"{venue} {interval} has no loss to confirm.")
    else:
        click.echo(f"Confirmed: {venue} {interval} is whole without the {counted(loss.lost, 'bar')} that it lost.")


@data.command()
@click.option("--input", "source", type=click.Path(path_type=Path), required=True, help="CSV or Parquet of bars.")
@click.option("--interval", type=INTERVAL, required=True, help="The longer interval to make.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Parquet, CSV or Arrow, by its ending.")
@json_option
def resample(source: Path, interval: Interval, output: Path, as_json: bool) -> None:
    """Longer bars from shorter ones; bars of zero volume take no part, as at the exchange."""
    from tidemill.cli.frames import write_frame
    from tidemill.market.calendars import infer_calendars
    from tidemill.market.panel_files import read_bars
    from tidemill.market.resample import resample as resample_bars

    writable(output)
    with progress(f"Resampling {source.name}"):
        bars, given, refused = read_bars(source)
        made = resample_bars(bars, given, interval, calendar=infer_calendars(bars, given))
        write_frame(made, output)
    answer = {
        "rows_in": bars.height,
        "refused_rows": refused,
        "from_interval": str(given),
        "rows_out": made.height,
        "interval": str(interval),
        "output": str(output),
    }
    if as_json:
        write_json(answer)
    else:
        click.echo(f"{bars.height:,} bars of {given} became {made.height:,} of {interval}, written to {output}.")
        if refused:
            click.echo(f"{refused:,} rows were left out: they are not bars. `tidemill data import` says why.")


@data.command()
@click.option("--venue", required=True, help="Where the bars are from: sample, binance, or the name of an imported file.")
@click.option("--interval", type=INTERVAL, required=True, help="Length of the bars.")
@click.option("--symbols", type=SYMBOLS, default="", help="Separated by commas; all when left out.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Parquet, CSV or Arrow, by its ending.")
@json_option
def export(venue: str, interval: Interval, symbols: tuple[str, ...], output: Path, as_json: bool) -> None:
    """Bars of a dataset from the lake into one file."""
    from tidemill.cli.common.session import workspace
    from tidemill.cli.frames import write_frame
    from tidemill.queries.bars import lake_bars

    writable(output)
    with workspace() as opened, progress(f"Writing {output.name}"):
        frame = opened.call(lake_bars, opened.lake, venue, interval, symbols)
        write_frame(frame, output)
    answer = {"rows": frame.height, "symbols": frame["symbol"].n_unique(), "output": str(output)}
    if as_json:
        write_json(answer)
    else:
        symbols_there = counted(frame["symbol"].n_unique(), "symbol")
        click.echo(f"{counted(frame.height, 'bar')} of {symbols_there} written to {output}.")
