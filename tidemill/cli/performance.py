"""`tidemill performance`: metrics of a return series, and where the latest report is."""

from pathlib import Path

import click

from tidemill.cli.output import json_option, number, write_json, write_table


@click.group()
def performance() -> None:
    """Metrics of a return series; the latest report."""


@performance.command()
@click.option("--input", "path", type=click.Path(path_type=Path), required=True, help="CSV or Parquet of date, return.")
@click.option(
    "--periods-per-year", type=click.FloatRange(min=0, min_open=True), default=252.0, show_default=True, help="Bars in a year."
)
@json_option
def metrics(path: Path, periods_per_year: float, as_json: bool) -> None:
    """Return, risk and tail figures of simple returns, in the conventions of empyrical."""
    import polars as pl

    from tidemill.cli.frames import read_frame, require_columns
    from tidemill.domain.errors import InputError
    from tidemill.metrics.returns import performance_metrics

    frame = read_frame(path, "return file")
    require_columns(frame, ("date", "return"), path)
    if not frame["return"].dtype.is_numeric():
        raise InputError(f"The column `return` of {path} holds something that is not a number. Use fractions such as 0.012.")
    returns = frame.sort("date")["return"].cast(pl.Float64).to_numpy()
    found = performance_metrics(returns, periods_per_year)
    if as_json:
        write_json(found)
    else:
        write_table("", ("metric", "value"), [(name.replace("_", " "), number(value, 4)) for name, value in found.items()])


@performance.command()
@json_option
def report(as_json: bool) -> None:
    """Where the latest report is, and its headline figures."""
    from tidemill.cli.session import workspace
    from tidemill.domain.errors import InputError
    from tidemill.research.results import latest_report

    with workspace() as opened:
        found = latest_report(opened)
    if found is None:
        raise InputError("There is no report yet. Run `tidemill run` first.")
    if as_json:
        write_json(found)
        return
    write_table(f"{found.experiment}", ("engine", *found.columns), found.rows)
    click.echo(f"Report: {found.path}")
