"""`tidemill up` and `tidemill dagster`: the orchestrator, reached through the port that it implements."""

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, cast

import click

from tidemill.cli.common.output import json_option
from tidemill.cli.common.progress import progress

if TYPE_CHECKING:
    from tidemill.domain.ports import Orchestrator


def orchestrator() -> "Orchestrator":
    """The orchestrator that this installation names; ConfigError when there is none."""
    from tidemill.domain.errors import ConfigError

    found = entry_points(group="tidemill.orchestrator")
    if not found:
        raise ConfigError("No orchestrator is installed. Run scripts/run once; it installs the project.")
    return cast("Orchestrator", next(iter(found)).load()())


@click.command()
@click.option("--open", "open_browser", is_flag=True, help="Open the sign-in link in the browser.")
@json_option
@click.pass_context
def up(ctx: click.Context, open_browser: bool, as_json: bool) -> None:
    """Start the web UI, the daemon and JupyterLab; ctrl-C stops all of it."""
    with progress("Loading the asset graph"):
        services = orchestrator()
    ctx.exit(services.up(open_browser=open_browser, as_json=as_json))


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="COMMAND …")
@click.pass_context
def dagster(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Any `dagster …` command in the environment of this home, for example `tidemill dagster run list`.

    Options are Dagster's own. `tidemill dagster help` lists its commands, `tidemill dagster asset --help` explains one.
    """
    if arguments in ((), ("--help",), ("-h",)):  # answered here: Dagster takes seconds to say it
        click.echo(ctx.get_help())
        return
    given = ["--help"] if arguments == ("help",) else list(arguments)
    ctx.exit(orchestrator().command(given))
