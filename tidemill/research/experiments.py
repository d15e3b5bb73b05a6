"""Experiment files: reading, checking, the published schema and the ones that ship."""

import json
from pathlib import Path

import msgspec

from tidemill.domain.errors import InputError
from tidemill.domain.experiment import DatasetSpec, EngineSpec, Experiment
from tidemill.domain.intervals import Interval

SAMPLE = Path(__file__).with_name("experiments") / "sample.yaml"
DEFAULT_ENGINES = ("momentum", "ridge", "lightgbm", "transformer")


def experiment_from_text(text: str, origin: str) -> Experiment:
    """An experiment from YAML text; `origin` names it in errors. InputError for what does not fit the schema."""
    import yaml

    try:
        read = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise InputError(f"{origin} is not valid YAML: {' '.join(str(exc).split())}.") from exc
    # YAML reads an unquoted 2024-01-31 as a date; the schema wants its text.
    try:
        return msgspec.convert(json.loads(json.dumps(read, default=str)), Experiment)
    except msgspec.ValidationError as exc:
        raise InputError(f"{origin} is not an experiment: {exc}. The schema is docs/experiment.schema.json.") from exc


def load_experiment(path: Path) -> Experiment:
    """Read and check an experiment file. InputError names the file and the field that is wrong."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise InputError(f"The experiment file {path} cannot be read: {exc.strerror}.") from exc
    except UnicodeDecodeError as exc:
        raise InputError(f"The experiment file {path} is not UTF-8 text.") from exc
    return checked(experiment_from_text(text, str(path)))


def experiment_for(dataset: DatasetSpec) -> Experiment:
    """The default experiment on a dataset: every engine, splits chosen by the length of the history."""
    if dataset.source == "sample" and dataset == DatasetSpec():
        return load_experiment(SAMPLE)
    name = dataset.source.rsplit("/", 1)[-1].removeprefix("file:") or "file"
    engines = tuple(EngineSpec(name=engine) for engine in DEFAULT_ENGINES)
    return checked(Experiment(name=f"{name}-{dataset.interval}", dataset=dataset, engines=engines))


def to_text(experiment: Experiment) -> str:
    """Canonical YAML; `experiment_from_text` reads it back to an equal value."""
    import yaml

    return str(yaml.safe_dump(msgspec.to_builtins(experiment), sort_keys=False, allow_unicode=True))


def schema() -> dict[str, object]:
    """JSON schema of an experiment, as published in docs/experiment.schema.json."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Experiment)}


def checked(experiment: Experiment) -> Experiment:
    """The experiment unchanged, if every name in it exists and every number makes sense; else InputError or UnknownNameError."""
    from tidemill.features.api import feature_set
    from tidemill.models.registry import engine
    from tidemill.strategies.registry import strategy

    Interval.parse(experiment.dataset.interval)
    if not experiment.engines:
        raise InputError(f"The experiment {experiment.name!r} names no engine. Add `engines:`, such as `- name: momentum`.")
    names = [spec.name for spec in experiment.engines]
    if len(set(names)) < len(names):
        raise InputError(f"The experiment {experiment.name!r} names an engine twice. Keep each once.")
    for spec in experiment.engines:
        engine(spec.name)
    strategy(experiment.strategy.name)
    feature_set(*experiment.features.sets, *experiment.features.names)
    positive = {"label.horizon": experiment.label.horizon, "costs.capital": experiment.costs.capital}
    if experiment.splits is not None:
        positive |= {"splits.train": experiment.splits.train, "splits.test": experiment.splits.test}
    for field, value in positive.items():
        if value <= 0:
            raise InputError(f"{field} is {value}; it must be greater than zero.")
    for field, cost in (("costs.fee_bps", experiment.costs.fee_bps), ("costs.slippage_bps", experiment.costs.slippage_bps)):
        if not 0 <= cost < 10_000:
            raise InputError(f"{field} is {cost}; it must be between 0 and 10,000 basis points.")
    return experiment
