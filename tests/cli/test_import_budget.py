"""What each command may import: that decides its seconds, which a busy machine cannot tell."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from tidemill.cli.main import COMMANDS
from tidemill.config import Secret

# Nothing but click, msgspec and the standard library is needed to explain a command.
HELP = (
    *("polars", "numpy", "pandas", "pyarrow", "numba", "scipy", "torch", "lightgbm", "duckdb", "asyncpg", "redis", "httpx"),
    *("exchange_calendars", "great_expectations", "dagster", "matplotlib", "plotly", "jinja2", "yaml", "rich", "structlog"),
    *("sqlalchemy", "safetensors", "asyncio", "tidemill.steps", "tidemill.study", "tidemill.storage"),
)
# What a quick look may not cost, however it is asked for.
HEAVY = (
    *("pandas", "pyarrow", "numba", "scipy", "torch", "lightgbm", "duckdb", "redis", "httpx", "exchange_calendars"),
    *("great_expectations", "dagster", "matplotlib", "plotly", "rich", "structlog", "sqlalchemy", "safetensors"),
)
SHOW = (*HEAVY, "polars", "numpy", "yaml", "jinja2")

_LIST = "import json, sys; json.dump(sorted(sys.modules), sys.stderr)"
_CALL = f"""
import sys
from tidemill.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as stopped:
    {_LIST}
    sys.exit(stopped.code)
"""


def modules_after(*arguments: object) -> set[str]:
    """Top-level modules, and those of the project, in a process that carried out a command."""
    command = [sys.executable, "-P", "-c", _CALL, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    assert done.stdout
    return set(json.loads(done.stderr))


def imported(forbidden: tuple[str, ...], modules: set[str]) -> list[str]:
    return sorted(name for name in forbidden if name in modules)


@pytest.fixture
def home(tmp_path: Path, fresh_dsn: Secret, redis_url: Secret, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TIDEMILL_POSTGRES_DSN", fresh_dsn.reveal())
    monkeypatch.setenv("TIDEMILL_REDIS_URL", redis_url.reveal())
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        *((name,) for name in COMMANDS),
        *(("data", name) for name in ("import", "sync", "show", "gaps", "quarantine", "resample", "export", "prune")),
        *(("experiments", name) for name in ("list", "show", "check", "track", "untrack")),
        *(("deciders", name) for name in ("list", "show", "explain", "renew", "backtest", "calibration")),
        *(("features", name) for name in ("list", "explain", "compute")),
        *(("models", name) for name in ("list", "show")),
        *(("champions", name) for name in ("list", "show", "promote", "undo")),
        *(("trials", name) for name in ("list", "compare", "reset")),
        *(("performance", name) for name in ("metrics", "report")),
        *(("cache", name) for name in ("show", "clear")),
        *(("config", name) for name in ("show", "check")),
    ],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    assert imported(HELP, modules_after(*arguments, "--help")) == []


def test_every_command_has_json_and_explains_every_option() -> None:
    import click

    from tidemill.cli.main import tidemill

    def leaves(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
        if not isinstance(command, click.Group):
            return [(path, command)]
        context = click.Context(command)
        names = command.list_commands(context)
        found = [(name, command.get_command(context, name)) for name in names]
        return [leaf for name, inner in found if inner for leaf in leaves(inner, f"{path} {name}".strip())]

    for path, command in leaves(tidemill, ""):
        options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
        assert command.help, path
        if path != "dagster":  # whose options are Dagster's own
            assert "--json" in [text for option in options for text in option.opts], path
        assert [option.opts for option in options if not option.help] == [], path


def test_showing_bars_imports_neither_frames_nor_numerics(home: Path) -> None:
    from tests.study.panels import daily_bars

    daily_bars(30, ("AAA",)).write_csv("panel.csv")
    modules_after("data", "import", "panel.csv")
    for form in ("table", "json", "csv"):
        assert imported(SHOW, modules_after("data", "show", "AAA", "--format", form)) == []


def test_bars_as_parquet_go_through_a_pipe(home: Path) -> None:
    from tests.study.panels import daily_bars

    bars = daily_bars(30, ("AAA",))
    bars.write_csv("panel.csv")
    modules_after("data", "import", "panel.csv")
    command = [sys.executable, "-P", "-m", "tidemill.cli.main", "data", "show", "AAA", "--format", "parquet"]
    done = subprocess.run(command, capture_output=True, timeout=60, check=True)
    assert pl.read_parquet(done.stdout)["close"].to_list() == bars["close"].tail(20).to_list()
    assert done.stderr == b""


def test_listing_features_imports_no_numerics(home: Path) -> None:
    assert imported((*HEAVY, "polars", "numpy", "asyncpg"), modules_after("features", "list")) == []
    assert imported((*HEAVY, "polars", "numpy", "asyncpg"), modules_after("features", "explain", "ROC5")) == []


def test_showing_settings_imports_next_to_nothing(home: Path) -> None:
    assert imported(HELP, modules_after("config", "show")) == []


@pytest.mark.parametrize("noun", ["experiments", "deciders", "champions"])
def test_listing_what_postgres_holds_imports_neither_frames_nor_numerics(home: Path, noun: str) -> None:
    assert imported((*HEAVY, "polars", "numpy", "yaml"), modules_after(noun, "list")) == []


def test_naming_what_can_be_removed_imports_no_compiler_and_no_model(home: Path) -> None:
    assert imported(HEAVY, modules_after("data", "prune", "--json")) == []


def test_metrics_of_returns_import_polars_and_numpy_alone(home: Path) -> None:
    Path("returns.csv").write_text("date,return\n2024-01-02,0.01\n2024-01-03,-0.02\n")
    assert imported((*HEAVY, "asyncpg", "yaml"), modules_after("performance", "metrics", "--input", "returns.csv")) == []


def test_a_run_loads_no_compiler_and_no_model_before_it_knows_what_there_is_to_do(home: Path) -> None:
    """Dagster comes with some of these; what is ours waits until a step has work."""
    script = f"import orchestration.runner, definitions, tidemill.queries.results; {_LIST}"
    command = [sys.executable, "-P", "-W", "ignore", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    ours = {*HEAVY, "arch", "skfolio", "hmmlearn"} - {"dagster", "rich", "structlog", "sqlalchemy"}
    assert imported(tuple(ours), set(json.loads(done.stderr))) == []
