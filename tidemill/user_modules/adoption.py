"""What an experiment takes from modules: the names that it uses, or, with `--module`, everything that they declare."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tidemill.config import load_settings
from tidemill.domain.errors import InputError, TidemillError
from tidemill.domain.experiment import EngineSpec, Experiment, FeatureSpec, LabelSpec, StrategySpec

if TYPE_CHECKING:
    from tidemill.user_modules.loading import Module

# What one's own engine is compared with by default: quick ones.
BASELINES = ("momentum", "ridge")
_PLAIN_LABEL = LabelSpec().name


def known(experiment: Experiment) -> Experiment:
    """The experiment, once its modules are loaded and its label has the horizon that it was declared with.

    Raises InputError for a module that cannot be loaded, UnknownNameError for a label that there is not.
    """
    configured()
    if experiment.modules:
        from tidemill.user_modules.loading import load_modules

        load_modules(experiment.modules)
    if experiment.label.name == _PLAIN_LABEL:
        return experiment
    from tidemill.validation.labels import declared_label

    made = declared_label(experiment.label.name)
    if made is None or made.horizon == experiment.label.horizon:
        return experiment
    return msgspec.structs.replace(experiment, label=msgspec.structs.replace(experiment.label, horizon=made.horizon))


@cache
def configured() -> Mapping[str, str]:
    """Load the modules that the settings name, once a process: path → reason, of those that cannot be. The rest goes on."""
    refused = {}
    for path in load_settings().modules:
        from tidemill.user_modules.loading import load_module

        try:
            load_module(path)
        except TidemillError as exc:
            logging.getLogger("tidemill.modules").warning("%s", exc)
            refused[str(path)] = str(exc)
    return refused


def beside(experiment: Experiment, folder: Path) -> Experiment:
    """The experiment with absolute paths of modules; relative ones lie in `folder`, where its file is."""
    paths = tuple(str((folder / Path(path).expanduser()).resolve()) for path in experiment.modules)
    return msgspec.structs.replace(experiment, modules=paths)


def failures(experiment: Experiment) -> dict[str, str]:
    """Function → reason, of the functions in the experiment's modules whose features could not be learned."""
    if not experiment.modules:
        return {}
    from tidemill.user_modules.loading import load_modules

    return {name: reason for made in load_modules(experiment.modules) for name, reason in made.failed.items()}


def with_modules(experiment: Experiment, paths: Iterable[Path], *, adopt: bool) -> Experiment:
    """The experiment with further modules.

    adopt: whether it also takes everything that they declare: their features beside its own, their engines beside two quick
    ones to compare with, and their label and strategy instead of its own. Otherwise the experiment names what it uses.
    """
    from tidemill.user_modules.loading import load_modules

    files = tuple(str(Path(path).expanduser().resolve()) for path in paths)
    more = msgspec.structs.replace(experiment, modules=tuple(dict.fromkeys((*experiment.modules, *files))))
    modules = load_modules(files)
    return _adopted(more, modules) if adopt else more


def _adopted(experiment: Experiment, modules: tuple[Module, ...]) -> Experiment:
    features = tuple(name for module in modules for name in module.features)
    engines = tuple(name for module in modules for name in module.engines)
    label = _only([name for module in modules for name in module.labels], "label")
    strategy = _only([name for module in modules for name in module.strategies], "strategy")
    held = experiment.features
    return msgspec.structs.replace(
        experiment,
        features=FeatureSpec(sets=held.sets, names=tuple(dict.fromkeys((*held.names, *features)))),
        engines=tuple(EngineSpec(name=name) for name in (*BASELINES, *engines)) if engines else experiment.engines,
        label=LabelSpec(name=label) if label else experiment.label,
        strategy=StrategySpec(name=strategy) if strategy else experiment.strategy,
    )


def _only(names: list[str], kind: str) -> str | None:
    if len(names) > 1:
        raise InputError(
            f"The modules declare the {kind}s {', '.join(names)}. Write an experiment file that names one, with `modules:`."
        )
    return names[0] if names else None
