"""The main job as a person sees it in the web UI: what was made, what was checked, what was not done again, what blocked."""

import base64
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetKey, AssetMaterialization, DagsterEventType, DagsterInstance, DagsterRunStatus
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluation

from tidemill.domain.ports import RunOutcome
from tidemill.quality.suites import suite_expectations
from tidemill.steps.checks.causality import ASSETS as ASSETS_PROVEN
from tidemill.steps.checks.causality import CHECK

ASSETS = {
    "market_data/bars",
    "market_data/instruments",
    "market_data/gaps",
    "features/technical",
    "features/training_set",
    "models/momentum",
    "models/ridge",
    "models/ensemble",
    "predictions/engines",
    "predictions/ensemble",
    "trading/signals",
    "trading/backtest",
    "performance/engines",
    "performance/portfolio",
    "performance/drift",
    "performance/report",
}
PLOTTED = {
    "market_data/bars",
    "features/technical",
    "features/training_set",
    "predictions/engines",
    "trading/backtest",
    "performance/engines",
    "performance/portfolio",
}
TABLES = {"market_data/instruments", "models/ridge", "predictions/engines", "trading/backtest", "performance/portfolio"}
PARTITIONED = ("market_data/bars", "features/technical", "features/training_set")
MONTHS = {f"2021-{month:02d}" for month in range(1, 12)}
SUITES = {"market_data/bars": "bars", "features/technical": "features", "predictions/engines": "predictions"}


def materializations(opened: DagsterInstance, outcome: RunOutcome) -> dict[str, AssetMaterialization]:
    """Asset → its materialization in a run, of the newest month."""
    events = opened.all_logs(outcome.run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION)
    made = [event.asset_materialization for event in events if event.asset_materialization is not None]
    ordered = sorted(made, key=lambda item: item.partition or "")
    return {item.asset_key.to_user_string(): item for item in ordered}


def evaluations(opened: DagsterInstance, outcome: RunOutcome) -> list[AssetCheckEvaluation]:
    events = opened.all_logs(outcome.run_id, of_type=DagsterEventType.ASSET_CHECK_EVALUATION)
    return [event.get_dagster_event().asset_check_evaluation_data for event in events]


def value(shown: AssetMaterialization | AssetCheckEvaluation, name: str) -> Any:
    return shown.metadata[name].value


def png_of(markdown: str) -> bytes:
    head, _, data = markdown.partition("base64,")
    assert head == "![plot](data:image/png;"
    return base64.b64decode(data.removesuffix(")"), validate=True)


def test_the_run_makes_every_asset_of_the_experiment_and_no_other(first: RunOutcome, opened: DagsterInstance) -> None:
    assert first.succeeded, first.failure
    assert {name for name, _, _ in first.steps} == ASSETS
    recorded = opened.get_run_by_id(first.run_id)
    assert recorded is not None
    assert recorded.status is DagsterRunStatus.SUCCESS
    assert recorded.tags["tidemill/experiment"] == "small"


def test_every_materialization_says_what_was_done_and_on_what(first: RunOutcome, opened: DagsterInstance) -> None:
    found = materializations(opened, first)
    assert set(found) == ASSETS
    for name, made in found.items():
        assert isinstance(value(made, "worked"), bool), name
        assert value(made, "data version") == made.tags["dagster/data_version"], name
        assert made.tags["dagster/code_version"], name
        assert len(value(made, "code version")) >= 8, name
    counted = ASSETS - {"market_data/gaps", "models/ensemble", "performance/report"}
    assert all(value(found[name], "rows") > 0 for name in counted)
    assert "rows" not in found["performance/report"].metadata, "what a step does not count is not shown as 0"
    assert value(found["market_data/bars"], "rows") == 6 * 330
    assert Path(value(found["performance/report"], "path")).is_file()


def test_plots_are_pictures_and_tables_are_tables(first: RunOutcome, opened: DagsterInstance) -> None:
    found = materializations(opened, first)
    assert {name for name, made in found.items() if "plot" in made.metadata} == PLOTTED
    for name in PLOTTED:
        image = png_of(value(found[name], "plot"))
        assert image.startswith(b"\x89PNG"), name
        assert 5_000 < len(image) < 120_000, name
    assert {name for name, made in found.items() if "table" in made.metadata} >= TABLES
    lines = value(found["trading/backtest"], "table").splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["ensemble", "momentum", "ridge", "benchmark"]


def test_partitioned_assets_have_an_event_for_every_month_and_details_on_the_newest_only(
    first: RunOutcome, opened: DagsterInstance
) -> None:
    for name in PARTITIONED:
        assert opened.get_materialized_partitions(AssetKey(name.split("/"))) == MONTHS
    logged = opened.all_logs(first.run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION)
    made = [event.asset_materialization for event in logged if event.asset_materialization is not None]
    bars = [each for each in made if each.asset_key == AssetKey(["market_data", "bars"])]
    assert {each.partition for each in bars if "plot" in each.metadata} == {max(MONTHS)}
    assert all("worked" in each.metadata for each in bars)


def test_every_expectation_is_a_check_with_its_verdict_and_data_docs(first: RunOutcome, opened: DagsterInstance) -> None:
    judged = [item for item in evaluations(opened, first) if item.check_name not in (CHECK, "valid", "works")]
    found = {(item.asset_key.to_user_string(), item.check_name): item for item in judged}
    expected = {
        (asset, name.partition(".")[2]): (severity, title)
        for asset, suite in SUITES.items()
        for name, severity, title in suite_expectations(suite)  # type: ignore[arg-type]  # its three names
    }
    assert set(found) == set(expected)
    for key, item in found.items():
        severity, title = expected[key]
        assert item.blocking == (severity == "critical"), key
        assert item.passed or severity == "warning", (key, item.description)
        assert title in str(item.description), key
        assert value(item, "judged in this run") is True
        docs = Path(value(item, "data docs"))
        assert docs.is_file()
        assert "<html" in docs.read_text(encoding="utf-8")[:500].lower()


def test_how_many_predictions_are_rejected_is_shown_without_blocking(first: RunOutcome, opened: DagsterInstance) -> None:
    (found,) = [item for item in evaluations(opened, first) if item.check_name == "valid"]
    assert found.asset_key == AssetKey(["predictions", "ensemble"])
    assert not found.blocking
    assert 0 <= value(found, "rejected") < value(found, "predictions")
    assert "not traded" in str(found.description)


def test_features_predictions_and_signals_are_proven_causal_once(
    first: RunOutcome, second: RunOutcome, opened: DagsterInstance
) -> None:
    for outcome, in_this_run in ((first, True), (second, False)):
        found = [item for item in evaluations(opened, outcome) if item.check_name == CHECK]
        assert {item.asset_key.to_user_string() for item in found} == set(ASSETS_PROVEN)
        for item in found:
            assert item.passed, item.description
            assert item.blocking
            assert value(item, "judged in this run") is in_this_run
            assert value(item, "proven") >= 1


def test_a_run_with_nothing_new_works_on_nothing_and_shows_what_it_showed(
    first: RunOutcome, second: RunOutcome, opened: DagsterInstance
) -> None:
    assert second.succeeded, second.failure
    assert {name for name, _, _ in second.steps} == ASSETS
    assert [name for name, _, worked in second.steps if worked] == []
    before, after = materializations(opened, first), materializations(opened, second)
    for name in ASSETS:
        assert after[name].tags["dagster/data_version"] == before[name].tags["dagster/data_version"], name
        assert after[name].tags["dagster/code_version"] == before[name].tags["dagster/code_version"], name
        assert ("plot" in after[name].metadata) == (name in PLOTTED), name
    for name in PLOTTED:
        assert value(after[name], "plot") == value(before[name], "plot"), name
    judged = [item for item in evaluations(opened, second) if item.check_name != "works"]
    assert not any(value(item, "judged in this run") for item in judged)


def test_a_damaged_bar_blocks_everything_downstream_with_one_sentence(broken: RunOutcome, opened: DagsterInstance) -> None:
    assert not broken.succeeded
    assert broken.failure == (
        "The check market_data/bars:high_is_highest failed: “No price is above the high” does not hold in 1 row."
    )
    assert {name for name, _, _ in broken.steps} == {"market_data/bars"}
    failed = [item for item in evaluations(opened, broken) if not item.passed]
    assert [(item.check_name, item.blocking, value(item, "rows that break it")) for item in failed if item.blocking] == [
        ("high_is_highest", True, 1)
    ]


def test_damaged_data_is_another_version_and_is_judged_anew(
    second: RunOutcome, broken: RunOutcome, opened: DagsterInstance
) -> None:
    bars = "market_data/bars"
    before, after = materializations(opened, second)[bars], materializations(opened, broken)[bars]
    assert after.tags["dagster/data_version"] != before.tags["dagster/data_version"]
    assert after.tags["dagster/code_version"] == before.tags["dagster/code_version"]
    assert all(value(item, "judged in this run") for item in evaluations(opened, broken))


@pytest.mark.parametrize("name", sorted(ASSETS - {"market_data/bars"}))
def test_what_is_downstream_of_a_blocked_asset_keeps_its_last_materialization(
    second: RunOutcome, broken: RunOutcome, opened: DagsterInstance, name: str
) -> None:
    last = opened.get_latest_materialization_event(AssetKey(name.split("/")))
    assert last is not None
    assert last.run_id == second.run_id
