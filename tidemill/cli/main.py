"""`tidemill`: the command line. Each noun lives in its own file and is imported only when it is called."""

import atexit
import gc
import importlib
import os
import sys
from collections.abc import Sequence

import click

from tidemill.cli.common.output import fail
from tidemill.domain.errors import TidemillError

# name → (module:attribute, help). The help stands here so that `--help` imports nothing.
COMMANDS = {
    "run": ("tidemill.cli.run:run", "Take market data through features, models and predictions to a report."),
    "up": ("tidemill.cli.dagster:up", "Start the web UI, the daemon and JupyterLab, and print where they are."),
    "data": ("tidemill.cli.data:data", "Import, fetch, show, resample and export bars; list gaps."),
    "features": ("tidemill.cli.features:features", "List, explain and compute features."),
    "experiments": ("tidemill.cli.experiments:experiments", "List, show and check experiments; say which go on."),
    "deciders": ("tidemill.cli.deciders:deciders", "List, show and explain what decides for a book; run it again."),
    "models": ("tidemill.cli.models:models", "List and show trained models."),
    "champions": ("tidemill.cli.champions:champions", "List and show which models trade; promote, and take it back."),
    "trials": ("tidemill.cli.trials:trials", "List and compare what has been tried: every evaluation counts once."),
    "backtest": ("tidemill.cli.backtest:backtest", "Run a strategy, or your own weights, over bars."),
    "performance": ("tidemill.cli.performance:performance", "Metrics of a return series; the latest report."),
    "cache": ("tidemill.cli.cache:cache", "Show and clear the cache."),
    "config": ("tidemill.cli.config:config", "Show the settings in force and check a settings file."),
    "doctor": ("tidemill.cli.doctor:doctor", "Say what is wrong with this set-up and what to do about it."),
    "dagster": ("tidemill.cli.dagster:dagster", "Any `dagster …` command in the environment of this home."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are invoked, not when they are listed."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            alike = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {alike[0]!r}?" if alike else f" There are: {', '.join(COMMANDS)}."
            raise click.UsageError(f"There is no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute = COMMANDS[name][0].split(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)  # nosec B101 - a wrong table entry is a defect, not input
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="tidemill")
@click.option("--debug", is_flag=True, help="Show the traceback of an error and the log.")
@click.pass_context
def tidemill(ctx: click.Context, debug: bool) -> None:
    """Research and live trading in which everything is a declared asset with lineage."""
    ctx.obj = {"debug": debug}


def _explained(exc: Exception) -> TidemillError:
    """What nobody foresaw, as one sentence; a Parquet file that polars cannot read is one of the lake, for inputs are tried."""
    text = " ".join(f"{type(exc).__name__}: {exc}".split())[:300].rstrip(".: ")
    if type(exc).__module__.startswith("polars") and "parquet" in text.lower():
        return TidemillError(f"A file of the lake is damaged ({text}). Mend it with `tidemill data repair`.")
    return TidemillError(f"{text}. This is a defect of Tidemill; --debug shows where.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Exit code 0, 1 (failed: one sentence on stderr) or 2 (usage)."""
    # What is imported stays: to search it for garbage again and again, and once more at the end, takes a quarter of a command.
    gc.set_threshold(100_000, 50, 100)
    atexit.register(_leave_at_once)
    argv = list(sys.argv[1:] if arguments is None else arguments)
    # `--debug` is understood wherever it stands, as people append it to the command that just failed.
    debug = "--debug" in argv and argv[:1] != ["dagster"]
    if debug:
        argv = ["--debug", *(argument for argument in argv if argument != "--debug")]
        os.environ["TIDEMILL_LOG_LEVEL"] = "debug"  # a setting like any other, for the processes that are started too
    code = _run(argv) if debug else _in_one_sentence(argv)
    sys.exit(code if isinstance(code, int) else 0)


def _leave_at_once() -> None:
    """Spare an interpreter that ends the search for cycles in all that it holds: 0.6 s with Dagster loaded.

    duckdb takes what is not freed by then for a leak, and says so.
    """
    if "duckdb" not in sys.modules:
        gc.freeze()


def _in_one_sentence(argv: Sequence[str]) -> object:
    """`_run`; whatever fails is told in one sentence instead of a traceback."""
    try:
        return _run(argv)
    except TidemillError as exc:
        return fail(exc)
    except OSError as exc:
        where = f"{exc.filename}: " if exc.filename else ""
        text = f"{where}{exc.strerror or exc}. Check that it may be read and written and the disk has room."
        return fail(TidemillError(text))
    except Exception as exc:  # the outermost boundary: a defect of ours must not throw a traceback at a person
        return fail(_explained(exc))


def _run(argv: Sequence[str]) -> object:
    """Exit code of a command; what click and the shell say to each other is understood here."""
    stdout = sys.stdout
    try:
        return tidemill.main(args=list(argv), prog_name="tidemill", standalone_mode=False)
    except click.ClickException as exc:  # a wrong usage has exit code 2
        exc.show()
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        return 130
    except BrokenPipeError:
        return 0
    except SystemExit as exc:
        # click's way out when the reader went away, which is no failure: it puts another stdout in place first.
        return exc.code if sys.stdout is stdout else 0


if __name__ == "__main__":
    main()
