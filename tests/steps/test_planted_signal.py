"""The whole way from bars to a judged result: a signal that was planted is found at its strength, and noise is called noise."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.study.panels import START, small_experiment
from tests.study.running import STEPS
from tidemill.domain.experiment import CostSpec, EngineSpec, FeatureSpec, LabelSpec, SplitSpec, StrategySpec
from tidemill.steps.models.engines import train
from tidemill.study.metrics import engine_metrics
from tidemill.study.sources import study_of
from tidemill.study.workspace import Workspace

PLANTED = 0.12
DAYS, SYMBOLS = 460, 30


def bars_with(skill: float, seed: int) -> pl.DataFrame:
    """Bars whose return from the next open to the one after correlates with the body of the candle (KMID), at `skill`.

    The gap after the next bar holds the signal: r(t + 1 → t + 2) = body(t + 1) + gap(t + 2), gap(t + 2) = a · body(t) + noise.
    """
    random = np.random.default_rng(seed)
    body = 0.008 * random.standard_normal((DAYS, SYMBOLS))
    noise = 0.012 * random.standard_normal((DAYS, SYMBOLS))
    slope = skill / np.sqrt(1.0 - skill**2) * np.hypot(0.008, 0.012) / 0.008
    gap = noise
    gap[2:] += slope * body[:-2]
    log_open = np.log(50.0) + np.cumsum(gap + np.vstack([np.zeros(SYMBOLS), body[:-1]]), axis=0)
    opened, close = np.exp(log_open), np.exp(log_open + body)
    spread = 1.0 + 0.003 * np.abs(random.standard_normal((DAYS, SYMBOLS)))
    columns = {
        "open": opened,
        "high": np.maximum(opened, close) * spread,
        "low": np.minimum(opened, close) / spread,
        "close": close,
    }
    dates = [(START + timedelta(days=day)).date() for day in range(DAYS)]
    return pl.DataFrame(
        {
            "symbol": np.repeat([f"S{number:02d}" for number in range(SYMBOLS)], DAYS),
            "date": dates * SYMBOLS,
            **{name: values.T.ravel() for name, values in columns.items()},
            "volume": random.integers(10**6, 10**7, DAYS * SYMBOLS).astype(np.float64),
        }
    )


def judged(workspace: Workspace, folder: Path, skill: float, seed: int) -> dict[str, dict[str, Any]]:
    """Book → its row of metrics, after all steps of the graph."""
    folder.mkdir()
    bars_with(skill, seed).write_parquet(folder / "bars.parquet")
    experiment = small_experiment(
        folder,
        features=FeatureSpec(sets=(), names=("KMID", "KLEN", "ROC5", "STD10", "rsi_14")),
        label=LabelSpec(horizon=1),
        engines=(
            EngineSpec(name="ridge"),
            EngineSpec(name="lightgbm", params={"trees": 60, "num_leaves": 7, "learning_rate": 0.03}),
        ),
        splits=SplitSpec(train=220, test=40),
        strategy=StrategySpec(params={"every": 1}),
        costs=CostSpec(fee_bps=0.0, slippage_bps=0.0),
    )
    study = study_of(workspace, experiment)
    for name, step in STEPS.items():
        if name == "momentum":
            train(study, "lightgbm")
        else:
            step(study)
    return {row["book"]: row for row in engine_metrics(study.lake, study.key).to_dicts()}


def test_a_planted_signal_is_found_at_its_strength_and_called_skill(workspace: Workspace, tmp_path: Path) -> None:
    found = judged(workspace, tmp_path / "planted", PLANTED, 11)
    ridge = found["ridge"]
    assert ridge["ic_low"] <= PLANTED <= ridge["ic_high"]
    assert ridge["ic"] == pytest.approx(PLANTED, abs=0.03)
    for book in ("ridge", "lightgbm", "ensemble"):
        assert found[book]["ic_low"] > 0.04, book
        assert found[book]["t_stat"] > 4.0
        assert found[book]["deflated_sharpe"] > 0.95
        assert found[book]["deflated_sharpe_clustered"] > 0.95


def test_noise_is_not_called_skill(workspace: Workspace, tmp_path: Path) -> None:
    for seed in (1, 2):
        found = judged(workspace, tmp_path / f"noise{seed}", 0.0, seed)
        for row in found.values():
            assert row["ic_low"] < 0.01
            assert abs(row["ic"]) < 0.03
            assert row["deflated_sharpe"] < 0.95
