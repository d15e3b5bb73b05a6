"""A manifest is enough to make a model again; and what a change makes stale is what depends on it, no more and no less."""

import shutil
from pathlib import Path

import msgspec
import polars as pl
import pytest

from tests.study.panels import day_of, small_experiment
from tidemill.domain.errors import InputError, IntegrityError, UnknownNameError
from tidemill.domain.experiment import EngineSpec, Experiment, FeatureSpec, LabelSpec
from tidemill.durable import read_sealed, write_sealed
from tidemill.maintenance.rebuild import rebuild, restore
from tidemill.models.artifact import load
from tidemill.queries.models import model_details, stored_models
from tidemill.steps.features.labels import build_training_set
from tidemill.steps.features.technical import compute_features
from tidemill.steps.market_data.bars import sync_bars
from tidemill.steps.models.alone import train_alone
from tidemill.steps.models.engines import train
from tidemill.steps.models.ensemble import predict_ensemble, train_ensemble
from tidemill.steps.predictions.engines import predict
from tidemill.study.model_index import artifact_folder, models_home
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.workspace import Workspace


def run(workspace: Workspace, experiment: Experiment) -> tuple[Study, set[str]]:
    """All steps up to the ensemble's predictions, and which of them had work."""
    study = study_of(workspace, experiment)
    done = {"bars": sync_bars(study), "features": compute_features(study), "labels": build_training_set(study)}
    done |= {spec.name: train(study, spec.name) for spec in experiment.engines}
    done |= {"predictions": predict(study), "ensemble": train_ensemble(study), "combined": predict_ensemble(study)}
    return study, {name for name, report in done.items() if report.worked}


@pytest.fixture
def experiment(folder: Path) -> Experiment:
    return small_experiment(folder)


def one_model(workspace: Workspace, engine: str) -> str:
    return str(next(one.model_id for one in workspace.call(stored_models, workspace.settings) if one.engine == engine))


@pytest.mark.finished
def test_every_model_is_made_again_from_its_manifest_bit_for_bit(workspace: Workspace, experiment: Experiment) -> None:
    run(workspace, experiment)
    for one in workspace.call(stored_models, workspace.settings):
        found = rebuild(workspace, one.model_id)
        assert found.same, found.why
        assert found.rebuilt == found.hash


@pytest.mark.finished
def test_a_model_whose_weights_are_lost_is_restored(workspace: Workspace, experiment: Experiment) -> None:
    run(workspace, experiment)
    model = one_model(workspace, "ridge")
    folder = artifact_folder(models_home(workspace), model)
    before = load(folder)
    (folder / "weights.safetensors").unlink()
    assert restore(workspace, model).same
    assert load(folder).hash == before.hash


@pytest.mark.finished
def test_a_data_version_that_is_gone_is_named(
    workspace: Workspace, experiment: Experiment, folder: Path, panel: pl.DataFrame
) -> None:
    study, _ = run(workspace, experiment)
    model = one_model(workspace, "ridge")
    start = study.folds[-1].train_start
    restated = panel.filter((pl.col("symbol") == "AAA") & (pl.col("date").is_between(start.date(), start.date())))
    restated.with_columns(pl.col("high") * 1.02).write_parquet(folder / "correction.parquet")
    again = study_of(workspace, experiment)
    for step in (sync_bars, compute_features, build_training_set):
        step(again)
    with pytest.raises(InputError, match=rf"no longer in the lake: features/{start:%Y-%m}"):
        rebuild(workspace, model)


@pytest.mark.finished
def test_a_manifest_that_names_other_parameters_makes_another_model_and_says_so(
    workspace: Workspace, experiment: Experiment
) -> None:
    run(workspace, experiment)
    model = one_model(workspace, "ridge")
    manifest = artifact_folder(models_home(workspace), model) / "manifest.json"
    stated = read_sealed(manifest)
    manifest.write_bytes(manifest.read_bytes().replace(b'"penalty": 0.1', b'"penalty": 0.7'))
    with pytest.raises(IntegrityError, match="data repair"):
        rebuild(workspace, model)
    write_sealed(manifest, stated.replace(b'"penalty": 0.1', b'"penalty": 0.7'))
    found = rebuild(workspace, model)
    assert not found.same
    assert "other weights" in found.why
    with pytest.raises(UnknownNameError, match="models list"):
        rebuild(workspace, "ridge-000000000000")


@pytest.mark.finished
def test_the_lineage_goes_down_to_the_versions_of_the_data(workspace: Workspace, experiment: Experiment) -> None:
    study, _ = run(workspace, experiment)
    rows = workspace.call(model_details, workspace.settings, one_model(workspace, "ensemble")).lineage
    members = {made.name for made in rows if made.depth == 1}
    assert any(name.startswith("ridge-") for name in members)
    held = {made.name: made.version for made in rows}
    month = f"{study.folds[-1].train_start:%Y-%m}"
    manifests = study.lake.manifests("features", study.features_key)
    assert held[f"features/{month}"] == manifests[month].data_version


def test_one_engine_can_be_trained_alone(workspace: Workspace, experiment: Experiment) -> None:
    study = study_of(workspace, experiment)
    assert train_alone(study, "ridge").worked
    assert not train_alone(study, "ridge").worked
    assert train_alone(study, "mean_reversion").worked  # not one of the experiment's


def changed(experiment: Experiment, **parts: object) -> Experiment:
    return msgspec.structs.replace(experiment, **parts)


@pytest.mark.finished
def test_a_changed_parameter_makes_exactly_its_engine_and_what_sees_it_stale(
    workspace: Workspace, experiment: Experiment
) -> None:
    run(workspace, experiment)
    engines = (EngineSpec(name="momentum"), EngineSpec(name="ridge", params={"penalty": 0.5}))
    _, worked = run(workspace, changed(experiment, engines=engines))
    assert worked == {"ridge", "predictions", "ensemble", "combined"}


@pytest.mark.finished
def test_a_changed_label_makes_no_feature_stale(workspace: Workspace, experiment: Experiment) -> None:
    run(workspace, experiment)
    _, worked = run(workspace, changed(experiment, label=LabelSpec(horizon=5)))
    assert worked == {"labels", "momentum", "ridge", "predictions", "ensemble", "combined"}


@pytest.mark.finished
def test_a_changed_feature_set_makes_no_bar_and_no_label_stale(workspace: Workspace, experiment: Experiment) -> None:
    run(workspace, experiment)
    features = FeatureSpec(sets=(), names=("ROC5", "STD10", "rsi_14", "ema_20", "roc_10", "natr_14", "sma_20"))
    _, worked = run(workspace, changed(experiment, features=features))
    assert worked == {"features", "momentum", "ridge", "predictions", "ensemble", "combined"}


@pytest.mark.finished
def test_a_changed_seed_makes_no_data_stale_and_the_way_back_costs_nothing(
    workspace: Workspace, experiment: Experiment
) -> None:
    run(workspace, experiment)
    _, worked = run(workspace, changed(experiment, seed=8))
    assert worked == {"momentum", "ridge", "predictions", "ensemble", "combined"}
    assert run(workspace, experiment)[1] == set()


@pytest.mark.finished
def test_a_new_data_version_makes_stale_what_read_it_and_only_that(
    workspace: Workspace, experiment: Experiment, folder: Path, panel: pl.DataFrame
) -> None:
    run(workspace, experiment)
    day_of(panel, 328).write_parquet(folder / "day328.parquet")
    _, worked = run(workspace, experiment)
    assert {"bars", "features", "labels", "predictions", "combined"} <= worked
    assert not {"momentum", "ridge"} & worked


@pytest.mark.finished
def test_models_of_another_home_are_not_found(workspace: Workspace, experiment: Experiment) -> None:
    run(workspace, experiment)
    model = one_model(workspace, "ridge")
    shutil.rmtree(models_home(workspace))
    with pytest.raises(UnknownNameError):
        rebuild(workspace, model)
