"""`tidemill models search`: hyper-parameters of one engine on the folds before a held-out tail."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidemill.cli.common.arguments import experiment_option
from tidemill.cli.common.output import json_option, write_json, write_table

if TYPE_CHECKING:
    from tidemill.evaluation.search import Searched


@click.command()
@click.argument("engine")
@experiment_option
@click.option("--source", help="sample (default), file:PATH, binance, coinbase or kraken.")
@click.option("--trials", type=click.IntRange(1, 100_000), default=20, show_default=True, help="In all, earlier ones included.")
@click.option("--metric", type=click.Choice(["rank_ic", "sharpe"]), default="rank_ic", show_default=True, help="To maximise.")
@click.option("--held-out", type=click.IntRange(1), help="Folds at the end that take no part; a quarter when left out.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the experiment with the best ones here.")
@json_option
def search(
    engine: str,
    file: Path | None,
    source: str | None,
    trials: int,
    metric: str,
    held_out: int | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Search the parameters of ENGINE; a search that was stopped goes on. Every trial is counted in the ledger."""
    import msgspec

    from tidemill.cli.common.progress import progress
    from tidemill.cli.common.session import registry, workspace
    from tidemill.durable import write_file
    from tidemill.evaluation import search as searching
    from tidemill.experiments.files import experiment_on
    from tidemill.study.sources import study_of

    experiment = experiment_on(file, {"source": source} if source else {}, registry=registry())
    with workspace() as opened, progress(f"Searching {trials} trials of {engine}"):
        wanted: searching.Metric = "sharpe" if metric == "sharpe" else "rank_ic"
        found = searching.search(study_of(opened, experiment), engine, trials=trials, metric=wanted, held_out=held_out)
    if output is not None:
        write_file(output, searching.experiment_text(found.experiment).encode())
    if as_json:
        write_json(msgspec.to_builtins(found))
    else:
        _show(found)


def _show(found: "Searched") -> None:
    names = list(found.params)
    best = sorted((row for row in found.trials if row["value"] is not None), key=lambda row: -row["value"])[:10]
    rows = [(row["number"], row["value"], *(row["params"][name] for name in names)) for row in best]
    title = f"{found.engine}: best of {len(found.trials)} trials on {found.folds} folds"
    write_table(title, ("trial", found.metric, *names), rows)
    held = found.held_out
    click.echo(
        f"On the {found.held_out_folds} held-out folds, which took no part: rank IC {_number(held.rank_ic)}, "
        f"Sharpe ratio after costs {_number(held.sharpe)}."
    )


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"
