"""The order of the steps outside Dagster is the graph's own."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from definitions import defs
from tidemill.domain.experiment import DatasetSpec, Experiment, FeatureSpec, NewsSpec
from tidemill.steps import upstream
from tidemill.steps.upstream import TRAINING_SET, bring_up_to_date

_MARKET = ["market_data/bars", "market_data/instruments", "market_data/fear_greed", "market_data/news"]
_FEATURES = ["features/sentiment", "features/technical", "features/training_set"]


def test_every_step_comes_after_what_its_asset_depends_on_and_nothing_is_left_out() -> None:
    graph = defs.resolve_asset_graph()
    parents = {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.materializable_asset_keys
    }
    done: set[str] = set()
    for name in TRAINING_SET:
        assert parents[name] <= done, name
        done.add(name)
    needed, below = {"features/training_set"}, {"features/training_set"}
    while below:
        below = set().union(*(parents[name] for name in below)) - needed
        needed |= below
    assert needed <= done


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({}, []),
        ({"features": FeatureSpec(fear_greed="file:mood.csv")}, ["market_data/fear_greed"]),
        ({"news": NewsSpec(source="file:news.csv")}, ["market_data/news"]),
    ],
)
def test_a_study_beside_one_that_is_up_to_date_asks_a_source_for_what_that_one_did_not(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], asked: list[str]
) -> None:
    done: list[str] = []
    steps = {name: lambda study, name=name: done.append(name) for name in TRAINING_SET}
    monkeypatch.setattr(upstream, "TRAINING_SET", steps)
    plain = Experiment(name="plain", dataset=DatasetSpec(source="sample"))
    beside: Any = SimpleNamespace(experiment=plain)
    study: Any = SimpleNamespace(experiment=msgspec.structs.replace(plain, **changes))
    bring_up_to_date(study, beside=beside)
    assert done == [*asked, *_FEATURES]
    done.clear()
    bring_up_to_date(study)
    assert done == [*_MARKET, *_FEATURES]


def test_nothing_is_promoted_on_the_way() -> None:
    assert "models/champion" not in TRAINING_SET
