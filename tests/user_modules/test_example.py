"""The README's example through every step: what it declares, what a change makes stale, and what happens when a part fails."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from tests.study.panels import small_experiment
from tests.study.running import STEPS, worked
from tests.user_modules.conftest import Write, example
from tidemill.domain.errors import InputError
from tidemill.domain.experiment import EngineSpec, Experiment, FeatureSpec, LabelSpec, StrategySpec
from tidemill.features.api import compute, explain
from tidemill.features.declaration import shipped
from tidemill.models.artifact import load
from tidemill.queries.results import result_of
from tidemill.steps.models.engines import train
from tidemill.study.freshness import StepReport
from tidemill.study.model_index import artifact_folder, index_of, models_home, spec_of
from tidemill.study.registry import Registry
from tidemill.study.scoring import predictions_of
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.workspace import Workspace
from tidemill.user_modules.loading import load_module

ALL_STEPS = {**STEPS, "ridge": lambda study: train(study, "my_engine")}
FIRST_STEPS = ("bars", "instruments", "features", "labels", "momentum", "ridge", "predictions")


@pytest.fixture
def module(write: Write) -> Path:
    return write(example())


@pytest.fixture
def experiment(folder: Path, module: Path) -> Experiment:
    return small_experiment(
        folder,
        features=FeatureSpec(sets=(), names=("ROC5", "roc_10", "natr_14", "my_gap", "my_reversal")),
        engines=(EngineSpec(name="momentum"), EngineSpec(name="my_engine")),
        label=LabelSpec(name="my_label"),
        strategy=StrategySpec(name="my_strategy"),
        modules=(str(module),),
    )


def run(
    workspace: Workspace, experiment: Experiment, steps: Iterable[str] = FIRST_STEPS
) -> tuple[Study, dict[str, StepReport[Any]]]:
    study = study_of(workspace, experiment)
    return study, {name: ALL_STEPS[name](study) for name in steps}


def edit(module: Path, old: str, new: str) -> None:
    text = module.read_text()
    assert text.count(old) >= 1
    module.write_text(text.replace(old, new))


def test_the_example_declares_one_of_each_kind(module: Path) -> None:
    made = load_module(module)
    assert made.features == ("my_gap", "my_reversal")
    assert (made.labels, made.engines, made.strategies) == (("my_label",), ("my_engine",), ("my_strategy",))
    found = explain("my_reversal", shipped().joined(made.own.features))
    assert (found.lookback, found.recursive, found.unit) == (6, False, "ratio")
    assert found.formula == "weekly(bars)['my_reversal'], a function in mine.py"


def test_the_example_reaches_the_report_and_a_second_run_does_no_work(workspace: Workspace, experiment: Experiment) -> None:
    study, first = run(workspace, experiment, ALL_STEPS)
    assert study.experiment.label.horizon == 3
    assert {"features", "labels", "ridge", "signals", "report"} <= worked(first)
    frame = study.feature_frame
    expected = frame.select("symbol", "open_time").join(
        study.adjusted.select("symbol", "open_time", x=1 - pl.col("close") / pl.col("close").shift(5).over("symbol")),
        on=("symbol", "open_time"),
    )
    assert (frame["my_reversal"].fill_nan(None) - expected["x"]).abs().max() < 1e-12
    books = {one.book for one in workspace.call(result_of, workspace.settings, experiment).books}
    assert books == {"my_engine", "momentum", "ensemble"}
    weights = study.lake.scan("signals", study.key, partitions=["my_engine"]).collect()["weight"]
    assert set(weights.unique().to_list()) == {0.0, 0.5}
    assert worked(run(workspace, experiment, ALL_STEPS)[1]) == set()


CHANGES: tuple[tuple[str, str, set[str]], ...] = (
    ("# A label:", "# Another comment:", set()),
    ("held=2", "held=3", {"signals"}),
    ("penalty=10.0", "penalty=20.0", {"ridge", "signals"}),
    ("clip(-0.1, 0.1)", "clip(-0.2, 0.2)", {"labels", "momentum", "ridge", "signals"}),
    ("shift(5)", "shift(4)", {"features", "momentum", "ridge", "signals"}),
    ("mean(close, 20)", "mean(close, 10)", {"features", "momentum", "ridge", "signals"}),
)


def test_a_changed_part_makes_stale_what_depends_on_it_and_nothing_else(
    workspace: Workspace, experiment: Experiment, module: Path
) -> None:
    steps = (*FIRST_STEPS, "ensemble", "combined", "signals")
    run(workspace, experiment, steps)
    for old, new, stale in CHANGES:
        edit(module, old, new)
        again = worked(run(workspace, experiment, steps)[1])
        assert again & {"bars", "features", "labels", "momentum", "ridge", "signals"} == stale, old


def test_new_bars_cost_a_function_its_look_back_and_give_what_a_whole_run_gives(
    workspace: Workspace, experiment: Experiment, folder: Path, panel: pl.DataFrame
) -> None:
    run(workspace, experiment)
    panel.write_parquet(folder / "base.parquet")
    study, again = run(workspace, experiment)
    assert again["features"].facts.months_computed < again["features"].facts.months_kept
    whole, _ = compute(study.adjusted, study.features)
    assert study.feature_frame.equals(whole)


def test_a_function_that_fails_is_left_out_and_the_rest_goes_on_until_it_is_mended(
    workspace: Workspace, experiment: Experiment, module: Path
) -> None:
    edit(module, "    change = ", "    open('/etc/passwd')\n    change = ")
    study, reports = run(workspace, experiment)
    (note,) = reports["features"].notes
    assert note.startswith("Left out: my_reversal. The function weekly of mine.py wants to open '/etc/passwd' on line ")
    assert study.feature_frame.columns[2:] == ["ROC5", "roc_10", "natr_14", "my_gap"]
    assert predictions_of(study, "my_engine")["prediction"].drop_nulls().len() > 0
    edit(module, "    open('/etc/passwd')\n", "")
    mended, reports = run(workspace, experiment)
    assert reports["features"].notes == ()
    assert mended.feature_frame.columns[2:] == list(mended.features.names)


def test_a_function_that_begins_to_fail_on_new_bars_leaves_no_table_of_two_shapes(
    workspace: Workspace, experiment: Experiment, module: Path, folder: Path, panel: pl.DataFrame
) -> None:
    edit(module, "    change = ", "    if bars.height > 300 * 6 + 6 * 28:\n        raise ValueError('too many')\n    change = ")
    edit(module, "lookback=6, ", "")
    study, _ = run(workspace, experiment)
    assert "my_reversal" in study.feature_frame.columns
    panel.write_parquet(folder / "base.parquet")
    study, reports = run(workspace, experiment)
    assert "ValueError: too many" in reports["features"].notes[0]
    assert "my_reversal" not in study.feature_frame.columns
    assert "features" in worked(run(workspace, experiment)[1]), "what failed is tried again"


def test_a_label_that_reads_beyond_its_horizon_is_refused(workspace: Workspace, experiment: Experiment, module: Path) -> None:
    edit(module, "for ahead in (1, 4)", "for ahead in (1, 5)")
    with pytest.raises(InputError, match=r"my_label of .* reads beyond its horizon of 3 bars"):
        run(workspace, experiment)


def test_a_label_of_one_class_teaches_nothing_and_ends_in_a_report(
    workspace: Workspace, experiment: Experiment, module: Path
) -> None:
    edit(module, ".clip(-0.1, 0.1)", "* 0.0")
    study, _ = run(workspace, experiment)
    assert predictions_of(study, "my_engine")["prediction"].drop_nulls().abs().max() == 0.0


def test_a_model_trained_on_another_feature_set_is_refused_by_its_hash(
    workspace: Workspace, experiment: Experiment, module: Path
) -> None:
    study, _ = run(workspace, experiment)
    model = index_of(study, spec_of(study, "my_engine")).folds[0].model_id
    folder = artifact_folder(models_home(workspace), model)
    assert load(folder, feature_fingerprint=study.features.fingerprint).inputs.label == "my_label"
    edit(module, "mean(close, 20)", "mean(close, 21)")
    other = study_of(workspace, experiment).features.fingerprint
    with pytest.raises(InputError, match=r"my_engine model was trained on another feature set: .* Train it again"):
        load(folder, feature_fingerprint=other)


def test_parameters_of_one_s_own_are_checked_before_any_work_and_count_as_a_change(
    workspace: Workspace, experiment: Experiment
) -> None:
    from tidemill.experiments.files import checked

    def with_penalty(value: object) -> Experiment:
        engines = (EngineSpec(name="momentum"), EngineSpec(name="my_engine", params={"penalty": value}))
        return msgspec.structs.replace(experiment, engines=engines)

    assert checked(with_penalty(3.0)).label.horizon == 3
    registry = Registry().with_files(experiment.modules)
    assert registry.engines.find("my_engine").info.params is not None
    with pytest.raises(InputError, match="A parameter of my_engine is wrong"):
        checked(with_penalty("much"))
    unknown = msgspec.structs.replace(experiment, engines=(EngineSpec(name="my_engine", params={"colour": 1}),))
    with pytest.raises(InputError, match="colour"):
        checked(unknown)
    strange = msgspec.structs.replace(experiment, strategy=StrategySpec(name="my_strategy", params={"kept": 1}))
    with pytest.raises(InputError, match="parameter of my_strategy"):
        checked(strange)
