"""What an experiment says of its engines and of the classifier of its news, checked before any work; no library of an engine is
imported.
"""

import math
from collections.abc import Collection, Sequence
from pathlib import Path

from tidemill.domain.errors import InputError, did_you_mean
from tidemill.domain.experiment import EngineSpec
from tidemill.models.base import EngineInfo, decoded
from tidemill.models.registry import SHIPPED_ENGINES, Engines
from tidemill.models.text.registry import MODEL, require_classifier


def check(engines: Sequence[EngineSpec], features: Collection[str], known: Engines = SHIPPED_ENGINES) -> None:
    """UnknownNameError or InputError unless every engine is known, once, has parameters in range and the features it needs."""
    if not engines:
        raise InputError("The experiment names no engine. Add `engines:`, such as `- name: momentum`.")
    names = [spec.name for spec in engines]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"The experiment names an engine twice: {', '.join(twice)}. Keep each once in `engines:`.")
    for spec in engines:
        check_engine(spec, features, known)


def check_engine(spec: EngineSpec, features: Collection[str], known: Engines = SHIPPED_ENGINES) -> None:
    """As `check`, for one engine."""
    info = known.find(spec.name).info
    if info.kind == "ensemble":
        raise InputError(f"The engine {spec.name} is built from the other engines automatically. Leave it out of `engines:`.")
    for name, value in spec.params.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"The parameter {name} of the engine {spec.name} is {value}; it must be a finite number.")
    _require_needs(info, needs(info, spec), features)


def needs(info: EngineInfo, spec: EngineSpec) -> tuple[tuple[str, ...], ...]:
    """Alternatives of features that an engine with these parameters works on; empty: any will do."""
    params = None if info.params is None else decoded(info.params, spec.params, spec.name)
    return info.needs if info.needs_by is None else info.needs_by(params)


def _require_needs(info: EngineInfo, alternatives: tuple[tuple[str, ...], ...], features: Collection[str]) -> None:
    lacking = [[name for name in wanted if name not in features] for wanted in alternatives]
    if not lacking or not all(lacking):
        return
    choices = ", or ".join(" and ".join(wanted) for wanted in alternatives)
    nearest = min(lacking, key=len)
    like = "".join(f" For {name}:{did_you_mean(name, features)}" for name in nearest if did_you_mean(name, features))
    raise InputError(
        f"The engine {info.name} needs the features {choices}. features.sets and features.names hold no {', '.join(nearest)}. "
        f"Add what is missing to features.names, or leave the engine out.{like}"
    )


def check_classifier(name: str) -> None:
    """UnknownNameError or InputError unless a classifier of this name, or its folder, is there. Nothing is loaded."""
    require_classifier(name)
    folder = Path(name.removeprefix(MODEL)).expanduser()
    if name.startswith(MODEL) and not folder.is_dir():
        raise InputError(f"news.classifier is {name}, and there is no folder {folder}. Check the path, or write lexicon.")
