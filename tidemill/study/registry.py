"""What names mean in a study: features, labels, engines and strategies, those that ship and those of a user's own files.

A registry is a value. It is made of the files that the settings name and those that an experiment names, so two experiments
whose files declare one name stand side by side in a process. The part of a room is made when it is asked for: most commands
need none, and engines cost half a second to import.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec

from tidemill.config import Settings
from tidemill.domain.errors import InputError, TidemillError
from tidemill.domain.experiment import Experiment, LabelSpec
from tidemill.user_modules.wire import Bounds

if TYPE_CHECKING:
    from tidemill.features.declaration import Features
    from tidemill.models.registry import Engines
    from tidemill.strategies.registry import Strategies
    from tidemill.user_modules.loading import Module
    from tidemill.validation.labels import Labels

Kind = Literal["features", "labels", "engines", "strategies"]
NOUNS: dict[str, str] = {"features": "feature", "labels": "label", "engines": "engine", "strategies": "strategy"}
_PLAIN_LABEL = LabelSpec().name


class Registry(msgspec.Struct, frozen=True, dict=True):
    """bounds: of the functions in the files. beside: files that every experiment knows. files: those of an experiment, whose
    names go before.
    """

    bounds: Bounds = Bounds()
    beside: tuple[Module, ...] = ()
    files: tuple[Module, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What every experiment of an installation knows. A file of the settings that cannot be loaded is left out."""
        bounds = Bounds.of(settings)
        return cls(bounds, _loadable(tuple((path, _content(path)) for path in settings.modules), bounds))

    def with_files(self, paths: Sequence[str | Path]) -> Self:
        """This with the files of an experiment. InputError for one that cannot be loaded, and where two declare one name."""
        if not paths:
            return msgspec.structs.replace(self, files=())
        from tidemill.user_modules.loading import load_modules

        return self.with_modules(load_modules(dict.fromkeys(paths), self.bounds))

    def with_modules(self, modules: Iterable[Module]) -> Self:
        """As `with_files`, with files that are loaded."""
        files = tuple(modules)
        for at, module in enumerate(files):
            _require_apart(module, files[:at])
        again = {module.file for module in files}
        others = tuple(module for module in self.beside if module.file not in again)
        return msgspec.structs.replace(self, beside=others, files=files)

    @cached_property
    def features(self) -> Features:
        from tidemill.features.declaration import shipped

        return shipped().joined(self._own("features"))

    @cached_property
    def labels(self) -> Labels:
        from tidemill.validation.labels import Labels

        return Labels(self._own("labels"))

    @cached_property
    def engines(self) -> Engines:
        from tidemill.models.registry import Engines

        return Engines(self._own("engines"))

    @cached_property
    def strategies(self) -> Strategies:
        from tidemill.strategies.registry import Strategies

        return Strategies(self._own("strategies"))

    @property
    def failed(self) -> dict[str, str]:
        """Function → reason, of the functions in the experiment's files whose features could not be learned."""
        return {name: reason for module in self.files for name, reason in module.failed.items()}

    def known(self, experiment: Experiment) -> Experiment:
        """The experiment; a label of a file brings the horizon that it was declared with. UnknownNameError for no label."""
        if experiment.label.name == _PLAIN_LABEL:
            return experiment
        made = self.labels.find(experiment.label.name)
        if made is None or made.horizon == experiment.label.horizon:
            return experiment
        return msgspec.structs.replace(experiment, label=msgspec.structs.replace(experiment.label, horizon=made.horizon))

    def code(self, kind: Kind, *names: str) -> tuple[str, ...]:
        """What decides the values of those of these names that files declare: nothing for what ships."""
        own = self._own(kind)
        found = [own[name] for name in names if name in own]
        return tuple(one.expression.key if kind == "features" else one.source for one in found)

    def data_files(self, kind: Kind, *names: str) -> tuple[str, ...]:
        """The data files that those of these names that files declare depend on, sorted."""
        found = (module.reads.get((kind, name), ()) for module in (*self.beside, *self.files) for name in names)
        return tuple(sorted({file for files in found for file in files}))

    def code_of(self, experiment: Experiment) -> tuple[str, ...]:
        """`code` of everything that an experiment names."""
        return (
            *self.code("features", *experiment.features.names),
            *self.code("labels", experiment.label.name),
            *self.code("engines", *(spec.name for spec in experiment.engines)),
            *self.code("strategies", experiment.strategy.name),
        )

    def _own(self, kind: Kind) -> dict[str, Any]:
        modules = (*self.beside, *self.files)
        return {name: value for module in modules for name, value in getattr(module.own, kind).items()}


_Content = tuple[str, tuple[tuple[str, str], ...]] | None
# What every installation knows.
SHIPPED_REGISTRY = Registry()


@lru_cache(maxsize=8)
def _loadable(contents: tuple[tuple[Path, _Content], ...], bounds: Bounds) -> tuple[Module, ...]:
    """The files of the settings that can be loaded beside those before them; said of the others, once for each content."""
    made: list[Module] = []
    for path, _ in contents:
        from tidemill.user_modules.loading import load_module

        try:
            module = load_module(path, bounds)
            _require_apart(module, made)
        except TidemillError as exc:
            logging.getLogger("tidemill.modules").warning("%s", exc)
        else:
            made.append(module)
    return tuple(made)


def _content(path: Path) -> _Content:
    """Text and digests of the data files; None where whoever loads it says what is wrong."""
    from tidemill.user_modules.execution import read_text
    from tidemill.user_modules.loading import data_of

    try:
        text = read_text(path)
        return text, tuple(data_of(text, path.expanduser().absolute()).items())
    except TidemillError:
        return None


def _require_apart(module: Module, before: Iterable[Module]) -> None:
    """InputError where two files mean different things by one name."""
    for other in before:
        for kind, name in sorted(module.own.names() & other.own.names()):
            here, there = getattr(module.own, kind)[name], getattr(other.own, kind)[name]
            if kind != "features" or here.expression != there.expression:
                raise InputError(
                    f"{other.file} and {module.file} both declare the {NOUNS[kind]} {name!r}. "
                    "Choose another name in one of them."
                )
