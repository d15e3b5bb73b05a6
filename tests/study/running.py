"""The steps of the graph in their order, run without the orchestrator."""

from collections.abc import Callable
from typing import Any

from tidemill.domain.experiment import Experiment
from tidemill.experiments.tracked import record_run
from tidemill.steps.features.labels import build_training_set
from tidemill.steps.features.technical import compute_features
from tidemill.steps.market_data.bars import list_gaps, sync_bars, sync_instruments
from tidemill.steps.models.engines import train
from tidemill.steps.models.ensemble import predict_ensemble, train_ensemble
from tidemill.steps.performance.report import write_report
from tidemill.steps.performance.skill import evaluate_engines, evaluate_portfolio
from tidemill.steps.predictions.engines import predict
from tidemill.steps.trading.backtest import run_backtests
from tidemill.steps.trading.signals import make_signals
from tidemill.study.freshness import StepReport
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.workspace import Workspace

STEPS: dict[str, Callable[[Study], StepReport[Any]]] = {
    "bars": sync_bars,
    "instruments": sync_instruments,
    "gaps": list_gaps,
    "features": compute_features,
    "labels": build_training_set,
    "momentum": lambda study: train(study, "momentum"),
    "ridge": lambda study: train(study, "ridge"),
    "predictions": predict,
    "ensemble": train_ensemble,
    "combined": predict_ensemble,
    "signals": make_signals,
    "backtest": run_backtests,
    "skill": evaluate_engines,
    "portfolio": evaluate_portfolio,
    "report": write_report,
}


def run(workspace: Workspace, experiment: Experiment) -> tuple[Study, dict[str, StepReport[Any]]]:
    study = study_of(workspace, experiment)
    return study, {name: step(study) for name, step in STEPS.items()}


def run_signals(workspace: Workspace, experiment: Experiment) -> Study:
    """A run up to its signals and deciders, of any engines, kept as one that came to its report."""
    study = study_of(workspace, experiment)
    for step in (sync_bars, sync_instruments, list_gaps, compute_features, build_training_set):
        step(study)
    for spec in study.engines:
        train(study, spec.name)
    for later in (predict, train_ensemble, predict_ensemble, make_signals):
        later(study)
    record_run(study)
    return study


def worked(reports: dict[str, StepReport[Any]]) -> set[str]:
    return {name for name, report in reports.items() if report.worked}
