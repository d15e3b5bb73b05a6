"""Engines by name. A module of this package that holds `ENGINE` is an engine; nothing else has to be changed to add one.

`Engines` is a value: the engines that ship and those of a user's own files beside them.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

import msgspec

import tidemill.models
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.models.base import Engine
from tidemill.models.custom import CustomEngine
from tidemill.provenance import fingerprint, source_version


class Engines(msgspec.Struct, frozen=True):
    """own: engines of a user's files by name; they go beside those that ship."""

    own: Mapping[str, Engine] = {}

    def find(self, name: str) -> Engine:
        """The engine `name`; UnknownNameError, with the choices, if there is none."""
        found = self.own.get(name) or _shipped().get(name)
        if found is None:
            raise UnknownNameError("engine", name, sorted({**_shipped(), **self.own}))
        return found

    def begun(self, owner: object) -> "Engines":
        """The same, of which those of a user's files score in one process each file as long as `owner` lives."""
        begun = {name: one.begun(owner) if isinstance(one, CustomEngine) else one for name, one in self.own.items()}
        return Engines(begun)

    def all(self) -> tuple[Engine, ...]:
        """All of them, sorted by name, the ensemble last."""
        known = {**_shipped(), **self.own}
        return tuple(sorted(known.values(), key=lambda one: (one.info.kind == "ensemble", one.info.name)))


SHIPPED_ENGINES = Engines()


def engine(name: str) -> Engine:
    """The engine that ships under this name; UnknownNameError, with the choices, if there is none."""
    return SHIPPED_ENGINES.find(name)


def engines() -> tuple[Engine, ...]:
    """All engines that ship, sorted by name, the ensemble last."""
    return SHIPPED_ENGINES.all()


def require_free(name: str) -> None:
    """InputError when an engine that ships has this name."""
    if name in _shipped():
        raise InputError(f"There is already an engine named {name!r}. Choose another name.")


def code_version(made: Engine) -> str:
    """16 hex digits of the source that decides what an engine answers, a user's own code included."""
    own = source_version(type(made).__module__)
    return fingerprint(own, made.source)[:16] if isinstance(made, CustomEngine) else own


def computing_libraries(made: Engine) -> tuple[str, ...]:
    """Distributions beside numba, numpy and polars that compute what an engine answers, by their names; it states them as
    `libraries`.
    """
    return tuple(getattr(made, "libraries", ()))


@cache
def _shipped() -> dict[str, Engine]:
    found: dict[str, Engine] = {}
    for module in pkgutil.iter_modules(tidemill.models.__path__):
        if module.ispkg or module.name == "registry":  # the parts of an engine lie in a package, and may import much
            continue
        made: Engine | None = getattr(importlib.import_module(f"{tidemill.models.__name__}.{module.name}"), "ENGINE", None)
        if made is not None:
            found[made.info.name] = made
    return found
