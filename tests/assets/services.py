"""The services as `services.yaml` names them, and a command of Dagster's on one of them alone, in a process of its own."""

from pathlib import Path

import yaml

from orchestration.instance import PROJECT
from orchestration.run_request import experiment_config
from orchestration.runner import DagsterOrchestrator
from tidemill.config import Settings
from tidemill.domain.experiment import Experiment

SERVICES: dict[str, str] = {
    one["python_module"]["location_name"]: one["python_module"]["module_name"]
    for one in yaml.safe_load(Path(PROJECT / "services.yaml").read_text())["load_from"]
}


def on_service(settings: Settings, service: str, experiment: Experiment, *command: str) -> int:
    """The exit code of `tidemill dagster COMMAND` with the definitions of one service and none beside."""
    settings.home.mkdir(exist_ok=True)
    config = settings.home.parent / "run.yaml"
    config.write_text(yaml.safe_dump(experiment_config(experiment)))
    pointed = ("-m", SERVICES[service], "-a", "defs", "--config", str(config))
    return DagsterOrchestrator(settings).command([*command, *pointed])
