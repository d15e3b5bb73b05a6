"""`--module FILE.py`: the README's file from the command line to a row of the report, and files that are wrong."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.cli.conftest import Answer, Tidemill
from tests.databases import new_database
from tests.study.panels import daily_bars
from tests.user_modules.conftest import estimator, example
from tidemill.embedded import Servers

GAP = 'feature("cli_gap", close / mean(close, 20) - 1, unit="ratio", about="distance to the mean")\n'
ENDLESS = "def never(bars):\n    while True: pass\nfeatures(never, columns=['cli_never'])\n"
READS = "def peeks(bars):\n    return open('/etc/passwd').read()\nfeatures(peeks, columns=['cli_peeks'])\n"


def command(*arguments: str) -> Answer:
    """The command line in a process of its own, as a person starts it."""
    call = [sys.executable, "-P", "-m", "tidemill.cli.main", *arguments]
    done = subprocess.run(call, capture_output=True, text=True, timeout=240, check=False)
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def module(work: Path) -> Path:
    """A file to be written."""
    return work / "mine.py"


def worked(answer: Any) -> set[str]:
    return {name for name, _, had_work in answer["steps"] if had_work}


FAILING = """
def refuses(training):
    raise ValueError("no rank")


engine("boom", refuses, lambda model, frame: frame["my_gap"])


def remembers(training):
    return Ridge().fit([[1.0], [2.0]], [1.0, 2.0])


engine("unstored", remembers, lambda model, frame: frame["my_gap"])
"""


# That a changed part makes stale what depends on it alone is in tests/user_modules/test_example.py as well.
@pytest.mark.parametrize("changed", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_file_of_one_s_own_goes_from_the_option_to_rows_of_the_report_and_an_engine_that_fails_costs_its_own(
    home: Path, tidemill: Tidemill, changed: bool
) -> None:
    (home / "mine.py").write_text(example() + estimator() + FAILING)
    daily_bars(170).write_csv(home / "panel.csv")  # little more than the least for six folds
    run = ("run", "--module", "mine.py", "--source", "file:panel.csv", "--json")
    first = command(*run)
    assert first.code == 1
    assert [row["book"] for row in first.json["engines"]] == ["ensemble", "momentum", "ridge", "my_engine", "my_ridge"]
    assert set(first.json["failed"]) == {"boom", "unstored"}
    assert first.json["summary"][0].startswith("The engine boom failed and is missing here: ")
    assert first.err.startswith("Error: 2 engines failed and are left out. boom: ")
    assert "no rank" in first.err
    assert "fit of the engine unstored must return a dict of names to numbers or arrays. For any other model give" in first.err
    assert "models/my_engine" in worked(first.json)
    report = Path(first.json["report"])
    assert "my_engine" in report.read_text(encoding="utf-8")
    kept = json.loads((report.parent / "experiment.json").read_text())
    assert (kept["label"], kept["strategy"]["name"]) == ({"horizon": 3, "name": "my_label"}, "my_strategy")
    assert kept["features"]["names"] == ["my_gap", "my_reversal"]

    if not changed:
        return
    (home / "mine.py").write_text(example().replace("held=2", "held=1"))
    second = tidemill(*run)
    assert second.code == 0, second.err
    assert [row["book"] for row in second.json["engines"]] == ["ensemble", "momentum", "ridge", "my_engine"]
    assert "trading/signals" in worked(second.json)
    assert not {"features/technical", "features/training_set", "models/my_engine", "models/ridge"} & worked(second.json)


TWICE = """
import sys
from tidemill.cli.main import main
for module in sys.argv[1:]:
    try:
        main(["run", "--module", module, "--source", "file:panel.csv", "--json"])
    except SystemExit as end:
        assert end.code == 0
"""


@pytest.mark.long  # its short form is in tests/study/test_registry.py
def test_one_process_runs_two_files_that_declare_the_same_names_and_each_gets_its_own_results(
    home: Path, servers: Servers, migrated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = (
        example().replace("my_engine", "your_engine").replace("mean(close, 20)", "mean(close, 10)").replace("held=2", "held=3")
    )
    (home / "mine.py").write_text(example())
    (home / "yours.py").write_text(other.replace("held=2", "held=3"))
    daily_bars(300).write_csv(home / "panel.csv")
    done = subprocess.run(
        [sys.executable, "-c", TWICE, "mine.py", "yours.py"], capture_output=True, text=True, timeout=240, check=True
    )
    runs = [json.loads(text) for text in done.stdout.strip().replace("}\n{", "}\0{").split("\0")]
    assert [[row["book"] for row in run["engines"]][-1] for run in runs] == ["my_engine", "your_engine"]
    assert runs[0]["report"] != runs[1]["report"]
    with new_database(servers.postgres_dsn, migrated) as dsn:
        monkeypatch.setenv("TIDEMILL_HOME", str(home / "alone"))
        monkeypatch.setenv("TIDEMILL_POSTGRES_DSN", dsn.reveal())
        alone = command("run", "--module", "yours.py", "--source", "file:panel.csv", "--json")
    assert alone.code == 0, alone.err
    assert _figures(alone.json) == _figures(runs[1])
    assert _figures(alone.json) != _figures(runs[0])


def _figures(run: Any) -> list[dict[str, Any]]:
    """Figures by book, but for those that count the trials of a ledger."""
    counting = ("deflated", "trial", "pbo", "expected")
    return [{name: value for name, value in row.items() if not name.startswith(counting)} for row in run["engines"]]


def test_a_file_computes_is_listed_and_is_explained(panel_file: Path, module: Path, tidemill: Tidemill) -> None:
    module.write_text(example())
    answer = tidemill("features", "compute", "--input", panel_file, "--module", module, "--output", "out.parquet", "--json")
    assert (answer.code, answer.json["features"]) == (0, 2)
    frame = pl.read_parquet("out.parquet")
    assert frame.columns == ["symbol", "open_time", "my_gap", "my_reversal"]
    assert frame["my_reversal"].is_finite().sum() == 2 * 115
    assert [row["name"] for row in tidemill("features", "list", "--module", module, "--json").json] == ["my_gap", "my_reversal"]
    told = tidemill("features", "explain", "my_reversal", "--module", module, "--json").json
    assert (told["lookback"], told["unit"], told["about"]) == (6, "ratio", "minus the return of five bars")


def test_batch_and_stream_agree_to_the_bit_on_functions_too(panel_file: Path, module: Path, tidemill: Tidemill) -> None:
    module.write_text(example())
    pl.read_csv(panel_file).group_by("symbol", maintain_order=True).head(40).write_csv(panel_file)
    for engine in ("batch", "stream"):
        done = tidemill(
            "features",
            "compute",
            "--input",
            panel_file,
            "--module",
            module,
            "--engine",
            engine,
            "--output",
            f"{engine}.parquet",
        )
        assert done.code == 0, done
    assert pl.read_parquet("batch.parquet").equals(pl.read_parquet("stream.parquet"))


def test_what_fails_is_named_and_the_rest_is_written(
    panel_file: Path, module: Path, tidemill: Tidemill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMILL_MODULE_SECONDS", "2")
    module.write_text(GAP + ENDLESS + READS)
    done = tidemill("features", "compute", "--input", panel_file, "--module", module, "--output", "out.parquet", "--json")
    assert done.code == 1
    assert set(done.json["left_out"]) == {"cli_never", "cli_peeks"}
    assert "never of mine.py was stopped: it did not end within 2 s" in done.err
    assert "peeks of mine.py wants to open '/etc/passwd' on line 6" in done.err
    assert done.err.count("\n") == 1
    assert pl.read_parquet("out.parquet").columns == ["symbol", "open_time", "cli_gap"]


def test_a_file_in_which_nothing_can_be_computed_is_an_error_and_writes_nothing(
    panel_file: Path, module: Path, tidemill: Tidemill
) -> None:
    module.write_text(READS)
    refused = tidemill("features", "compute", "--input", panel_file, "--module", module, "--output", "out.parquet")
    assert "wants to open '/etc/passwd' on line 2; a module sees the bars it is given and nothing else." in refused.error
    assert not Path("out.parquet").exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("feature('x', close +)\n", "The module mine.py is not valid Python: invalid syntax on line 1."),
        ("while True: pass\n", "The module mine.py was stopped: it did not end within 2 s."),
        ("open('/etc/passwd')\n", "The module mine.py wants to open '/etc/passwd' on line 1;"),
        ("import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9')\n", "wants to use the network"),
        ("engine('x', 1, 2)\n", "is not a function"),
        ("engine('momentum', lambda training: {}, lambda model, frame: 0)\n", "There is already an engine named 'momentum'."),
        ("strategy('quantile', lambda predictions: 0)\n", "already a strategy named 'quantile'"),
        ("label('forward_return', lambda bars: 0, horizon=1)\n", "already a label named 'forward_return'"),
        ("label('mine', lambda bars: 0, horizon=0)\n", "A horizon of 0 bars is not possible."),
        ("features(lambda bars: 0, lookback=-1)\n", "A look-back of -1 bars is not possible."),
        ("strategy('mine', lambda predictions, kept: 0)\n", "kept of mine has no default"),
        ("strategy('Not a name', lambda predictions: 0)\n", "cannot name a strategy"),
        ("value = 1\n", "declares no feature, label, engine or strategy"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "list"])
def test_a_wrong_file_is_one_sentence_before_any_work(
    module: Path, tidemill: Tidemill, monkeypatch: pytest.MonkeyPatch, text: str, reason: str, verb: str
) -> None:
    monkeypatch.setenv("TIDEMILL_MODULE_SECONDS", "2")
    module.write_text(text)
    command = ("run", "--source", "sample") if verb == "run" else ("features", "list")
    assert reason in tidemill(*command, "--module", module).error
    assert not Path("home").exists()


def test_a_file_that_is_not_there_is_named(work: Path, tidemill: Tidemill) -> None:
    assert "absent.py cannot be read" in tidemill("run", "--module", "absent.py").error
    assert "absent.py cannot be read" in tidemill("features", "list", "--module", "absent.py").error


def test_modules_of_an_experiment_lie_beside_its_file_and_bad_names_are_told(
    work: Path, module: Path, tidemill: Tidemill, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = work / "experiments"
    folder.mkdir()
    text = "name: mine\ndataset: {source: sample}\nengines: [{name: my_engine}, {name: absent}]\nmodules: [../mine.py]\n"
    (folder / "mine.yaml").write_text(text)
    assert "mine.py cannot be read" in tidemill("run", "--experiment", "experiments/mine.yaml").error
    module.write_text(example())
    error = tidemill("run", "--experiment", "experiments/mine.yaml").error
    assert "There is no engine named 'absent'" in error
    assert "my_engine" in error


PATCHING = """
import numpy as np
import polars as pl

np.sqrt = np.full_like
pl.Expr.abs = pl.Expr.neg


def patched(bars):
    np.log = np.zeros_like
    pl.Expr.pct_change = lambda self: self * 0.0
    return bars.select("symbol", "open_time", cli_patched=pl.col("close").abs())


features(patched, lookback=1, columns=["cli_patched"])
"""
HONEST = """
import numpy as np
import polars as pl


def honest(bars):
    close = bars["close"].to_numpy()
    return bars.select("symbol", "open_time", (-pl.col("close")).abs().alias("cli_size"), pl.col("close").pct_change().alias(
        "cli_change"), pl.Series("cli_root", np.sqrt(close)), pl.Series("cli_log", np.log(close)))


features(honest, columns=["cli_size", "cli_change", "cli_root", "cli_log"])
"""


def test_what_one_file_does_to_a_library_changes_no_number_of_another_in_the_same_program(
    panel_file: Path, work: Path, tidemill: Tidemill
) -> None:
    (work / "honest.py").write_text(HONEST)
    (work / "patching.py").write_text(PATCHING)
    real = np.sqrt, np.log, pl.Expr.abs, pl.Expr.pct_change
    for number, name in enumerate(("honest", "patching", "honest", "patching", "honest")):
        compute = ("features", "compute", "--input", panel_file, "--module", f"{name}.py")
        assert tidemill(*compute, "--output", f"{number}.parquet").code == 0
        (work / f"{name}.py").write_text((work / f"{name}.py").read_text() + "# loaded again\n")
    assert (np.sqrt, np.log, pl.Expr.abs, pl.Expr.pct_change) == real
    first, second, third = (pl.read_parquet(f"{number}.parquet") for number in (0, 2, 4))
    assert first.equals(second)
    assert first.equals(third)
    assert (pl.read_parquet("1.parquet")["cli_patched"] < 0).all()
    assert (first["cli_size"] > 0).all()
    assert first["cli_root"].equals(first["cli_size"].sqrt(), check_names=False)


def test_a_file_that_reads_by_a_library_is_told_and_a_declared_one_is_read(
    panel_file: Path, module: Path, tidemill: Tidemill
) -> None:
    head = "import polars as pl\n"
    body = 'def cli_scaled(bars):\n    return bars["close"] * TABLE["n"].sum()\nfeatures(cli_scaled)\n'
    Path("table.csv").write_text("n\n1\n2\n")
    compute = ("features", "compute", "--input", panel_file, "--module", module, "--output", "out.parquet")
    module.write_text(f'{head}TABLE = pl.read_csv("table.csv")\n{body}')
    told = "The module mine.py wants to use read_csv of polars on line 2; a module sees the bars it is given and nothing else."
    assert told in tidemill(*compute).error
    module.write_text(f'{head}TABLE = data("table.csv")\n{body}')
    assert tidemill(*compute).code == 0
    three = pl.read_parquet("out.parquet")["cli_scaled"]
    Path("table.csv").write_text("n\n1\n3\n")
    assert tidemill(*compute).code == 0
    assert (pl.read_parquet("out.parquet")["cli_scaled"] / three - 4 / 3).abs().max() < 1e-12
    Path("table.csv").unlink()
    assert "table.csv of mine.py cannot be read (No such file or directory). Put it there." in tidemill(*compute).error
