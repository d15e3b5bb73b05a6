"""One engine that fails costs its own rows and nothing else; repaired, it leaves no trace."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.databases import new_database
from tests.study.panels import day_of, small_experiment
from tests.study.running import STEPS
from tidemill.config import Secret, Settings
from tidemill.domain.errors import EngineError, InputError, StopError, UnavailableError
from tidemill.domain.experiment import EngineSpec, Experiment, PromotionSpec, SplitSpec
from tidemill.embedded import Servers
from tidemill.models.momentum import Momentum
from tidemill.models.ridge import Ridge
from tidemill.queries.results import result_of
from tidemill.steps.checks.causality import ASSETS, judge_causality
from tidemill.steps.checks.suites import judge_suite
from tidemill.steps.models.champion import consider
from tidemill.steps.models.engines import train, train_among
from tidemill.storage.trials import read_trials
from tidemill.study.freshness import StepReport
from tidemill.study.places import report_path
from tidemill.study.scoring import books, require_predictions
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.workspace import Workspace, open_workspace

SMALLER = (EngineSpec(name="momentum"), EngineSpec(name="mean_reversion"))
SPLITS = SplitSpec(train=100, test=70, min_folds=3)
# What the number of trials makes of a result is another thing: the smaller ensemble was looked at too, and counts.
BY_STUDY = ("refusals", "signals", "trades", "positions", "equity", "attribution", "engine_shares")


@pytest.fixture
def experiment(folder: Path) -> Experiment:
    return small_experiment(folder, engines=(*SMALLER, EngineSpec(name="ridge")), splits=SPLITS)


def run(workspace: Workspace, experiment: Experiment) -> tuple[Study, dict[str, StepReport[Any]]]:
    """The steps as the graph runs them."""
    study = study_of(workspace, experiment)
    engines = {spec.name: lambda study, name=spec.name: train_among(study, name) for spec in experiment.engines}
    before = {name: step for name, step in STEPS.items() if name in ("bars", "instruments", "gaps", "features", "labels")}
    after = {name: step for name, step in STEPS.items() if name not in (*before, "momentum", "ridge")}
    return study, {name: step(study) for name, step in {**before, **engines, **after}.items()}


def _raise(error: Exception) -> Callable[..., Any]:
    def failing(*_: Any, **__: Any) -> Any:
        raise error

    return failing


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Ridge cannot be trained; `undo` repairs it."""
    with monkeypatch.context() as patch:
        patch.setattr(Ridge, "fit", _raise(ValueError("no rank")))
        yield patch


def stored(study: Study) -> dict[tuple[str, str], str]:
    """(table, part) → version, of all that follows from the engines."""
    tables = [("predictions", key) for key in books(study).values()] + [(table, study.key) for table in BY_STUDY]
    return {
        (f"{table}/{key}", part): version for table, key in tables for part, version in study.part_versions(table, key).items()
    }


def rows(workspace: Workspace, table: str) -> pl.DataFrame:
    """What Postgres serves."""
    order = {"predictions": "book, symbol, open_time", "signals": "symbol, open_time", "equity": "time"}[table]
    found = workspace.call(workspace.database.fetch, f"SELECT * FROM {table} ORDER BY {order}")
    return pl.DataFrame([dict(row) for row in found], infer_schema_length=None)


def test_the_others_are_reported_and_the_report_says_who_is_missing_and_why(
    workspace: Workspace, experiment: Experiment, broken: pytest.MonkeyPatch
) -> None:
    study, reports = run(workspace, experiment)
    why = "The engine ridge failed: ValueError: no rank."
    assert study.failed == {"ridge": why}
    assert reports["ridge"].notes == (why,)
    result = workspace.call(result_of, workspace.settings, experiment)
    assert [one.book for one in result.books] == ["ensemble", "momentum", "mean_reversion"]
    assert result.failed == {"ridge": why}
    assert result.sentences[:2] == (
        f"The engine ridge failed and is missing here: {why}",
        "The ensemble is of momentum, mean_reversion alone.",
    )
    text = report_path(study).read_text(encoding="utf-8")
    assert "ValueError: no rank" in text
    with pytest.raises(InputError, match=r"ridge failed in the last run: .*no rank"):
        require_predictions(study, "ridge")


def test_trials_of_what_failed_are_not_counted_and_the_ensemble_counts_as_what_it_is(
    workspace: Workspace, experiment: Experiment, broken: pytest.MonkeyPatch
) -> None:
    run(workspace, experiment)
    partial = workspace.call(read_trials, workspace.database)
    assert sorted(partial["engine"]) == ["ensemble", "mean_reversion", "momentum"]
    smaller = small_experiment(Path(experiment.dataset.source.removeprefix("file:")), engines=SMALLER, splits=SPLITS)
    run(workspace, smaller)
    assert workspace.call(read_trials, workspace.database).height == 3, "the same two engines are the same ensemble"
    broken.undo()
    run(workspace, experiment)
    assert sorted(workspace.call(read_trials, workspace.database)["engine"]) == [
        *("ensemble", "ensemble", "mean_reversion", "momentum", "ridge"),
    ]


def test_a_run_after_the_repair_equals_one_that_never_failed(
    workspace: Workspace,
    experiment: Experiment,
    broken: pytest.MonkeyPatch,
    servers: Servers,
    migrated: str,
    redis_url: Secret,
    tmp_path: Path,
) -> None:
    run(workspace, experiment)
    broken.undo()
    study, reports = run(workspace, experiment)
    assert study.failed == {}
    assert not reports["momentum"].worked
    assert not reports["mean_reversion"].worked
    with new_database(servers.postgres_dsn, migrated) as dsn:
        settings = Settings(home=tmp_path / "other", postgres_dsn=dsn, redis_url=redis_url, connections=4)
        with open_workspace(settings) as other:
            never, _ = run(other, experiment)
            assert stored(study) == stored(never)
            for table in ("predictions", "signals", "equity"):
                assert rows(workspace, table).equals(rows(other, table), null_equal=True), table
    assert "ridge failed" not in report_path(study).read_text(encoding="utf-8")


def test_a_run_without_repair_tries_what_failed_again_and_keeps_the_rest(
    workspace: Workspace, experiment: Experiment, broken: pytest.MonkeyPatch
) -> None:
    first, _ = run(workspace, experiment)
    before = stored(first)
    second, reports = run(workspace, experiment)
    assert {name for name, report in reports.items() if report.worked} == {"ridge"}
    assert stored(second) == before


def test_an_engine_that_fails_later_takes_its_old_rows_along(
    workspace: Workspace, experiment: Experiment, folder: Path, panel: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(workspace, experiment)
    day_of(panel, 328).write_parquet(folder / "day328.parquet")
    monkeypatch.setattr(Ridge, "predict", _raise(ArithmeticError("late")))
    study, _ = run(workspace, experiment)
    assert study.failed == {"ridge": "The engine ridge failed: ArithmeticError: late."}
    for table in ("signals", "equity", "trades", "positions", "attribution"):
        assert "ridge" not in study.lake.manifests(table, study.key), table
    parts = study.lake.scan("attribution", study.key, partitions=["ensemble"]).collect()
    assert set(parts.filter(pl.col("part") == "engines")["name"]) >= {"momentum", "mean_reversion"}
    assert "ridge" not in parts["name"].to_list()


def test_when_every_engine_fails_the_run_fails(workspace: Workspace, folder: Path, broken: pytest.MonkeyPatch) -> None:
    broken.setattr(Momentum, "fit", _raise(ValueError("nor here")))
    with pytest.raises(StopError, match=r"Every engine failed. The engine momentum failed: .*nor here. The engine ridge"):
        run(workspace, small_experiment(folder))


def test_what_may_succeed_later_is_no_failure_of_the_engine(
    workspace: Workspace, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ridge, "fit", _raise(UnavailableError("Postgres is down.")))
    with pytest.raises(UnavailableError):
        run(workspace, experiment)
    assert study_of(workspace, experiment).failed == {}


def test_an_engine_alone_fails_as_before(workspace: Workspace, experiment: Experiment, broken: pytest.MonkeyPatch) -> None:
    study = study_of(workspace, experiment)
    for name in ("bars", "features", "labels"):
        STEPS[name](study)
    with pytest.raises(EngineError, match="no rank") as caught:
        train(study, "ridge")
    assert caught.value.engine == "ridge"


def test_the_checks_judge_who_is_there_and_judge_the_whole_again(
    workspace: Workspace, experiment: Experiment, broken: pytest.MonkeyPatch
) -> None:
    study, _ = run(workspace, experiment)
    partial = [judge_causality(study, asset) for asset in ASSETS]
    assert partial[1].proof.proven == ("momentum", "mean_reversion")
    judge_suite(study, "predictions", "predictions/engines")
    broken.undo()
    whole, _ = run(workspace, experiment)
    again = [judge_causality(whole, asset) for asset in ASSETS]
    assert [one.worked for one in again] == [False, True, True]
    assert again[1].proof.proven == ("momentum", "mean_reversion", "ridge")


@pytest.mark.parametrize(("book", "refused"), [("ensemble", True), ("ridge", True), ("momentum", False)])
def test_a_book_that_lacks_an_engine_is_not_promoted(
    workspace: Workspace, folder: Path, broken: pytest.MonkeyPatch, book: str, refused: bool
) -> None:
    study, _ = run(workspace, small_experiment(folder, limits="default", promotion=PromotionSpec(book=book, bars=60)))
    if refused:
        with pytest.raises(StopError, match=r"lacks the engine ridge, which failed. Repair it"):
            consider(study)
    else:
        assert consider(study).worked


def test_an_engine_that_cannot_use_the_few_bars_of_a_proof_is_proven_on_the_study_s_own(
    workspace: Workspace, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = Ridge.fit

    def needy(self: Ridge, training: pl.DataFrame, **given: Any) -> Any:
        if training["symbol"].n_unique() < 6:
            raise ArithmeticError("five symbols are too few")
        return fit(self, training, **given)

    monkeypatch.setattr(Ridge, "fit", needy)
    study, _ = run(workspace, small_experiment(folder))
    assert judge_causality(study, ASSETS[1]).proof.proven == ("momentum", "ridge")
