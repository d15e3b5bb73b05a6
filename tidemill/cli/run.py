"""`tidemill run`: the main job."""

import gc
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tidemill.cli.common.arguments import INTERVAL, MOMENT, SYMBOLS, existing, experiment_option, ordered
from tidemill.cli.common.output import counted, fail, json_option, write_json
from tidemill.cli.common.progress import progress
from tidemill.cli.results import as_dict, write_result
from tidemill.domain.errors import StopError
from tidemill.domain.intervals import Interval

if TYPE_CHECKING:
    from tidemill.domain.ports import RunOutcome
    from tidemill.queries.results import Result


def _named_fields(ctx: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """Fields of the dataset that the command line names; what it leaves out is not there."""
    ordered(options["start"], options["end"])
    named = [name for name in options if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    return {name: _plain(options[name]) for name in named}


def _plain(value: Any) -> Any:
    """The value as an experiment file holds it."""
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Interval) else value


def _require_file(source: str) -> None:
    """A path that is wrong is said before anything starts."""
    if source.startswith("file:"):
        existing(Path(source.removeprefix("file:")).expanduser(), "file or folder")


@click.command()
@experiment_option
@click.option("--source", help="sample (default), file:PATH, binance, coinbase or kraken.")
@click.option("--symbols", type=SYMBOLS, default="", help="Separated by commas; all when left out.")
@click.option("--interval", type=INTERVAL, default="1d", show_default=True, help="Length of the bars.")
@click.option("--start", type=MOMENT, help="First bar, inclusive.")
@click.option("--end", type=MOMENT, help="Last bar, exclusive.")
@click.option(
    "--module",
    "modules",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Python file of your own features, label, engine and strategy, which then take part; may be repeated. "
    "With --experiment it only makes its names known.",
)
@json_option
@click.pass_context
def run(
    ctx: click.Context,
    /,
    file: Path | None,
    modules: tuple[Path, ...],
    as_json: bool,
    **dataset: Any,
) -> None:
    """Take market data through features, models and predictions to a report; what has not changed is not done again."""
    from tidemill.cli.common.notices import left_out
    from tidemill.cli.common.session import registry, workspace
    from tidemill.cli.dagster import orchestrator
    from tidemill.config import load_settings
    from tidemill.experiments.files import experiment_on
    from tidemill.experiments.tracked import experiments_of, id_of, origin_of, require_own_name
    from tidemill.queries.results import result_of
    from tidemill.storage.experiments import set_origin

    experiment = experiment_on(file, _named_fields(ctx, dataset), modules, registry=registry())
    _require_file(experiment.dataset.source)
    settings = load_settings()
    with workspace() as opened:
        if file is not None:
            require_own_name(opened.call(experiments_of, opened.database, settings.home), experiment, file)
        begun = time.monotonic()
        with progress("Loading the asset graph"), _for_good():
            main_job = orchestrator()
        outcome = main_job.run(experiment, home=settings.home)
        if not outcome.succeeded:
            ctx.exit(fail(StopError(outcome.failure)))
        if file is not None:
            opened.call(set_origin, opened.database, id_of(experiment), origin_of(file))
        with progress("Gathering the results"):
            result = opened.call(result_of, settings, experiment)
        missing = left_out(opened, experiment)
    if as_json:
        told = {"left_out": missing} if missing else {}
        write_json({"run_id": outcome.run_id, "steps": outcome.steps, "report": str(result.path), **as_dict(result), **told})
    else:
        _show(outcome, result, time.monotonic() - begun)
    for sentence in missing:
        click.echo(sentence, err=True)
    if result.failed:
        ctx.exit(fail(_incomplete(result.failed)))


@contextmanager
def _for_good() -> Iterator[None]:
    """What is made inside stays to the end, and is never searched for garbage: 0.14 of 2.0 s of a run with nothing to do."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _incomplete(failed: Mapping[str, str]) -> StopError:
    """What is missing of a result that is there."""
    told = " ".join(f"{engine}: {why}" for engine, why in failed.items())
    return StopError(f"{counted(len(failed), 'engine')} failed and {'is' if len(failed) == 1 else 'are'} left out. {told}")


def _show(outcome: "RunOutcome", result: "Result", seconds: float) -> None:
    worked = sum(step[2] for step in outcome.steps)
    write_result(result)
    for sentence in result.sentences:
        click.echo(sentence)
    click.echo(f"{worked} of {len(outcome.steps)} steps had work to do; {seconds:.1f} s in all, checks included.")
    click.echo(f"Report: {result.path}")
