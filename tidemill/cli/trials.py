"""`tidemill trials`: what has been tried, and what that makes of the best of it."""

import click

from tidemill.cli.common.output import json_option, number, write_json, write_table
from tidemill.cli.common.progress import progress
from tidemill.domain.naming import first_of


@click.group()
def trials() -> None:
    """The ledger of every evaluation of a configuration on data: list, compare, reset."""


@trials.command("list")
@click.option("--experiment", help="Only those of this experiment.")
@click.option("--family", help="Only those of this source and interval, such as binance.1h.")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="The newest so many (--json: all).")
@json_option
def list_trials(experiment: str | None, family: str | None, limit: int, as_json: bool) -> None:
    """Every trial, newest last: a configuration on one version of data, however often it was run."""
    from tidemill.cli.common.session import workspace
    from tidemill.queries.trials import list_trials as listed
    from tidemill.queries.trials import since

    with workspace() as opened, progress("Reading the ledger"):
        found = opened.call(listed, opened.database, experiment=experiment, family=family)
        begun = opened.call(since, opened.database)
    if as_json:
        write_json({"since": begun.since, "forgotten": begun.forgotten, "trials": found.to_dicts()})
        return
    shown = found.tail(limit)
    columns = ("trial", "counted", "experiment", "engine", "kind", "source", "periods", "Sharpe a year")
    rows = [
        (row["trial"], f"{row['counted_at']:%Y-%m-%d %H:%M}", row["experiment"], row["engine"], row["kind"], row["family"],
         row["observations"], number(row["sharpe"], 2))
        for row in shown.to_dicts()
    ]  # fmt: skip
    if rows:
        write_table("", columns, rows)
    click.echo(f"{found.height:,} trials{_shown(shown.height, found.height)}, counted since {begun.since:%Y-%m-%d %H:%M} UTC.")
    if begun.forgotten:
        click.echo(f"The ledger was reset then and forgot {begun.forgotten:,} trials: {begun.reason}")


def _shown(shown: int, of: int) -> str:
    return f" (the newest {shown:,} shown)" if shown < of else ""


@trials.command()
@click.argument("trial_ids", nargs=-1, metavar="[TRIAL]…")
@click.option("--experiment", help="All trials of this experiment.")
@json_option
def compare(trial_ids: tuple[str, ...], experiment: str | None, as_json: bool) -> None:
    """Trials side by side: Sharpe ratios with intervals, deflated by all that was tried on that source, and PBO."""
    if bool(trial_ids) == (experiment is not None):
        raise click.UsageError("Name trials by their ids, or all of an experiment with --experiment NAME.")
    from tidemill.cli.common.session import workspace
    from tidemill.queries.trials import compare_trials
    from tidemill.reports.numbers import interval, percent
    from tidemill.reports.numbers import number as signed

    with workspace() as opened, progress("Comparing"):
        found = opened.call(compare_trials, opened.database, opened.lake, trial_ids, experiment=experiment)
    if as_json:
        write_json(found)
        return
    columns = ("trial", "engine", "kind", "periods", "Sharpe a year", "95 % interval", "deflated", "clustered", "PBO when best")
    rows = [
        (row.trial, row.engine, row.kind, row.observations, signed(row.sharpe), interval(row.sharpe_low, row.sharpe_high),
         percent(row.deflated_sharpe), percent(row.deflated_sharpe_clustered), percent(row.pbo_when_best))
        for row in sorted(found.rows, key=lambda row: -(row.sharpe or 0.0))
    ]  # fmt: skip
    write_table("", columns, rows)
    click.echo(
        f"{found.counted:,} trials on {found.family} since {found.since:%Y-%m-%d}, {found.clusters:,} of them different; the "
        f"best of so many without skill shows a Sharpe ratio of about {signed(found.expected_maximum_sharpe)}."
    )
    if lost := [row.trial for row in found.rows if row.returns_lost]:
        what = f"{'s' * (len(lost) != 1)} {'have' if len(lost) != 1 else 'has'}"
        click.echo(
            f"{len(lost):,} trial{what} no returns any more, and so no interval ({first_of(lost)}). "
            "Run what made them again; where its data changed since, they stay lost."
        )
    if found.pbo is None:
        click.echo("PBO needs two trials that traded over the same time.")
    else:
        click.echo(f"PBO among {found.pbo_trials} of those compared: {percent(found.pbo)} ({found.pbo_blocks} blocks).")


@trials.command()
@click.option("--reason", required=True, help="Why; shown wherever the ledger says since when it counts.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def reset(reason: str, yes: bool, as_json: bool) -> None:
    """Forget all trials. From then on results say since when the ledger counts, and how many it forgot."""
    from tidemill.cli.common.session import workspace
    from tidemill.study.counting import reset as begin_anew

    if not yes:
        click.confirm("Forget every trial that was counted?", abort=True, err=True)
    with workspace() as opened:
        begun = begin_anew(opened, reason)
    if as_json:
        write_json(begun)
    else:
        click.echo(f"{begun.forgotten:,} trials are forgotten. The ledger counts since {begun.since:%Y-%m-%d %H:%M} UTC.")
