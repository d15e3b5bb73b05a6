"""`tidemill performance`: metrics of a return series, and where the latest report is."""

from pathlib import Path

import click

from tidemill.cli.common.output import json_option, number, write_json, write_table
from tidemill.cli.common.progress import progress


@click.group()
def performance() -> None:
    """Metrics of a return series; the latest report."""


@performance.command()
@click.option("--input", "path", type=click.Path(path_type=Path), required=True, help="CSV or Parquet of date, return.")
@click.option(
    "--periods-per-year",
    type=click.FloatRange(min=0, min_open=True),
    default=252.0,
    show_default=True,
    help="Returns in a year: 252 for trading days, 365 for calendar days, 8760 for hours.",
)
@json_option
def metrics(path: Path, periods_per_year: float, as_json: bool) -> None:
    """Return, risk and tail figures of simple returns, in the conventions of empyrical; no value where one is not defined."""
    from tidemill.market.column_files import read_returns
    from tidemill.metrics.returns import performance_metrics

    with progress(f"Reading {path.name}"):
        found = performance_metrics(read_returns(path), periods_per_year)
    if as_json:
        write_json(found)
    else:
        write_table("", ("metric", "value"), [(name.replace("_", " "), number(value, 4)) for name, value in found.items()])


@performance.command()
@json_option
def report(as_json: bool) -> None:
    """Where the latest report is, and its headline figures."""
    from tidemill.cli.common.session import workspace
    from tidemill.cli.results import as_dict, write_result
    from tidemill.domain.errors import InputError
    from tidemill.queries.results import latest_result

    with workspace() as opened, progress("Looking for the latest report"):
        found = opened.call(latest_result, opened.settings)
    if found is None:
        raise InputError("There is no report yet. Run `tidemill run` first.")
    if as_json:
        told = as_dict(found)
        where = {"experiment": told.pop("experiment"), "dataset": told.pop("dataset"), "key": found.key, "path": found.path}
        write_json({**where, "sentences": told.pop("summary"), **told})
        return
    write_result(found)
    click.echo(f"Report: {found.path}")
