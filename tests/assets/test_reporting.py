"""Figures by name become the words that a person reads; a name without words of its own loses its underscores."""

import inspect
from collections.abc import Iterator
from importlib import import_module
from pkgutil import walk_packages
from typing import Any

import msgspec
import pytest
from dagster import MarkdownMetadataValue, PathMetadataValue

import tidemill.steps
from assets import reporting
from tidemill.steps.features.labels import LabelFacts
from tidemill.steps.features.sentiment import Coverage, SentimentFacts
from tidemill.steps.market_data.bars import BarFacts, ImportFacts
from tidemill.steps.models.champion import ChallengeFacts
from tidemill.steps.models.ensemble import EnsembleFacts
from tidemill.steps.performance.drift import DriftFacts
from tidemill.steps.trading.attribution import AttributionFacts
from tidemill.steps.trading.signals import SignalFacts
from tidemill.study.freshness import FileFacts, StepReport

IMPORTED = ImportFacts(
    calendar="24/7",
    rows=7,
    inserted=5,
    unchanged=0,
    restated=0,
    ended=0,
    duplicates=0,
    quarantined=2,
    gaps=0,
    missing_bars=0,
    adjustments=0,
    reasons={"high_low": 2},
    flags={"price_jump": 1},
)


def shown(facts: msgspec.Struct | None, **more: Any) -> dict[str, Any]:
    return reporting.details(StepReport(worked=True, facts=facts, **more))


def lines(found: dict[str, Any]) -> list[str]:
    table = found["table"]
    assert isinstance(table, MarkdownMetadataValue)
    return str(table.value).splitlines()


def test_a_struct_within_and_a_mapping_stand_for_their_figures() -> None:
    found = shown(BarFacts(dataset="panel.1d", imported=IMPORTED))
    assert list(found)[:3] == ["dataset", "calendar", "rows"]
    assert (found["missing bars"], found["quarantined: high low"], found["flagged: price jump"]) == (0, 2, 1)
    parts = AttributionFacts(return_from={"before costs": 0.1}, return_through={"mean_reversion": 0.2}, beta=0.3)
    assert shown(parts) == {"return from before costs": 0.1, "return through mean reversion": 0.2, "beta": 0.3}
    weights = EnsembleFacts(engines=2, weighting="skill", newest_weights={"ridge": 0.75, "mean_reversion": 0.25})
    assert shown(weights) == {"engines": 2, "weights": "skill", "ridge": 0.75, "mean reversion": 0.25}


def test_names_have_their_words() -> None:
    coverage = Coverage(items=4, covered_symbols=3, unscored_items=0, mean_score=None, months_computed=2)
    assert shown(SentimentFacts(classifier="lexicon", half_life=5.0, items_scored=4, coverage=coverage)) == {
        "classifier": "lexicon",
        "half-life in bars": 5.0,
        "items scored": 4,
        "items about symbols of the dataset": 4,
        "symbols with news": 3,
        "items without a score": 0,
        "mean score": "not defined",
        "months computed": 2,
    }
    path = shown(FileFacts(path="a/b.html"))["path"]
    assert isinstance(path, PathMetadataValue)


def test_what_is_unset_is_left_out_and_none_is_said_as_it_is_meant() -> None:
    assert shown(LabelFacts(label="forward_return", label_horizon=5)) == {"label": "forward_return", "horizon in bars": 5}
    assert shown(DriftFacts(moved_features=0.5, skill_t=None, bar_times=60))["fall of rank IC (t)"] == "not defined"
    assert shown(ChallengeFacts(champion=None, bars_compared=9, promoted=False))["champion"] == "none"
    assert shown(SignalFacts(strategy="quantile", neutralised_by=None, predictions_rejected=0))["neutralised by"] == "nothing"
    assert shown(None) == {}


def test_columns_have_words_and_a_mapping_in_a_cell_is_a_column_for_each_key() -> None:
    columns = ("fold", "model_id", "trained_to", "tested_to", "weights")
    found = shown(None, columns=columns, table=((0, "ridge-1", "2021", "2022", {"mean_reversion": 0.5, "ridge": None}),))
    assert lines(found) == [
        "|fold|model|to|to|mean_reversion|ridge|",
        "|-|-|-|-|-|-|",
        "|0|ridge-1|2021|2022|0.5|–|",
    ]
    assert lines(shown(None, columns=("symbol", "since", "missing_bars"))) == ["|symbol|from|missing bars|", "|-|-|-|"]


def facts_of_steps() -> Iterator[type[msgspec.Struct]]:
    """Every struct of facts that a step declares."""
    for found in walk_packages(tidemill.steps.__path__, "tidemill.steps."):
        module = import_module(found.name)
        for name, kind in inspect.getmembers(module, inspect.isclass):
            if name.endswith("Facts") and kind.__module__ == found.name:
                yield kind


def test_every_word_is_of_a_name_that_some_step_tells() -> None:
    """A renamed field would fall back to its bare name in silence."""
    known = {name for kind in facts_of_steps() for name in all_fields(kind)}
    given = set(reporting._FACTS) | set(reporting._BEFORE) | set(reporting._NONE)
    assert given <= known


def all_fields(kind: type[msgspec.Struct]) -> Iterator[str]:
    for field in msgspec.structs.fields(kind):
        yield field.name
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from all_fields(field.type)


@pytest.mark.parametrize("kind", sorted(facts_of_steps(), key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__)
def test_a_mapping_among_facts_says_what_its_keys_are(kind: type[msgspec.Struct]) -> None:
    mappings = {field.name for field in msgspec.structs.fields(kind) if str(field.type).startswith("dict")}
    assert mappings <= set(reporting._BEFORE)
