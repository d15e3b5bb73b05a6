import re

import polars as pl
import pytest

from tests.models.panels import FEATURES, panel
from tidemill.domain.errors import IntegrityError
from tidemill.models.artifact import Artifact
from tidemill.models.registry import engine
from tidemill.models.trees.text import trees


@pytest.fixture(scope="module")
def model() -> Artifact:
    return engine("lightgbm").fit(panel(5, 80, skill=0.5), features=FEATURES, params={"trees": 3, "num_leaves": 4}, seed=7)


def changed(text: str, key: str, value: str) -> str:
    """The text with the first `key` line altered, and the sizes of the trees made to fit."""
    head, _, rest = text.partition(f"\n{key}=")
    old, _, tail = rest.partition("\n")
    made = f"{head}\n{key}={value}\n{tail}"
    sizes = [len(f"Tree={part}") for part in made.partition("\nTree=")[2].partition("end of trees")[0].split("Tree=")]
    assert old != value
    return "\n".join(
        f"tree_sizes={' '.join(map(str, sizes))}" if line.startswith("tree_sizes=") and key != "tree_sizes" else line
        for line in made.split("\n")
    )


def test_the_trees_that_this_project_writes_are_accepted(model: Artifact) -> None:
    trees(model.text, features=len(FEATURES))


def test_a_model_that_found_nothing_to_split_is_accepted() -> None:
    rows = panel(5, 80).with_columns(pl.lit(0.01).alias("label"))
    trees(engine("lightgbm").fit(rows, features=FEATURES, params={}, seed=7).text, features=len(FEATURES))


def test_trees_that_split_unknown_from_known_values_are_accepted() -> None:
    rows = panel(5, 80, skill=0.9)
    rows = rows.with_columns(pl.when(pl.col("x0") > 0).then(float("nan")).otherwise(pl.col("x1")).alias("x0"))
    model = engine("lightgbm").fit(rows, features=FEATURES, params={"trees": 3}, seed=7)
    assert re.search(r"threshold=.*inf", model.text)
    assert engine("lightgbm").predict(model, rows)["prediction"].is_finite().all()


def test_trees_over_another_number_of_features_are_refused(model: Artifact) -> None:
    with pytest.raises(IntegrityError):
        trees(model.text, features=len(FEATURES) - 1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", "v5"),
        ("num_class", "2"),
        ("max_feature_idx", "9999999"),
        ("feature_names", "f0"),
        ("tree_sizes", "9999999 1 1"),
        ("tree_sizes", "-1"),
        ("num_leaves", "99999999"),
        ("num_leaves", "0"),
        ("num_cat", "1"),
        ("is_linear", "1"),
        ("split_feature", "0 1 99"),
        ("split_feature", "0 1 -1"),
        ("split_feature", "0 1"),
        ("threshold", "0.1 0.2 nan"),
        ("decision_type", "1 2 2"),
        ("decision_type", "6 2 2"),
        ("left_child", "0 -1 -2"),
        ("left_child", "1 -1 -99"),
        ("left_child", "2147483647 -1 -2"),
        ("leaf_value", "0.1 0.2 0.3 inf"),
        ("leaf_value", "0.1"),
        ("leaf_count", "1 2 3 x"),
    ],
)
def test_a_line_that_would_lead_the_parser_astray_is_refused(model: Artifact, key: str, value: str) -> None:
    with pytest.raises(IntegrityError, match="refused"):
        trees(changed(model.text, key, value), features=len(FEATURES))


@pytest.mark.parametrize("text", ["", "tree\n", "tree\n\nTree=0\n", "\x80\x04."])
def test_what_is_no_model_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError):
        trees(text, features=1)


def test_anything_after_the_trees_is_refused(model: Artifact) -> None:
    for more in ("import os\n", "Tree=9\n", "[data: /etc/passwd]x\n"):
        text = model.text.replace("parameters:\n", f"parameters:\n{more}", 1)
        with pytest.raises(IntegrityError, match="after the trees"):
            trees(text, features=len(FEATURES))


def test_a_text_cut_anywhere_is_refused(model: Artifact) -> None:
    for cut in range(0, len(model.text) - 1, 97):
        with pytest.raises(IntegrityError):
            trees(model.text[:cut], features=len(FEATURES))


def test_altered_trees_are_refused_when_they_are_used(model: Artifact) -> None:
    poisoned = Artifact(model.manifest, text=changed(model.text, "split_feature", "0 1 99"))
    with pytest.raises(IntegrityError):
        engine("lightgbm").predict(poisoned, panel(2, 40))
