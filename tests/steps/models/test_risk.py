"""The risk engine in a study: only the past, one artifact a fold, nothing done twice, and how good it was."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.study.panels import day_of, small_experiment
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.experiment import RiskSpec
from tidemill.queries.models import model_details, stored_models
from tidemill.risk.volatility import VolatilityParams, fit_garch
from tidemill.steps.market_data.bars import sync_bars
from tidemill.steps.models.risk import forecast_risk, returns_by_symbol, risk_of, train_risk
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.workspace import Workspace

SPEC = RiskSpec(least=100)


def study_for(workspace: Workspace, folder: Path, spec: RiskSpec | None = SPEC) -> Study:
    made = study_of(workspace, small_experiment(folder, risk=spec))
    sync_bars(made)
    return made


@pytest.fixture
def study(workspace: Workspace, folder: Path) -> Study:
    made = study_for(workspace, folder)
    train_risk(made)
    return made


def test_every_symbol_and_bar_of_the_test_windows_has_a_forecast(study: Study) -> None:
    report = forecast_risk(study)
    frame = risk_of(study)
    tested = study.bars.filter(pl.col("open_time") >= study.folds[0].test_start)
    assert frame.select("symbol", "open_time").equals(tested.select("symbol", "open_time"))
    assert (frame["volatility"] > 0.0).all()
    assert frame["volatility"].mean() == pytest.approx(0.02, rel=0.25)  # what the panel is made with
    assert (frame["drawdown"] > frame["volatility"]).all()
    assert {"garch", "ewma"} >= set(frame["engine"].unique())
    assert report.facts.skill.qlike > 0.0
    assert report.rows == frame.height


def test_parameters_are_those_of_returns_before_the_cut(study: Study) -> None:
    fold = study.folds[-1]
    models = [one for one in study.workspace.call(stored_models, study.workspace.settings) if one.engine == "risk"]
    assert len(models) == len(study.folds)
    manifest = study.workspace.call(model_details, study.workspace.settings, models[0].model_id)
    assert manifest.inputs.split["train_end"] == fold.train_end.isoformat()
    past = returns_by_symbol(study)["AAA"].filter(pl.col("open_time") < fold.train_end)["return"].to_numpy()
    forecast_risk(study)
    mine = risk_of(study).filter((pl.col("symbol") == "AAA") & (pl.col("fold") == fold.number))
    garch = fit_garch(past, VolatilityParams(least=100))
    assert set(mine["engine"]) == {"ewma" if garch is None else "garch"}


def test_nothing_new_is_no_work_and_a_new_day_forecasts_one_fold_and_fits_none(
    study: Study, folder: Path, panel: pl.DataFrame
) -> None:
    assert forecast_risk(study).worked
    again = study_for(study.workspace, folder)
    assert not train_risk(again).worked
    assert not forecast_risk(again).worked
    before = risk_of(again)
    day_of(panel, 328).write_parquet(folder / "day328.parquet")
    grown = study_for(study.workspace, folder)
    assert not train_risk(grown).worked
    assert forecast_risk(grown).facts.folds_forecast == 1
    after = risk_of(grown)
    assert after.height == before.height + 6
    assert after.join(before.select("symbol", "open_time"), on=("symbol", "open_time"), how="semi").equals(before)


def test_without_garch_every_forecast_is_that_of_ewma(workspace: Workspace, folder: Path) -> None:
    study = study_for(workspace, folder, RiskSpec(garch=False))
    train_risk(study)
    forecast_risk(study)
    frame = risk_of(study)
    assert frame["volatility"].equals(frame["ewma_volatility"].alias("volatility"))
    assert np.allclose(frame["horizon_volatility"] ** 2, 3 * frame["volatility"] ** 2)


def test_what_is_missing_is_said(workspace: Workspace, folder: Path) -> None:
    without = study_for(workspace, folder, None)
    for told in (train_risk(without), forecast_risk(without)):
        assert (told.worked, told.data_version) == (False, "unused")
        assert told.notes == ("This experiment forecasts no risk. Add `risk: {}` to it.",)
    with pytest.raises(InputError, match="forecasts no risk"):
        risk_of(without)
    study = study_for(workspace, folder)
    with pytest.raises(UnknownNameError, match="models/risk"):
        forecast_risk(study)
    with pytest.raises(UnknownNameError, match="predictions/risk"):
        risk_of(study)
