"""The graph as a whole: a change of it is a diff of `graph.json` to review."""

import ast
import inspect
import json
import os
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph

import assets
import definitions
from assets.engine_keys import engines_in_force
from definitions import defs

SNAPSHOT = Path(__file__).with_name("graph.json")
RENEW = "TIDEMILL_RENEW_GRAPH"
SERVICES = ("data", "features", "training", "prediction", "trading", "monitoring")
# Icons that Dagster's web UI has; any other kind is shown as bare text.
ICONS = {"polars", "numpy", "postgres", "redis", "parquet", "lightgbm", "pytorch", "matplotlib", "plotly", "report", "jupyter"}
OWNERS = {"team:data", "team:research", "team:trading"}
THIN_LINES = 25


@pytest.fixture(scope="module")
def graph() -> AssetGraph:
    return defs.resolve_asset_graph()


def _names(keys: Any) -> list[str]:
    return sorted(key.to_user_string() for key in keys)


def _asset(graph: AssetGraph, key: dg.AssetKey) -> dict[str, Any]:
    node = graph.get(key)
    partitions = node.partitions_def
    return {
        "group": node.group_name,
        "depends on": _names(node.parent_keys),
        "partitions": f"{type(partitions).__name__} from {partitions.start:%Y-%m}"
        if isinstance(partitions, dg.TimeWindowPartitionsDefinition)
        else None,
        "kinds": sorted(node.kinds),
        "owners": sorted(node.owners),
        "tags": {name: value for name, value in sorted(node.tags.items()) if not name.startswith("dagster/kind/")},
        "checks": {
            check.name: "blocks" if graph.get(check).blocking else "warns" for check in sorted(node.check_keys, key=str)
        },
    }


def snapshot(graph: AssetGraph) -> dict[str, Any]:
    """Everything about the graph that others rely on, without what changes with every edit (code versions, texts)."""
    repository = defs.get_repository_def()
    return {
        "assets": {key.to_user_string(): _asset(graph, key) for key in sorted(graph.get_all_asset_keys())},
        "services": {name: _names(getattr(definitions, name).resolve_all_asset_keys()) for name in SERVICES},
        "jobs": sorted(job.name for job in repository.get_all_jobs() if not job.name.startswith("__")),
        "main makes": _names(defs.resolve_job_def("main").asset_layer.executable_asset_keys),
        "sensors": {sensor.name: sorted(target.job_name for target in sensor.targets) for sensor in repository.sensor_defs},
        "schedules": {schedule.name: [schedule.job_name, schedule.cron_schedule] for schedule in repository.schedule_defs},
    }


def test_the_graph_is_the_one_that_was_reviewed(graph: AssetGraph) -> None:
    text = json.dumps(snapshot(graph), indent=2, ensure_ascii=False) + "\n"
    if os.environ.get(RENEW):
        SNAPSHOT.write_text(text, encoding="utf-8")
    assert text == SNAPSHOT.read_text(encoding="utf-8"), (
        f"The graph differs from {SNAPSHOT.name}. If that is wanted: `{RENEW}=1 scripts/test tests/assets/test_graph.py`, "
        "then review the difference with git."
    )


def test_every_asset_has_what_a_person_looks_for_in_the_web_ui(graph: AssetGraph) -> None:
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        name = key.to_user_string()
        assert (node.description or "").endswith("."), name
        assert node.code_version, name
        assert set(node.owners) & OWNERS == set(node.owners) != set(), name
        assert 1 <= len(node.kinds) <= 3, name
        assert node.kinds <= ICONS, name
        assert len(key.path) == 2, name


def test_every_check_says_in_a_sentence_what_it_expects(graph: AssetGraph) -> None:
    for key in graph.asset_check_keys:
        assert len(graph.get_check_spec(key).description or "") > 10, key
    judged = {key.asset_key.to_user_string() for key in graph.asset_check_keys}
    expected = {"market_data/bars", "features/technical", "predictions/engines", "predictions/ensemble", "trading/signals"}
    assert judged == expected | {f"models/{info.name}" for info in engines_in_force()}


def test_no_asset_is_a_phantom_of_a_dependency_that_nobody_makes(graph: AssetGraph) -> None:
    """A misspelt dependency, or a key prefix given at load time, makes a second asset that validation accepts."""
    assert _names(graph.external_asset_keys) == []
    made = [key for name in SERVICES for key in getattr(definitions, name).resolve_asset_graph().materializable_asset_keys]
    assert sorted(made) == sorted(graph.get_all_asset_keys()), "each asset is made by exactly one service"


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_holds_one_group_and_leans_only_on_what_others_make(service: str, graph: AssetGraph) -> None:
    own: dg.Definitions = getattr(definitions, service)
    dg.Definitions.validate_loadable(own)
    alone = own.resolve_asset_graph()
    assert {alone.get(key).group_name for key in alone.materializable_asset_keys} == {service}
    assert set(alone.external_asset_keys) <= set(graph.materializable_asset_keys)


@pytest.mark.parametrize("service", SERVICES)
def test_the_job_of_a_service_makes_its_group_and_nothing_else(service: str, graph: AssetGraph) -> None:
    """Resolved from its own definitions, as a code location of its own would: what crosses is keys."""
    own: dg.Definitions = getattr(definitions, service)
    names = [job.name for job in own.get_repository_def().get_all_jobs() if not job.name.startswith("__")]
    assert names == [service]
    layer = own.resolve_job_def(service).asset_layer
    group = {key for key in graph.get_all_asset_keys() if graph.get(key).group_name == service}
    assert layer.executable_asset_keys == group
    assert layer.asset_graph.asset_check_keys == {check for key in group for check in graph.get(key).check_keys}
    assert defs.resolve_job_def(service).asset_layer.executable_asset_keys == group


def _asset_functions() -> list[tuple[str, ast.FunctionDef]]:
    found = []
    for path in sorted(Path(inspect.getfile(assets)).parent.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                decorators = {ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list}
                if decorators & {"dg.asset", "dg.multi_asset", "dg.multi_asset_check", "dg.asset_check"}:
                    found.append((f"{path.parent.name}/{path.name}:{node.name}", node))
    return found


def test_asset_functions_read_call_and_return() -> None:
    functions = _asset_functions()
    assert len(functions) >= 14
    for name, node in functions:
        assert node.end_lineno is not None
        assert node.end_lineno - node.lineno + 1 <= THIN_LINES, f"{name} is not thin: put the work into tidemill"
        assert not any(isinstance(inner, ast.For | ast.While | ast.Try) for inner in ast.walk(node)) or "checks" in name, name


def test_every_partitioned_asset_runs_a_range_as_one_run(graph: AssetGraph) -> None:
    partitioned = [graph.get(key) for key in graph.get_all_asset_keys() if graph.get(key).is_partitioned]
    assert len(partitioned) == 4
    for node in partitioned:
        assert node.backfill_policy == dg.BackfillPolicy.single_run()
        assert node.partitions_def == partitioned[0].partitions_def
