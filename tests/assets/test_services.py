"""Each service apart: loaded without the others, and what it makes alone is what the main job makes."""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from definitions import asset_selection, defs, partition_range
from orchestration.instance import PROJECT, instance
from orchestration.outcome import own_sentence
from orchestration.run_request import experiment_config, range_tags
from orchestration.runner import DagsterOrchestrator
from tests.assets.services import SERVICES, on_service
from tests.databases import administer, new_database
from tests.study.fixtures import Finished
from tests.study.panels import START, daily_bars, small_experiment
from tidemill.config import Secret, Settings
from tidemill.domain.experiment import Experiment, FeatureSpec, LimitsSpec, NewsSpec, RiskSpec
from tidemill.embedded import Servers
from tidemill.steps.market_data.bars import list_gaps, sync_bars, sync_instruments
from tidemill.steps.trading.backtest import run_backtests
from tidemill.steps.trading.signals import make_signals
from tidemill.study.sources import study_of
from tidemill.study.tables import ATTRIBUTION, ENGINE_SHARES, EQUITY, POSITIONS, SIGNALS, TRADES
from tidemill.study.workspace import open_workspace

# One process imports what all services stand on; each of its children a service, and tells what it then has, and what its job
# makes; the last one the whole graph.
ALONE = """
import importlib, json, os, sys
import resources.environments
import assets.checking, assets.causality, assets.partitions, assets.reporting
before = set(sys.modules)
for service, module in json.loads(sys.argv[1]).items():
    if os.fork():
        os.wait()
        continue
    defs = importlib.import_module(module).defs
    defs.validate_loadable(defs)
    new = [name for name in set(sys.modules) - before if name.split(".")[0] in ("assets", "sensors", "definitions")]
    heavy = {"torch", "great_expectations", "lightgbm", "matplotlib", "pandas"} & set(sys.modules)
    keys = defs.get_repository_def().get_job(service if "." in module else "main").asset_layer.executable_asset_keys
    told = {"service": service, "modules": new, "heavy": sorted(heavy), "makes": [key.to_user_string() for key in keys]}
    print(json.dumps(told), flush=True)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def told() -> dict[str, dict[str, list[str]]]:
    """Service, or `whole` for all of them → what a process that loads it alone says."""
    command = [sys.executable, "-W", "ignore", "-c", ALONE, json.dumps({**SERVICES, "whole": "definitions"})]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd=PROJECT)
    return {one["service"]: one for one in map(json.loads, done.stdout.splitlines())}


def test_a_service_is_loaded_without_the_modules_of_another_and_makes_its_own_group(
    told: dict[str, dict[str, list[str]]],
) -> None:
    graph, shared = defs.resolve_asset_graph(), {"assets.service", "assets.upstream", "assets.engine_keys"}
    assert list(SERVICES) == ["data", "features", "training", "prediction", "trading", "monitoring"]
    for service, module in SERVICES.items():
        folder = module.rpartition(".")[0]
        assert folder in told[service]["modules"]
        assert [
            name for name in told[service]["modules"] if not f"{name}.".startswith(f"{folder}.") and name not in shared
        ] == []
        group = {key.to_user_string() for key in graph.get_all_asset_keys() if graph.get(key).group_name == service}
        assert set(told[service]["makes"]) == group


@pytest.mark.parametrize("service", [*SERVICES, "whole"])
def test_loading_the_graph_imports_nothing_that_only_a_run_needs(told: dict[str, dict[str, list[str]]], service: str) -> None:
    assert told[service]["heavy"] == []


RANGE = ("2021-01", "2021-11")


@pytest.fixture
def empty(tmp_path: Path, servers: Servers, migrated_dsn: Secret) -> Settings:
    """A home in which nothing was made."""
    return Settings(home=tmp_path / "home", postgres_dsn=migrated_dsn, redis_url=servers.redis_url, connections=4)


def test_a_command_on_one_service_ends_with_the_sentence(
    opened: dg.DagsterInstance, settings: Settings, experiment: Experiment, capfd: pytest.CaptureFixture[str]
) -> None:
    assert on_service(settings, "trading", experiment, "job", "execute", "-j", "trading") == 1
    assert capfd.readouterr().err.splitlines()[-1] == (
        "trading/signals reads predictions/engines and predictions/ensemble, which were never made for the experiment small: "
        "materialize these first, or make everything with `tidemill run`."
    )


@pytest.mark.parametrize(
    ("asset", "upstream"),
    [
        ("market_data/gaps", "market_data/bars, which was"),
        ("features/technical", "market_data/bars, which was"),
        ("models/ridge", "features/technical and features/training_set, which were"),
        ("models/gru", "features/technical and features/training_set, which were"),
        ("predictions/ensemble", "predictions/engines and models/ensemble, which were"),
        ("predictions/engines", "features/technical, models/momentum and models/ridge, which were"),
        ("trading/backtest", "market_data/bars and trading/signals, which were"),
        ("performance/report", "performance/engines and performance/portfolio, which were"),
    ],
)
def test_an_asset_whose_upstream_was_never_made_names_it_and_what_to_do(
    empty: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, asset: str, upstream: str
) -> None:
    use(empty, monkeypatch)
    daily_bars(30).write_parquet(tmp_path / "bars.parquet")
    key = dg.AssetKey(asset.split("/"))
    group = defs.resolve_asset_graph().get(key).group_name
    assert group is not None
    repository = importlib.import_module(SERVICES[group]).defs.get_repository_def()
    partitioned = repository.asset_graph.get(key).is_partitioned
    done = repository.get_implicit_job_def_for_assets([key]).execute_in_process(
        run_config=experiment_config(small_experiment(tmp_path)),
        tags=range_tags(RANGE) if partitioned else {},
        asset_selection=[key],
        raise_on_error=False,
    )
    (failed,) = [event for event in done.all_events if event.is_step_failure]
    error = failed.step_failure_data.error
    assert error is not None
    these = "these" if "were" in upstream else "it"
    assert own_sentence(error) == (
        f"{asset} reads {upstream} never made for the experiment small: "
        f"materialize {these} first, or make everything with `tidemill run`."
    )


def use(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of this process find this home."""
    assert settings.postgres_dsn is not None
    assert settings.redis_url is not None
    monkeypatch.setenv("TIDEMILL_HOME", str(settings.home))
    monkeypatch.setenv("TIDEMILL_POSTGRES_DSN", settings.postgres_dsn.reveal())
    monkeypatch.setenv("TIDEMILL_REDIS_URL", settings.redis_url.reveal())


def versions(settings: Settings) -> dict[str, str]:
    """Asset → the data version of its newest materialization."""
    assert settings.postgres_dsn is not None
    assert settings.redis_url is not None
    found = Servers(postgres_dsn=settings.postgres_dsn, redis_url=settings.redis_url, embedded=False)
    with instance(settings, found) as opened:
        newest = {key.to_user_string(): opened.get_latest_materialization_event(key) for key in opened.all_asset_keys()}
    made = {name: entry.asset_materialization for name, entry in newest.items() if entry is not None}
    return {name: one.tags["dagster/data_version"] for name, one in made.items() if one is not None and one.tags}


@pytest.fixture
def finished(finished_run: Finished, servers: Servers) -> Iterator[Settings]:
    """The home in which the steps of the small experiment were run, and nothing of it by Dagster."""
    finished_run.restore()
    with new_database(servers.postgres_dsn, finished_run.database) as dsn:
        yield Settings(home=finished_run.place / "home", postgres_dsn=dsn, redis_url=servers.redis_url, connections=4)


def test_a_service_alone_makes_of_what_lies_in_the_lake_what_was_made_with_all_of_them(
    finished: Settings, finished_run: Finished, capfd: pytest.CaptureFixture[str]
) -> None:
    experiment = small_experiment(finished_run.place / "panel")
    with open_workspace(finished) as workspace:
        study = study_of(workspace, experiment)
        before = {"trading/signals": make_signals(study), "trading/backtest": run_backtests(study)}
        for table in (SIGNALS, EQUITY, TRADES, POSITIONS, ATTRIBUTION, ENGINE_SHARES):
            study.lake.drop(table, study.key)
    assert [report.worked for report in before.values()] == [False, False]
    assert on_service(finished, "trading", experiment, "job", "execute", "-j", "trading") == 0, capfd.readouterr().err
    assert versions(finished) == {name: report.data_version for name, report in before.items()}


def keys_of(service: str) -> set[dg.AssetKey]:
    """What the job of a service makes."""
    return set(importlib.import_module(SERVICES[service]).defs.resolve_asset_graph().materializable_asset_keys)


def launched(settings: Settings, service: str, experiment: Experiment) -> int:
    """The exit code of the job of a service, launched over the months of the run: the jobs of three make none by months."""
    return on_service(settings, service, experiment, "job", "execute", "-j", service, "--tags", json.dumps(range_tags(RANGE)))


@pytest.mark.long
def test_the_job_of_the_data_makes_what_the_steps_made(
    finished: Settings, finished_run: Finished, capfd: pytest.CaptureFixture[str]
) -> None:
    experiment = small_experiment(finished_run.place / "panel")
    assert launched(finished, "data", experiment) == 0, capfd.readouterr().err[-3_000:]
    with open_workspace(finished) as workspace:
        study = study_of(workspace, experiment)
        made = [sync_bars(study), sync_instruments(study), list_gaps(study)]
    names = ("market_data/bars", "market_data/instruments", "market_data/gaps")
    wanted = dict(zip(names, (report.data_version for report in made), strict=True))
    assert versions(finished) == {**wanted, "market_data/fear_greed": "unused", "market_data/news": "unused"}


@pytest.mark.long
@pytest.mark.parametrize(("service", "asset"), [("data", "market_data/bars"), ("features", "features/regime")])
def test_a_job_over_months_that_is_launched_without_any_says_how_to_give_them(
    finished: Settings, finished_run: Finished, service: str, asset: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert on_service(finished, service, small_experiment(finished_run.place / "panel"), "job", "execute", "-j", service) == 1
    said = capfd.readouterr().err
    assert f"{asset} is made by months, and the run does not say which. Give `job execute` --tags" in said.splitlines()[-1]


def everything(folder: Path) -> Experiment:
    """An experiment that asks for every asset but the other engines."""
    panel = folder / "panel"
    panel.mkdir()
    daily_bars().write_parquet(panel / "bars.parquet")
    news = [f"{'ABCD'[hour % 4] * 3},{(START + timedelta(hours=hour)).isoformat()},it gains" for hour in range(0, 7_900, 5)]
    (folder / "wire.csv").write_text("\n".join(["symbol,published_at,headline", *news]) + "\n")
    days = [START + timedelta(days=day) for day in range(330)]
    mood = pl.DataFrame({"date": [f"{day:%Y-%m-%d}" for day in days], "value": [20 + day.day for day in days]})
    mood.write_csv(folder / "mood.csv")
    named = ("ROC5", "STD10", "rsi_14", "roc_10", "natr_14", "hmm_state_3")
    return small_experiment(
        panel,
        features=FeatureSpec(sets=(), names=named, fear_greed=f"file:{folder / 'mood.csv'}"),
        news=NewsSpec(source=f"file:{folder / 'wire.csv'}"),
        risk=RiskSpec(least=100),
        limits=LimitsSpec(),  # without them nothing of it could be promoted
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("services")


@pytest.fixture(scope="module")
def experiment(place: Path) -> Experiment:
    return everything(place)


@contextmanager
def fresh(servers: Servers, template: str, home: Path) -> Iterator[Settings]:
    """A fresh home whose ledger of trials began at a given moment: since when it counts is a part of what is shown."""
    with new_database(servers.postgres_dsn, template) as dsn:
        administer(dsn, "UPDATE trial_ledger SET since = '2024-01-01'")
        yield Settings(home=home, postgres_dsn=dsn, redis_url=servers.redis_url, connections=4)


@pytest.fixture(scope="module")
def whole(place: Path, experiment: Experiment, servers: Servers, with_dagster: str) -> Iterator[Settings]:
    """A home in which the main job was run."""
    with fresh(servers, with_dagster, place / "whole") as settings:
        outcome = DagsterOrchestrator(settings).run(experiment, home=settings.home)
        assert outcome.succeeded, outcome.failure
        yield settings


@pytest.mark.long
@pytest.mark.timeout(900)
def test_each_asset_alone_in_a_process_of_its_own_has_the_data_version_of_the_main_job(
    whole: Settings,
    place: Path,
    experiment: Experiment,
    servers: Servers,
    with_dagster: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    wanted, graph = asset_selection(experiment), defs.resolve_asset_graph()
    with fresh(servers, with_dagster, place / "apart") as apart:
        months = "...".join(partition_range(experiment, apart))
        for key in (key for key in graph.toposorted_asset_keys if key in wanted):
            node = graph.get(key)
            chosen = ("--select", key.to_user_string(), *(("--partition-range", months) if node.is_partitioned else ()))
            assert node.group_name is not None
            failed = on_service(apart, node.group_name, experiment, "asset", "materialize", *chosen)
            assert not failed, (key, capfd.readouterr().err[-3_000:])
        made = versions(apart)
    assert set(made) == {key.to_user_string() for key in wanted}
    assert made == versions(whole)


@pytest.mark.long
@pytest.mark.timeout(300)
# Monitoring before training, whose challenger is counted as a trial: the report shows how many there are.
@pytest.mark.parametrize("service", ["data", "features", "monitoring", "training", "prediction", "trading"])
def test_the_job_of_a_service_goes_to_its_end_and_says_what_the_experiment_does_not_ask_for(
    whole: Settings, experiment: Experiment, service: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = versions(whole)
    assert launched(whole, service, experiment) == 0, capfd.readouterr().err[-3_000:]
    after = versions(whole)
    group = keys_of(service)
    # What no main job makes: the champion, and the notebooks.
    apart = {"models/champion", *(key.to_user_string() for key in group if key.path[0] == "notebooks")}
    asked = {key.to_user_string() for key in asset_selection(experiment)} | apart
    added = {name: version for name, version in after.items() if before.get(name) != version and name not in apart}
    assert added == dict.fromkeys({key.to_user_string() for key in group} - asked, "unused")


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_jobs_of_data_and_features_make_in_an_empty_home_what_the_main_job_makes(
    whole: Settings,
    place: Path,
    experiment: Experiment,
    servers: Servers,
    with_dagster: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with fresh(servers, with_dagster, place / "two") as two:
        for service in ("data", "features"):
            failed = launched(two, service, experiment)
            assert not failed, (service, capfd.readouterr().err[-3_000:])
        made = versions(two)
    named = {key.to_user_string() for service in ("data", "features") for key in keys_of(service)}
    assert set(made) == named
    assert made == {name: version for name, version in versions(whole).items() if name in named}
