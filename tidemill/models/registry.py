"""Engines by name. A module of this package that holds `ENGINE` is an engine; nothing else has to be changed to add one."""

import importlib
import pkgutil
from functools import lru_cache

import tidemill.models
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.models.base import Engine
from tidemill.models.custom import CustomEngine
from tidemill.provenance import fingerprint, source_version

_REGISTERED: dict[str, Engine] = {}


def engine(name: str) -> Engine:
    """The engine `name`; UnknownNameError, with the choices, if there is none."""
    known = {**_shipped(), **_REGISTERED}
    if name not in known:
        raise UnknownNameError("engine", name, sorted(known))
    return known[name]


def engines() -> tuple[Engine, ...]:
    """All engines, sorted by name, the ensemble last."""
    known = {**_shipped(), **_REGISTERED}
    return tuple(sorted(known.values(), key=lambda one: (one.info.kind == "ensemble", one.info.name)))


def register(made: Engine) -> None:
    """Add an engine of a user's own module. InputError when the name is taken."""
    if made.info.name in _shipped() or made.info.name in _REGISTERED:
        raise InputError(f"There is an engine named {made.info.name!r} already. Give yours another name.")
    _REGISTERED[made.info.name] = made


def unregister(name: str) -> None:
    """Forget an engine that was registered; the shipped ones stay."""
    _REGISTERED.pop(name, None)


def code_version(made: Engine) -> str:
    """16 hex digits of the source that decides what an engine answers, a user's own code included."""
    own = source_version(type(made).__module__)
    return fingerprint(own, made.source)[:16] if isinstance(made, CustomEngine) else own


@lru_cache(maxsize=1)
def _shipped() -> dict[str, Engine]:
    found: dict[str, Engine] = {}
    for module in pkgutil.iter_modules(tidemill.models.__path__):
        if module.ispkg or module.name == "registry":  # the parts of an engine lie in a package, and may import much
            continue
        made: Engine | None = getattr(importlib.import_module(f"{tidemill.models.__name__}.{module.name}"), "ENGINE", None)
        if made is not None:
            found[made.info.name] = made
    return found
