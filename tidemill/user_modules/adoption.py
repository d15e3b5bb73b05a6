"""What an experiment takes from modules: the names that it uses, or, with `--module`, everything that they declare."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tidemill.domain.errors import InputError
from tidemill.domain.experiment import EngineSpec, Experiment, FeatureSpec, LabelSpec, StrategySpec

if TYPE_CHECKING:
    from tidemill.user_modules.loading import Module
    from tidemill.user_modules.wire import Bounds

# What one's own engine is compared with by default: quick ones.
BASELINES = ("momentum", "ridge")


def beside(experiment: Experiment, folder: Path) -> Experiment:
    """The experiment with absolute paths of modules; relative ones lie in `folder`, where its file is."""
    paths = tuple(str((folder / Path(path).expanduser()).resolve()) for path in experiment.modules)
    return msgspec.structs.replace(experiment, modules=paths)


def with_modules(experiment: Experiment, paths: Iterable[Path], bounds: Bounds, *, adopt: bool) -> Experiment:
    """The experiment with further modules.

    adopt: whether it also takes everything that they declare: their features beside its own, their engines beside two quick
    ones to compare with, and their label and strategy instead of its own. Otherwise the experiment names what it uses.
    """
    from tidemill.user_modules.loading import load_modules

    files = tuple(str(Path(path).expanduser().resolve()) for path in paths)
    more = msgspec.structs.replace(experiment, modules=tuple(dict.fromkeys((*experiment.modules, *files))))
    modules = load_modules(files, bounds)
    return _adopted(more, modules) if adopt else more


def with_named(experiment: Experiment, modules: Iterable[Module], bounds: Bounds, engine: str | None = None) -> Experiment:
    """The experiment with those of `modules` that declare what it names, or `engine`, and its own modules do not."""
    loaded = tuple(modules)
    if not loaded:
        return experiment
    from tidemill.user_modules.loading import load_modules

    own = {name for module in load_modules(experiment.modules, bounds) for name in module.own.names()}
    missing = {*_named(experiment), ("engines", engine or "")} - own
    files = (str(module.file) for module in loaded if not missing.isdisjoint(module.own.names()))
    return msgspec.structs.replace(experiment, modules=tuple(dict.fromkeys((*experiment.modules, *files))))


def _named(experiment: Experiment) -> set[tuple[str, str]]:
    """Kind and name of everything that an experiment names."""
    return {
        *(("features", name) for name in experiment.features.names),
        ("labels", experiment.label.name),
        *(("engines", spec.name) for spec in experiment.engines),
        ("strategies", experiment.strategy.name),
    }


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
