"""`tidemill data`: bars in, bars out."""

from datetime import datetime
from pathlib import Path

import click

from tidemill.cli.arguments import INTERVAL, MOMENT, SYMBOLS
from tidemill.cli.output import json_option, number, write_json, write_table
from tidemill.domain.intervals import Interval


@click.group()
def data() -> None:
    """Import, fetch, show, resample and export bars; list gaps."""


def _report(report: object, as_json: bool) -> None:
    from tidemill.research.ingest import ImportReport

    assert isinstance(report, ImportReport)  # nosec B101 - narrows the type for the reader and mypy
    if as_json:
        write_json(report)
        return
    click.echo(
        f"{report.venue} {report.interval}: {report.rows:,} rows read, {report.inserted:,} new, {report.unchanged:,} unchanged, "
        f"{report.restated:,} restated, {report.quarantined:,} quarantined; {report.symbols} symbols"
        + (f", {report.start:%Y-%m-%d} to {report.end:%Y-%m-%d}." if report.start and report.end else ".")
    )
    for title, counts in (("quarantined", report.reasons), ("flagged", report.flags)):
        for reason, count in sorted(counts.items()):
            click.echo(f"  {title}: {reason.replace('_', ' ')}: {count:,}")
    if report.gaps:
        click.echo(f"  {report.gaps:,} gaps, {report.missing_bars:,} missing bars; `tidemill data gaps` lists them.")
    for note in report.notes:
        click.echo(f"  {note}")


@data.command("import")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--interval", type=INTERVAL, default="1d", show_default=True)
@click.option("--venue", help="Name to keep the bars under; by default made from the name of the file or folder.")
@click.option(
    "--calendar", type=click.Choice(["auto", "24/7", "XNYS"]), default="auto", show_default=True, help="When the venue trades."
)
@json_option
def import_(path: Path, interval: Interval, venue: str | None, calendar: str, as_json: bool) -> None:
    """Import CSV or Parquet bars: the good rows in, each bad one to quarantine with its reason and line."""
    from tidemill.cli.arguments import existing
    from tidemill.cli.session import workspace
    from tidemill.domain.market import Calendar
    from tidemill.market.files import FileSource
    from tidemill.research.ingest import import_bars

    chosen = None if calendar == "auto" else Calendar(calendar)
    source = FileSource(existing(path, "file"), venue=venue, calendar=chosen)
    with workspace() as opened:
        _report(import_bars(opened, source, interval=interval, calendar=chosen), as_json)


@data.command()
@click.option("--source", required=True, help="sample, file:PATH, binance, coinbase or kraken.")
@click.option("--symbols", type=SYMBOLS, default="", help="Separated by commas; all that the source has when left out.")
@click.option("--interval", type=INTERVAL, default="1d", show_default=True)
@click.option("--start", type=MOMENT, help="First open time, inclusive.")
@click.option("--end", type=MOMENT, help="Last open time, exclusive.")
@json_option
def sync(
    source: str, symbols: tuple[str, ...], interval: Interval, start: datetime | None, end: datetime | None, as_json: bool
) -> None:
    """Fetch what is new from a source."""
    from tidemill.cli.session import workspace
    from tidemill.market.sources import open_source
    from tidemill.research.ingest import import_bars

    with workspace() as opened:
        opened_source = open_source(source, opened.settings)
        _report(import_bars(opened, opened_source, interval=interval, symbols=symbols, start=start, end=end), as_json)


@data.command()
@click.argument("symbol")
@click.option("--interval", type=INTERVAL, help="Needed when the symbol exists in several intervals.")
@click.option("--venue", help="Needed when the symbol exists at several venues.")
@click.option("--start", type=MOMENT)
@click.option("--end", type=MOMENT)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="The newest N bars.")
@click.option("--as-of", type=MOMENT, help="What was known at this time, before later restatements.")
@click.option("--format", "form", type=click.Choice(["table", "json", "csv", "parquet"]), default="table", show_default=True)
def show(
    symbol: str,
    interval: Interval | None,
    venue: str | None,
    start: datetime | None,
    end: datetime | None,
    limit: int,
    as_of: datetime | None,
    form: str,
) -> None:
    """The newest bars of a symbol, also as they were known at an earlier time."""
    import sys

    from tidemill.cli.session import workspace
    from tidemill.research.browse import bars_of

    with workspace() as opened:
        frame = bars_of(opened, symbol, venue=venue, interval=interval, start=start, end=end, as_of=as_of, limit=limit)
    if form == "json":
        write_json(frame.to_dicts())
    elif form == "csv":
        sys.stdout.write(frame.write_csv())
    elif form == "parquet":
        frame.write_parquet(sys.stdout.buffer)
    else:
        columns = ("open_time", "open", "high", "low", "close", "volume", "known_at")
        rows = [
            [
                f"{row[0]:%Y-%m-%d %H:%M}",
                *(number(value, 6).rstrip("0").rstrip(".") for value in row[1:6]),
                f"{row[6]:%Y-%m-%d %H:%M}",
            ]
            for row in frame.select(columns).iter_rows()
        ]
        write_table(symbol, columns, rows)


@data.command()
@click.option("--venue")
@click.option("--interval", type=INTERVAL)
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True)
@json_option
def gaps(venue: str | None, interval: Interval | None, limit: int, as_json: bool) -> None:
    """Bars that should exist and do not, newest first."""
    from tidemill.cli.session import workspace
    from tidemill.research.browse import gaps_of

    with workspace() as opened:
        frame = gaps_of(opened, venue=venue, interval=interval).head(limit)
    if as_json:
        write_json(frame.to_dicts())
    elif frame.is_empty():
        click.echo("No gaps.")
    else:
        write_table("", tuple(frame.columns), [[str(cell) for cell in row] for row in frame.iter_rows()])


@data.command()
@click.option("--input", "source", type=click.Path(path_type=Path), required=True)
@click.option("--interval", type=INTERVAL, required=True, help="The longer interval to make.")
@click.option("--output", type=click.Path(path_type=Path), required=True)
@json_option
def resample(source: Path, interval: Interval, output: Path, as_json: bool) -> None:
    """Longer bars from shorter ones; bars of zero volume take no part, as at the exchange."""
    from tidemill.cli.arguments import writable
    from tidemill.cli.frames import write_frame
    from tidemill.market.resample import resample as resample_bars
    from tidemill.research.frames import read_bars

    writable(output)
    bars, given, refused = read_bars(source)
    made = resample_bars(bars, given, interval)
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
        click.echo(f"{answer['rows_in']:,} bars became {answer['rows_out']:,} of {interval}, written to {output}.")


@data.command()
@click.option("--venue", required=True)
@click.option("--interval", type=INTERVAL, required=True)
@click.option("--symbols", type=SYMBOLS, default="")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Parquet, CSV or Arrow, by its ending.")
@json_option
def export(venue: str, interval: Interval, symbols: tuple[str, ...], output: Path, as_json: bool) -> None:
    """Bars of a dataset from the lake into one file."""
    from tidemill.cli.arguments import writable
    from tidemill.cli.frames import write_frame
    from tidemill.cli.session import workspace
    from tidemill.research.browse import lake_bars

    writable(output)
    with workspace() as opened:
        frame = lake_bars(opened, venue, interval, symbols)
    write_frame(frame, output)
    answer = {"rows": frame.height, "symbols": frame["symbol"].n_unique(), "output": str(output)}
    if as_json:
        write_json(answer)
    else:
        click.echo(f"{answer['rows']:,} bars of {answer['symbols']} symbols written to {output}.")
