"""A person's module through the chain, bar by bar: a function of features, an engine and a strategy, to the bit."""

from pathlib import Path

import polars as pl
import pytest

from tests.study.accounts import backtested, booked, require_same_account
from tests.study.chained import terms_of
from tests.study.panels import coins_and_stocks, small_experiment
from tests.trading.test_chain import framed, panel, ran, walked
from tidemill.domain.errors import StopError
from tidemill.domain.experiment import EngineSpec, Experiment, FeatureSpec, StrategySpec
from tidemill.study.deciders import known_to
from tidemill.study.scoring import predictions_of
from tidemill.study.study import Study
from tidemill.study.tables import ENSEMBLE, SIGNALS
from tidemill.study.workspace import Workspace
from tidemill.trading.decider import links_of

__all__ = ["panel"]  # a fixture

MODULE = """
import numpy as np
import polars as pl

def rolled(bars):
    own = pl.col("close").rolling_mean(5).over("symbol")
    others = pl.col("volume").rank().over("open_time")
    return bars.select("symbol", "open_time", my_mean=pl.col("close") / own - 1, my_rank=others)

features(rolled, {features}, columns=["my_mean", "my_rank"])

def fit(training, *, features, penalty=10.0):
    x = training.select(pl.col(features).fill_null(0.0).fill_nan(0.0)).to_numpy()
    return {{"weights": np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ training["label"].to_numpy())}}

def predict(model, frame, *, features):
    x = frame.select(pl.col(features).fill_null(0.0).fill_nan(0.0)).to_numpy()
    day = frame["open_time"].dt.weekday().to_numpy()
    known = frame.select(pl.all_horizontal(pl.col(features).is_not_null())).to_series().to_numpy()
    return (x * model["weights"]).sum(axis=1) * (1.0 + 0.05 * day) * np.where(known, 1.0, 0.5)

engine("my_engine", fit, predict)

def recall(model, frame, *, features):
    seen = pl.col(features).fill_nan(0.0).rolling_mean(4, min_samples=1).over("symbol")
    later = frame["open_time"].dt.day().to_numpy() / 31.0
    return (frame.select(seen).to_numpy() * model["weights"]).sum(axis=1) * (1.0 + later)

def save(model):
    return {{"kept": model["weights"]}}

def load(stored):
    return {{"weights": stored["kept"]}}

engine("my_memory", fit, recall, save=save, load=load, {engine})

def best(predictions, held=2):
    mean = pl.col("prediction").rolling_mean(3, min_samples=1).over("symbol")
    rank = mean.rank("ordinal", descending=True).over("open_time")
    return predictions.select("symbol", "open_time", weight=pl.when(rank <= held).then(mean.abs() + 0.1).otherwise(0.0))

strategy("my_strategy", best{strategy})
"""


def experiment_of(
    panel: Path, folder: Path, features: str = "by_tail=6", engine: str = "by_tail=4", strategy: str = ", by_tail=3"
) -> Experiment:
    file = folder / "mine.py"
    file.write_text(MODULE.format(features=features, engine=engine, strategy=strategy))
    return small_experiment(
        panel,
        features=FeatureSpec(sets=(), names=("ROC5", "my_mean", "roc_10", "my_rank")),
        engines=(EngineSpec(name="ridge"), EngineSpec(name="my_engine"), EngineSpec(name="my_memory")),
        strategy=StrategySpec(name="my_strategy"),
        modules=(str(file),),
    )


@pytest.mark.parametrize("calendars", ["one", "two"])
def test_a_module_is_stepped_with_the_bits_of_a_run(workspace: Workspace, panel: Path, tmp_path: Path, calendars: str) -> None:
    if calendars == "two":
        panel = tmp_path / "both.parquet"
        coins_and_stocks().write_parquet(panel)
    study = ran(workspace, experiment_of(panel, tmp_path))
    decider = terms_of(study, ENSEMBLE)[0].decider
    assert len(decider.calendars) == (2 if calendars == "two" else 1)
    assert decider.look_back == 3
    found = walked(study, None, frozenset({111, 161, 240}))
    stored = study.feature_frame.select("symbol", "open_time", *study.available.names)
    assert stored.columns[2:] == ["ROC5", "my_mean", "roc_10", "my_rank"]
    assert framed(found.features, stored).equals(stored.sort("symbol", "open_time").fill_nan(None))
    for name in ("my_engine", "my_memory", ENSEMBLE):
        expected = predictions_of(study, name).select("symbol", "open_time", "prediction")
        assert expected["prediction"].is_not_null().sum() > 400
        assert framed(found.predictions[name], expected).equals(expected.sort("symbol", "open_time")), name
    signals = study.lake.scan(SIGNALS, study.key, partitions=[ENSEMBLE]).select("symbol", "open_time", "weight")
    asked = signals.drop_nulls("weight").collect().sort("symbol", "open_time")
    assert framed(found.weights, asked).equals(asked)
    assert asked.filter(pl.col("weight") != 0.0).height > 200
    assert require_same_account(found.account, booked(backtested(study, asked))) > 100


@pytest.mark.parametrize(
    ("features", "engine", "strategy", "named"),
    [
        (
            "lookback=6",
            "by_tail=4",
            ", by_tail=3",
            r"The function rolled of mine.py is computed over whole frames.*with by_tail=…",
        ),
        ("by_tail=6", "by_tail=4", "", r"The strategy my_strategy is a function over whole frames.*with by_tail=…"),
        (
            "by_tail=6",
            "history=3",
            ", by_tail=3",
            r"The engine my_memory looks back over whole frames.*by_tail=4 in place of history=3",
        ),
    ],
)
def test_what_is_not_declared_by_tail_serves_research_and_is_refused_before_a_start(
    workspace: Workspace, panel: Path, tmp_path: Path, features: str, engine: str, strategy: str, named: str
) -> None:
    study: Study = ran(workspace, experiment_of(panel, tmp_path, features, engine, strategy))
    with pytest.raises(StopError, match=named):
        links_of(terms_of(study, "my_memory")[0].decider, known_to(study))
