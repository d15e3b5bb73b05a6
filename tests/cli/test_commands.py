"""Commands that look at what there is, and those that reach the orchestrator."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.cli.conftest import Tidemill
from tests.study.panels import daily_bars, small_experiment
from tests.study.running import run as run_steps
from tidemill.cli import dagster
from tidemill.config import load_settings
from tidemill.domain.experiment import Experiment
from tidemill.domain.ports import RunOutcome
from tidemill.experiments.files import load_experiment, to_text
from tidemill.models import ridge
from tidemill.models.artifact import Artifact
from tidemill.study.workspace import open_workspace
from tidemill.validation.causality.proof import CANNOT_SEE


class StepByStep:
    """An orchestrator that runs the steps of the graph one after the other, without Dagster."""

    failure = ""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def run(self, experiment: Experiment, *, home: Path) -> RunOutcome:
        self.calls.append(home)
        if self.failure:
            return RunOutcome(succeeded=False, run_id="r", failure=self.failure)
        with open_workspace(load_settings()) as workspace:
            _, reports = run_steps(workspace, experiment)
        steps = tuple((name, 0.5, report.worked) for name, report in reports.items())
        return RunOutcome(succeeded=True, run_id="r", steps=steps)

    def up(self, *, open_browser: bool = False, as_json: bool = False) -> int:
        self.calls.append((open_browser, as_json))
        return 3

    def command(self, arguments: Sequence[str]) -> int:
        self.calls.append(list(arguments))
        return 4


@pytest.fixture
def orchestrator(monkeypatch: pytest.MonkeyPatch) -> StepByStep:
    made = StepByStep()
    monkeypatch.setattr(dagster, "orchestrator", lambda: made)
    return made


@pytest.fixture
def experiment_file(home: Path) -> Path:
    (home / "panel").mkdir()
    daily_bars(328).write_parquet(home / "panel" / "base.parquet")
    path = home / "mine.yaml"
    path.write_text(to_text(small_experiment(home / "panel")))
    return path


def test_a_run_ends_with_a_table_sentences_and_a_report_that_the_other_commands_find(
    experiment_file: Path, orchestrator: StepByStep, tidemill: Tidemill
) -> None:
    answer = tidemill("run", "--experiment", experiment_file)
    assert answer.code == 0, answer.err
    assert "small: out-of-sample results by engine, after costs" in answer.out
    assert all(name in answer.out for name in ("ensemble", "momentum", "ridge", "benchmark"))
    assert re.search(r"13 of 15 steps had work to do; \d+\.\d s in all, checks included\.", answer.out)
    told = tidemill("run", "--experiment", experiment_file, "--json").json
    assert {row["book"] for row in told["engines"]} == {"ensemble", "momentum", "ridge"}
    assert not any(step[2] for step in told["steps"])
    assert Path(told["report"]).is_file()
    assert told["report"] in tidemill("performance", "report").out
    assert tidemill("performance", "report", "--json").json["path"] == told["report"]
    models = tidemill("models", "list", "--json").json
    assert {model["engine"] for model in models} == {"ensemble", "momentum", "ridge"}
    shown = tidemill("models", "show", models[0]["model_id"], "--json").json
    assert shown["engine"] == models[0]["engine"]
    assert models[0]["model_id"] in tidemill("models", "list").out
    assert "data_versions" in tidemill("models", "show", models[0]["model_id"]).out


def test_a_book_that_its_limits_stopped_is_said_to_be_by_the_run_by_its_json_and_by_its_deciders(
    experiment_file: Path, orchestrator: StepByStep, tidemill: Tidemill
) -> None:
    experiment_file.write_text(
        experiment_file.read_text() + "limits: {drawdown: {block: 0.002, reduce: 0.003, flatten: 0.004}}\n"
    )
    out = tidemill("run", "--experiment", experiment_file).out
    assert re.search(r"^ensemble .* flat since 2021-\d\d-\d\d *$", out, re.MULTILINE)
    assert re.search(r"the book was .*so its limits closed it \(flatten at 0\.4\s%\).*it has held nothing since 2021-", out)
    assert "To see the book without limits, run a copy of the experiment that leaves out `limits`" in out
    told = tidemill("run", "--experiment", experiment_file, "--json").json
    assert told["limits"]["ensemble"]["levels"][-1]["level"] == "flatten"
    assert told["limits"]["ensemble"]["flat_since"].startswith("2021-")
    decider = tidemill("deciders", "list", "--book", "ensemble", "--json").json[0]["id"]
    again = tidemill("deciders", "backtest", decider, "--json").json
    assert again["limits"]["levels"][-1] == told["limits"]["ensemble"]["levels"][-1] | {
        "slots": again["limits"]["levels"][-1]["slots"]
    }
    assert again["notes"][0] in tidemill("deciders", "backtest", decider).out


def test_models_of_a_run_are_proven_and_an_engine_whose_fits_differ_is_named(
    experiment_file: Path, orchestrator: StepByStep, tidemill: Tidemill, monkeypatch: pytest.MonkeyPatch
) -> None:
    prove = ("models", "prove", "--experiment", experiment_file)
    assert "Materialize models/momentum first" in tidemill(*prove).error
    assert tidemill("run", "--experiment", experiment_file).code == 0
    expected = {"proven": ["momentum", "ridge"], "refuted": [], "not_judged": [], "cannot_see": CANNOT_SEE}
    assert tidemill(*prove, "--json").json == expected
    honest = type(ridge.ENGINE).fit

    def other(self: Any, training: pl.DataFrame, *, params: Mapping[str, Any], **rest: Any) -> Artifact:
        return honest(self, training, params={**params, "penalty": 7.5}, **rest)

    monkeypatch.setattr(type(ridge.ENGINE), "fit", other)
    answer = tidemill(*prove)
    assert answer.code == 1
    assert "1 engine proven, 1 refuted." in answer.out
    assert "What comes later changes the models or the predictions of ridge." in answer.err


def test_what_was_never_checked_is_compared_and_not_promoted(
    experiment_file: Path, orchestrator: StepByStep, tidemill: Tidemill
) -> None:
    assert "Nothing was promoted yet" in tidemill("champions", "list").out
    assert "Nothing has been run yet" in tidemill("champions", "promote").error
    assert tidemill("run", "--experiment", experiment_file).code == 0
    refused = tidemill("champions", "promote")
    assert (refused.code, "Write `limits: default` in it" in refused.error) == (1, True)
    experiment_file.write_text(experiment_file.read_text() + "limits: default\n")
    assert tidemill("run", "--experiment", experiment_file).code == 0
    told = tidemill("champions", "promote", "--json").json
    assert told["promoted"] is False
    assert "never checked" in told["outcome"]
    assert [row["book"] for row in told["compared"]] == ["challenger"]
    again = tidemill("champions", "promote", "--experiment", experiment_file).out
    assert "There is no champion" in again
    assert "Nothing that decides it has changed since the last comparison" in again
    assert again.startswith(f"{told['experiment']} on {told['dataset']}\n")
    assert "no champion" in tidemill("champions", "undo", "panel.1d.all", "--why", "a test").error
    assert "There is no champion or promotion named 'panel.1d.all'." in tidemill("champions", "show", "panel.1d.all").error
    assert tidemill("champions", "list", "--json").json == []
    assert tidemill("champions", "undo", "panel.1d.all").code == 2


def test_commands_about_champions_keep_their_earlier_names(tidemill: Tidemill, home: Path) -> None:
    assert tidemill("models", "champions", "--json").json == []
    assert (
        tidemill("models", "undo", "panel.1d.all", "--why", "a test").error
        == tidemill("champions", "undo", "panel.1d.all", "--why", "a test").error
    )
    assert "promote" not in tidemill("models", "--help").out
    assert "--experiment" in tidemill("models", "promote", "--help").out


def test_a_failed_run_is_one_sentence(experiment_file: Path, orchestrator: StepByStep, tidemill: Tidemill) -> None:
    orchestrator.failure = "market_data/bars failed: the disk is full."
    assert tidemill("run", "--experiment", experiment_file, "--json").error == orchestrator.failure


def test_what_the_command_line_says_of_the_dataset_replaces_what_the_experiment_says(
    experiment_file: Path, home: Path, orchestrator: StepByStep, tidemill: Tidemill
) -> None:
    other = home / "other"
    other.mkdir()
    daily_bars(328).filter(pl.col("symbol") != "AAA").write_parquet(other / "base.parquet")
    asked = tidemill("run", "--experiment", experiment_file, "--source", f"file:{other}", "--start", "2021-02-01", "--json")
    assert asked.code == 0
    written = json.loads((Path(asked.json["report"]).parent / "experiment.json").read_text())
    mine = load_experiment(experiment_file)
    assert written["dataset"]["source"] == f"file:{other}"
    assert written["dataset"]["start"] == "2021-02-01T00:00:00+00:00"
    assert [engine["name"] for engine in written["engines"]] == [engine.name for engine in mine.engines]


def test_an_experiment_that_ships_is_found_by_its_name(orchestrator: StepByStep, home: Path, tidemill: Tidemill) -> None:
    orchestrator.failure = "stop before any work"
    for name in ("sample", "all_engines"):
        assert tidemill("run", "--experiment", name).error == orchestrator.failure
    assert "one of all_engines, sample" in tidemill("run", "--experiment", "no_engines").error


def test_dates_that_do_not_follow_each_other_are_refused_beside_an_experiment_too(
    experiment_file: Path, orchestrator: StepByStep, tidemill: Tidemill
) -> None:
    answer = tidemill("run", "--experiment", experiment_file, "--start", "2021-03-01", "--end", "2021-02-01")
    assert answer.code != 0
    assert orchestrator.calls == []


def test_up_and_dagster_pass_on_what_they_are_told_and_its_exit_code(
    work: Path, orchestrator: StepByStep, tidemill: Tidemill
) -> None:
    assert tidemill("up", "--open").code == 3
    assert tidemill("up", "--json").code == 3
    assert tidemill("dagster", "asset", "list", "--select", "*", "--help").code == 4
    assert tidemill("dagster", "help").code == 4
    assert orchestrator.calls == [
        (True, False),
        (False, True),
        ["asset", "list", "--select", "*", "--help"],
        ["--help"],
    ]
    assert "tidemill dagster run list" in " ".join(tidemill("dagster", "--help").out.split())
    assert len(orchestrator.calls) == 4


def test_without_an_orchestrator_it_is_said_how_to_get_one(
    home: Path, tidemill: Tidemill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dagster, "entry_points", lambda group: ())
    assert "scripts/run" in tidemill("up").error
    assert "scripts/run" in tidemill("run").error


def test_features_are_listed_and_explained(work: Path, tidemill: Tidemill) -> None:
    listed = tidemill("features", "list", "--set", "classic", "--json").json
    assert {row["name"] for row in listed} >= {"rsi_14", "sma_20"}
    table = tidemill("features", "list").out
    assert "look-back" in table
    assert "ROC5" in table
    assert tidemill("features", "explain", "sma_20", "--json").json["lookback"] == 20
    assert "all bars before" in tidemill("features", "explain", "ema_20").out


def test_features_of_a_file_of_one_s_own_are_the_same_in_batch_and_stream(
    work: Path, panel_file: Path, tidemill: Tidemill
) -> None:
    Path("mine.py").write_text('feature("gap_7", close / mean(close, 7) - 1, unit="ratio", about="distance to the mean")\n')
    given = ("features", "compute", "--input", panel_file, "--module", "mine.py", "--output")
    assert "1 feature of 2 symbols, 240 rows" in tidemill(*given, "batch.parquet").out
    assert tidemill(*given, "stream.parquet", "--execution", "stream").code == 0
    batch, stream = pl.read_parquet("batch.parquet"), pl.read_parquet("stream.parquet")
    assert batch.columns == ["symbol", "open_time", "gap_7"]
    assert batch.equals(stream, null_equal=True)
    assert tidemill(*given, "x.parquet", "--set", "classic").code == 2
    Path("mine.py").write_text("import nothing_like_this\n")
    assert "line 1" in tidemill(*given, "x.parquet").error


def test_a_backtest_answers_figures_and_takes_parameters_in_every_way_of_writing(
    home: Path, panel_file: Path, tidemill: Tidemill
) -> None:
    given = ("backtest", "--input", panel_file, "--strategy", "sma_cross", "--fee-bps", "10", "--json")
    ways = (("--param", "fast=3", "slow=9"), ("--param", "fast=3", "--param", "slow=9"), ("--param", "fast=3,slow=9"))
    found = [tidemill(*given, *way).json for way in ways]
    assert found[0] == found[1] == found[2]
    assert found[0]["trades"] > 0
    assert found[0]["fees"] > 0
    assert found[0]["max_drawdown"] < 0
    assert found[0]["final_equity"] == found[0]["equity"][-1]
    table = tidemill("backtest", "--input", panel_file, "--strategy", "sma_cross").out
    assert "final equity" in table


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--strategy", "sma_cross", "--weights", "w.csv"),
        ("--weights", "w.csv", "--param", "fast=3"),
        ("--strategy", "sma_cross", "--param", "fast"),
        ("--strategy", "sma_cross", "--fee-bps", "-1"),
        ("--strategy", "sma_cross", "--fee-bps", "nan"),
        ("--strategy", "sma_cross", "--slippage-bps", "10000"),
    ],
)
def test_a_backtest_that_cannot_be_understood_is_a_wrong_use(
    panel_file: Path, tidemill: Tidemill, options: tuple[str, ...]
) -> None:
    answer = tidemill("backtest", "--input", panel_file, *options)
    assert (answer.code, answer.out) == (2, "")


def test_metrics_are_shown_as_a_table(work: Path, tidemill: Tidemill) -> None:
    Path("returns.csv").write_text("date,return\n2024-01-02,0.01\n2024-01-03,-0.02\n")
    table = tidemill("performance", "metrics", "--input", "returns.csv").out
    assert "max drawdown" in table
    assert "-0.0200" in table


def test_the_cache_is_shown_and_emptied(home: Path, tidemill: Tidemill) -> None:
    assert tidemill("cache", "show").out == "The cache is empty.\n"
    assert tidemill("cache", "show", "--json").json == []
    with open_workspace(load_settings()) as workspace:

        async def load() -> pl.DataFrame:
            return pl.DataFrame({"price": [1.0]})

        workspace.call(workspace.cache.frame, "prices:AAA", load)
    shown = tidemill("cache", "show", "--json").json
    assert [entry["key"] for entry in shown] == ["prices:AAA"]
    assert "prices:AAA" in tidemill("cache", "show").out
    assert tidemill("cache", "clear", "--pattern", "prices:*", "--json").json == {"removed": 1}
    assert tidemill("cache", "clear").out == "0 entries removed.\n"


def test_settings_are_shown_without_secrets(home: Path, tidemill: Tidemill) -> None:
    shown = tidemill("config", "show", "--json").json
    assert shown["home"] == str(home / "home")
    assert "***" in shown["postgres_dsn"]
    assert "postgres_dsn" in tidemill("config", "show").out
    Path("good.yaml").write_text("connections: 3\n")
    assert tidemill("config", "check", "good.yaml").out == "good.yaml is valid.\n"
    assert tidemill("config", "check", "good.yaml", "--json").json == {"file": "good.yaml", "valid": True}


def test_the_doctor_names_a_wrong_setting_before_it_looks_at_anything(work: Path, tidemill: Tidemill) -> None:
    Path("tidemill.yaml").write_text("no_such_setting: 1\n")
    assert "no_such_setting" in tidemill("doctor").error
    assert not Path("home").exists()


def test_the_doctor_says_what_is_wrong_and_ends_with_one_sentence(
    home: Path, tidemill: Tidemill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMILL_REDIS_URL", "redis://127.0.0.1:1/0")
    answer = tidemill("doctor")
    assert answer.code == 1
    assert "FAIL" in answer.out
    assert "→" in answer.out
    assert answer.err.startswith("Error: ")
    assert answer.err.count("\n") == 1
    assert any(not finding["ok"] for finding in tidemill("doctor", "--json").json)
