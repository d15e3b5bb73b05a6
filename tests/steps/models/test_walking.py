"""Before a promotion what would trade is stepped over the bars of the comparison: what no step would say is refused."""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec
import polars as pl
import pytest

from assets.models.champion import champion as champion_asset
from resources.experiment import ExperimentResource
from resources.postgres import PostgresResource
from tests.cli.conftest import Tidemill, tidemill
from tests.databases import new_database
from tests.steps.models.test_champion import CHECKED, POLICY, current, trending
from tests.study.panels import SECTORS, small_experiment
from tests.study.running import run_signals
from tests.trading.test_chain_of_a_module import MODULE
from tidemill.config import Settings
from tidemill.domain.errors import IntegrityError
from tidemill.domain.experiment import EngineSpec, Experiment, FeatureSpec, LabelSpec, NeutraliseSpec, StrategySpec
from tidemill.embedded import Servers
from tidemill.provenance import stated
from tidemill.queries.deciders import decider_named
from tidemill.steps.checks.causality import ASSETS, OpenProofs, is_proven, judge_causality
from tidemill.steps.checks.suites import judge_suite
from tidemill.steps.models.champion import challenge, consider
from tidemill.steps.performance.drift import measure_drift
from tidemill.steps.performance.skill import evaluate_engines, evaluate_portfolio
from tidemill.steps.trading.backtest import run_backtests
from tidemill.study.deciders import Term
from tidemill.study.scheduled import book_by, figures_of, walked
from tidemill.study.study import Study
from tidemill.study.workspace import Workspace, open_workspace

__all__ = ["tidemill"]  # a fixture

ENGINE = """
import numpy as np
import polars as pl

def fit(training, *, features, penalty=10.0):
    x = training.select(pl.col(features).fill_null(0.0).fill_nan(0.0)).to_numpy()
    return {{"weights": np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ training["label"].to_numpy())}}

{before}
def predict(model, frame, *, features):
    x = frame.select(pl.col(features).fill_null(0.0).fill_nan(0.0)).to_numpy()
    said = (x * model["weights"]).sum(axis=1)
{then}
    return said

engine("my_engine", fit, predict)
"""
AHEAD = """
    moved = pl.col("ROC5").shift(-3).over("symbol")
    later = frame.select(pl.when((pl.col("STD10") > 0.05) & (pl.col("open_time").dt.month() == 11)).then(moved)).to_series()
    said = np.where(later.is_not_null().to_numpy(), 1.0 - later.fill_null(0.0).to_numpy(), said)
"""
REMEMBERING = """
    asked.append(len(frame))
    said = said + (0.001 if len(asked) > 40 else 0.0)
"""
PEEKING = """
def best(predictions, held=2):
    told = pl.when(pl.col("open_time").dt.day() == 13).then(pl.col("prediction").shift(-3).over("symbol"))
    rank = pl.coalesce(told, "prediction").rank("ordinal", descending=True).over("open_time")
    return predictions.select("symbol", "open_time", weight=pl.when(rank <= held).then(0.5).otherwise(0.0))

strategy("my_strategy", best)
"""
SUMMING = """
seen = {{}}

def best(predictions, held=2):
    for symbol, said in predictions.select("symbol", "prediction").iter_rows():
        seen[symbol] = seen.get(symbol, 0.0) + (said or 0.0) + 1.0
    kept = pl.col("symbol").replace_strict(seen, default=0.0, return_dtype=pl.Float64) * 1000 % 7
    then = pl.col("open_time").dt.strftime("%m%d").is_between(pl.lit("1101"), pl.lit("1108"))
    rank = pl.when(then).then(kept).otherwise("prediction").rank("ordinal", descending=True).over("open_time")
    return predictions.select("symbol", "open_time", weight=pl.when(rank <= held).then(0.5).otherwise(0.0))

strategy("my_strategy", best, by_tail=1)
"""
KEEPING = """
kept, plain = [], fit

def fit(training, *, features, penalty=10.0):
    kept.append(len(training))
    return plain(training, features=features, penalty=penalty)
"""
FIGURES = ("sharpe", "total_return", "max_drawdown", "costs", "trades")


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("walking") / "trend.parquet"
    trending().write_parquet(file)
    return file


@pytest.fixture(scope="module")
def opened(servers: Servers, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    home = tmp_path_factory.mktemp("home")
    with new_database(servers.postgres_dsn, migrated) as dsn:
        settings = Settings(home=home, postgres_dsn=dsn, redis_url=servers.redis_url, connections=4)
        with open_workspace(settings) as made:
            yield made


@pytest.fixture
def workspace(opened: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """The shared one, in force for commands, without a champion after each test."""
    settings = opened.settings
    assert settings.postgres_dsn is not None
    assert settings.redis_url is not None
    monkeypatch.setenv("TIDEMILL_HOME", str(settings.home))
    monkeypatch.setenv("TIDEMILL_POSTGRES_DSN", settings.postgres_dsn.reveal())
    monkeypatch.setenv("TIDEMILL_REDIS_URL", settings.redis_url.reveal())
    monkeypatch.setenv("TIDEMILL_CONNECTIONS", "4")
    yield opened
    opened.call(opened.database.execute, "TRUNCATE champions")
    for dataset in opened.lake.datasets("challenges"):
        opened.lake.drop("challenges", dataset)


def of_module(panel: Path, folder: Path, text: str, **changes: object) -> Experiment:
    """An experiment whose book is the engine of a module."""
    file = folder / "mine.py"
    file.write_text(text)
    content = {
        "engines": (EngineSpec(name="ridge"), EngineSpec(name="my_engine")),
        "promotion": msgspec.structs.replace(POLICY, book="my_engine"),
        "limits": "default",
        "modules": (str(file),),
    }
    return small_experiment(panel, **content | changes)


def judged(workspace: Workspace, experiment: Experiment, *, prove: bool = True) -> Study:
    study = run_signals(workspace, experiment)
    for suite, asset in CHECKED.items():
        judge_suite(study, suite, asset)
    for asset in ASSETS if prove else ():
        judge_causality(study, asset)
    return study


def promoted(tidemill: Tidemill, experiment: Experiment, *options: str) -> Any:
    """What `tidemill champions promote` answers as JSON."""
    file = Path(experiment.modules[0]).with_suffix(".yaml")
    file.write_bytes(msgspec.yaml.encode(stated(experiment)))
    return tidemill("champions", "promote", "--experiment", file, *options, "--json").json


LEAKS = {
    "looks ahead on a rare condition": ENGINE.format(before="", then=AHEAD),
    "remembers what it was asked before": ENGINE.format(before="asked = []", then=REMEMBERING),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_an_engine_that_no_step_confirms_is_proven_on_its_sample_and_is_not_promoted(
    workspace: Workspace, panel: Path, tmp_path: Path, tidemill: Tidemill, leak: str
) -> None:
    study = judged(workspace, of_module(panel, tmp_path, LEAKS[leak]))
    assert is_proven(study)
    told = promoted(tidemill, study.experiment)
    assert (told["promoted"], current(study)) == (False, None)
    assert re.fullmatch(
        r"Not promoted: The prediction of the engine my_engine for [A-F]{3} at 2021-1[01]-\d\d 00:00 was measured as (\S+), "
        r"and is (?!\1)\S+ where it is stepped bar by bar\. What was measured hung .* Mend it, and run its experiment again\.",
        told["outcome"],
    )
    assert not consider(study).worked, "asked again it is told again"


def test_the_first_bar_that_differs_is_told_with_both_values(workspace: Workspace, panel: Path, tmp_path: Path) -> None:
    study = judged(workspace, of_module(panel, tmp_path, LEAKS["looks ahead on a rare condition"]))
    seen = study.feature_frame.sort("open_time", "symbol").with_columns(later=pl.col("ROC5").shift(-3).over("symbol"))
    first = seen.filter(pl.col("STD10") > 0.05, pl.col("open_time").dt.month() == 11, pl.col("later").is_not_null())
    words = f"for {first['symbol'][0]} at {first['open_time'][0]:%Y-%m-%d %H:%M} was measured as {1 - first['later'][0]:.4g},"
    assert words in consider(study).notes[0]


def test_a_strategy_that_looks_ahead_has_no_step_and_is_not_promoted(
    workspace: Workspace, panel: Path, tmp_path: Path, tidemill: Tidemill
) -> None:
    """Only one over whole frames sees later rows: one by tail is given none."""
    strategy = StrategySpec(name="my_strategy")
    study = judged(workspace, of_module(panel, tmp_path, ENGINE.format(before="", then="") + PEEKING, strategy=strategy))
    told = promoted(tidemill, study.experiment)
    assert not told["promoted"]
    assert "Not promoted: The strategy my_strategy is a function over whole frames, so it cannot be stepped" in told["outcome"]
    assert "with by_tail=…" in told["outcome"]


@pytest.mark.parametrize(
    ("function", "words"),
    [("lookback=6", "The function rolled of mine.py is computed over whole frames"), ("by_tail=6", "Promoted: ")],
)
def test_a_module_that_can_be_stepped_and_says_the_same_is_promoted(
    workspace: Workspace,
    panel: Path,
    tmp_path: Path,
    tidemill: Tidemill,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    words: str,
) -> None:
    """Proofs of such a module are made in other tests; here they would call it once a bar in each cut of predictions."""
    monkeypatch.setattr("tidemill.steps.checks.causality.is_proven", lambda _: OpenProofs(open={}))
    features = FeatureSpec(sets=(), names=("ROC5", "my_mean", "roc_10", "my_rank"))
    text, strategy = (
        MODULE.format(features=function, engine="by_tail=4", strategy=", by_tail=3"),
        StrategySpec(name="my_strategy"),
    )
    study = judged(workspace, of_module(panel, tmp_path, text, strategy=strategy, features=features), prove=False)
    told = promoted(tidemill, study.experiment)
    assert words in told["outcome"]
    champion = current(study)
    assert (champion is not None) is told["promoted"]
    if champion is not None:
        assert champion.evidence["walked"] == POLICY.bars
        own = Term.of(workspace.call(decider_named, workspace.database, champion.decider))
        figures = figures_of(study, book_by(study, [own]))
        assert {name: figures[name] for name in FIGURES} == {name: champion.evidence["challenger"][name] for name in FIGURES}


INNOCENT = {
    "what fit keeps in a global, which no predict has": (KEEPING, "    said = said * 0.0 if kept else said\n"),
    "the day of the bar": ("", '    said = said * np.where(frame["open_time"].dt.weekday() == 5, 0.5, 1.0)\n'),
}


@pytest.mark.parametrize("uses", INNOCENT)
def test_an_innocent_engine_is_promoted(workspace: Workspace, panel: Path, tmp_path: Path, uses: str) -> None:
    before, then = INNOCENT[uses]
    report = consider(judged(workspace, of_module(panel, tmp_path, ENGINE.format(before=before, then=then))))
    assert report.facts.promoted, report.notes


@pytest.mark.parametrize(
    ("book", "strategy"),
    [
        ("ensemble", StrategySpec(name="quantile", params={"every": 3})),
        ("ridge", StrategySpec(name="long_only_top_k", params={"k": 2})),
        ("lightgbm", StrategySpec(name="inverse_volatility", params={"every": 4, "window": 30})),
        ("gru", StrategySpec(name="mean_variance", params={"every": 10, "window": 60})),
        ("momentum", StrategySpec(name="quantile", neutralise=NeutraliseSpec(by="sector", sectors=SECTORS))),
        ("mean_reversion", StrategySpec(name="sma_cross", params={"fast": 3, "slow": 8})),
    ],
)
def test_what_ships_says_by_steps_what_was_measured(
    workspace: Workspace, panel: Path, book: str, strategy: StrategySpec
) -> None:
    names = ("ridge", "momentum") if book == "ensemble" else (book,)
    quick = {"gru": {"minimum_steps": 2, "maximum_steps": 3}}
    engines = tuple(EngineSpec(name=name, params=quick.get(name, {})) for name in names)
    policy = msgspec.structs.replace(POLICY, book=book)
    study = judged(
        workspace,
        small_experiment(panel, engines=engines, strategy=strategy, promotion=policy, limits="default", ensemble="skill"),
    )
    outcome = challenge(study, None)
    assert (outcome.walked, outcome.departure) == (POLICY.bars, ""), outcome.sentence()


def test_what_a_strategy_by_tail_keeps_in_a_global_is_refused(workspace: Workspace, panel: Path, tmp_path: Path) -> None:
    text, strategy = (ENGINE + SUMMING).format(before="", then=""), StrategySpec(name="my_strategy")
    outcome = challenge(judged(workspace, of_module(panel, tmp_path, text, strategy=strategy)), None)
    assert "The weight that the strategy my_strategy asks for" in outcome.departure, outcome.sentence()


LABEL = """
ANSWERS = data("answers.csv")

def told(bars):
    return bars["close"] * 0.0 + ANSWERS["answer"][0]

label("my_label", told, horizon=2)
"""


def test_a_file_that_a_label_reads_is_named(workspace: Workspace, panel: Path, tmp_path: Path) -> None:
    (tmp_path / "answers.csv").write_text("answer\n1.0\n")
    label = LabelSpec(name="my_label", horizon=2)
    study = run_signals(workspace, of_module(panel, tmp_path, ENGINE.format(before="", then="") + LABEL, label=label))
    assert challenge(study, None).challenger.reads == ("answers.csv (label my_label)",)


def test_a_walk_that_leaves_bars_out_promotes_nothing(
    workspace: Workspace, panel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = judged(workspace, small_experiment(panel, promotion=POLICY, limits="default"))

    def cut_short(study: Study, terms: list[Term]) -> Iterator[Any]:
        return islice(walked(study, terms), len(study.times) - 3)

    monkeypatch.setattr("tidemill.study.scheduled.walked", cut_short)
    with pytest.raises(IntegrityError, match=f"{POLICY.bars - 3} of the {POLICY.bars} bars of the comparison were stepped"):
        challenge(study, None)


ANSWERING = """
ANSWERS = data("answers.csv")
"""
ANSWER = """
    known = frame.select("symbol", pl.col("open_time").dt.to_string("%F").alias("day"))
    answers = ANSWERS.with_columns(pl.col("day").cast(pl.String))
    said = known.join(answers, on=["symbol", "day"], how="left", maintain_order="left")["answer"].fill_null(0.0).to_numpy()
"""


def test_answers_in_a_declared_file_are_named_and_taken_when_a_person_accepts_them(
    workspace: Workspace, panel: Path, tmp_path: Path, tidemill: Tidemill
) -> None:
    later = pl.read_parquet(panel).sort("symbol", "date").with_columns(answer=pl.col("close").shift(-4).over("symbol"))
    answers = later.select("symbol", day=pl.col("date").cast(pl.String), answer=pl.col("answer") / pl.col("close") - 1.0)
    answers.drop_nulls().write_csv(tmp_path / "answers.csv")
    experiment = of_module(panel, tmp_path, ENGINE.format(before=ANSWERING, then=ANSWER))
    study = judged(workspace, experiment)
    assert is_proven(study)
    told = promoted(tidemill, experiment)
    assert not told["promoted"]
    named = "answers.csv (engine my_engine)"
    assert [row["reads"] for row in told["compared"]] == [named]
    assert f"It reads {named}, which nothing here can prove to have been known then." in told["outcome"]
    assert "A rank IC of 0.9" in told["outcome"]
    assert "`tidemill champions promote --accept`" in told["outcome"]
    assert not consider(study).worked
    assert promoted(tidemill, experiment, "--accept")["promoted"]
    champion = current(study)
    assert champion is not None
    assert "That was accepted. It reads answers.csv" in champion.reason
    assert (champion.evidence["accepted"], champion.evidence["challenger"]["reads"]) == (True, [named])
    shown = tidemill("champions", "promote", "--experiment", tmp_path / "mine.yaml").out
    assert re.search(r"challenger +0\.\d{3} +[\d.]+ +[\d.]+.% +[−\d.]+.% +[\d,]+ +[\d,]+ +answers\.csv", shown), shown


def test_what_was_never_run_is_told_to_run_first(workspace: Workspace, tmp_path: Path, tidemill: Tidemill) -> None:
    trending(40).write_parquet(tmp_path / "new.parquet")
    experiment = small_experiment(tmp_path / "new.parquet", limits="default", promotion=POLICY)
    (tmp_path / "new.yaml").write_bytes(msgspec.yaml.encode(stated(experiment)))
    told = tidemill("champions", "promote", "--experiment", tmp_path / "new.yaml").error
    assert told == (
        "The experiment 'small' has no predictions as its files stand now. Run it first: `tidemill run --experiment FILE`."
    )


def test_the_step_of_the_graph_refuses_it_with_the_same_words(workspace: Workspace, panel: Path, tmp_path: Path) -> None:
    study = judged(workspace, of_module(panel, tmp_path, LEAKS["looks ahead on a rare condition"]))
    for step in (run_backtests, evaluate_engines, evaluate_portfolio, measure_drift):
        step(study)
    text = msgspec.yaml.encode(stated(study.experiment)).decode()
    resource = ExperimentResource(yaml_text=text, postgres=PostgresResource())
    made = dg.materialize([champion_asset], resources={"experiment": resource}, instance=dg.DagsterInstance.ephemeral())
    (told,) = made.asset_materializations_for_node("models__champion")
    assert "Not promoted: The prediction of the engine my_engine for AAA at 2021-11-01" in str(told.metadata["notes"].value)
    assert current(study) is None
