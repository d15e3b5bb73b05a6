"""Where features are declared and found by name. Standard library only: listing and explaining cost no numerics.

`feature(...)` declares one name. `family(...)` declares a name with parameters (`sma_20`, `bb_upper_20_2`, `ROC5`), so that any
`sma_N` resolves. `named_set(...)` gives a list of names one name.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module

import msgspec

from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.features.expression import COLUMNS, Expression, Operand, as_expression, peel

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,63}")
_NUMBERED = re.compile(r"(.*?[A-Za-z_])_?((?:(?<=_)|(?<=[A-Z]))[0-9.]+(?:_[0-9.]+)*)")
_RESERVED = frozenset({"symbol", "open_time", "known_at", "label", "label_end_at", "prediction", "quote_volume", *COLUMNS})
_SHIPPED = tuple(
    f"tidemill.features.definitions.{name}"
    for name in ("classic", "alpha158", "cross", "calendar", "regime", "fear_greed", "sentiment")
)


class Feature(msgspec.Struct, frozen=True):
    """A name for an expression over a symbol's own bars. `unit` and `about` are for people."""

    name: str
    expression: Expression
    unit: str = ""
    about: str = ""


class Family(msgspec.Struct, frozen=True):
    """Features that differ in numbers carried by their names. `example` is one such name."""

    stem: str
    build: Callable[..., Expression]
    kinds: tuple[type, ...]
    unit: str
    about: str
    example: str


class _Registry:
    def __init__(self) -> None:
        self.features: dict[str, Feature] = {}
        self.families: dict[str, Family] = {}
        self.sets: dict[str, tuple[str, ...]] = {}
        self.recorder: list[str] = []
        self.loaded = False


_registry = _Registry()


def _shipped() -> _Registry:
    if not _registry.loaded:
        _registry.loaded = True
        for module in _SHIPPED:
            import_module(module)
    return _registry


def feature(name: str, expression: Operand, *, unit: str = "", about: str = "") -> Feature:
    """Declare a feature. The same declaration twice changes nothing; raises InputError for a name that is taken or unfit."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None or name in _RESERVED:
        raise InputError(f"{name!r} cannot name a feature. Use letters, digits, _ and ., and no column of the bars.")
    made = Feature(name, as_expression(expression), unit, about)
    peel(made.expression)  # refuses an operator of the second stage where it cannot stand
    known = _registry.features.get(name) or (_resolve_family(name) if _registry.loaded else None)
    if known is not None and known.expression != made.expression:
        raise InputError(f"The feature {name!r} exists already, as {known.expression}. Choose another name.")
    _registry.features[name] = made
    _registry.recorder.append(name)
    return made


def family(example: str, build: Callable[..., Expression], *, unit: str, about: str) -> None:
    """Declare all names like `example`: its stem, then as many numbers; whole ones where the example's are whole.

    `build` takes the numbers and gives the expression; `{0}`, `{1}` … in `about` stand for them.
    """
    stem, numbers = _split(example)
    kinds = tuple(float if "." in number else int for number in numbers)
    _registry.families[stem] = Family(stem, build, kinds, unit, about, example)


def named_set(name: str, names: str) -> None:
    """Declare a set of features, whose names are separated by blanks."""
    _registry.sets[name] = tuple(names.split())


def sets() -> dict[str, tuple[str, ...]]:
    """The sets and their names, in order."""
    return dict(_shipped().sets)


def declared() -> tuple[str, ...]:
    """Every name of a set or declared by a user's module."""
    registry = _shipped()
    return tuple(dict.fromkeys([*(name for names in registry.sets.values() for name in names), *registry.features]))


def find(name: str) -> Feature:
    """The feature of this name, made from its family if need be. Raises UnknownNameError with the choices."""
    registry = _shipped()
    found = registry.features.get(name) or _resolve_family(name)
    if found is None:
        examples = ", ".join(family.example for family in list(registry.families.values())[:3])
        raise UnknownNameError(
            "feature or set", name, [*registry.sets, *declared()], f"Other parameters are possible in names like {examples}."
        )
    return found


@contextmanager
def declaring(instead_of: Iterable[str] = ()) -> Iterator[list[str]]:
    """Collect the names that a block declares, having forgotten `instead_of`; undo it all if the block raises."""
    registry = _shipped()
    before, recorder = dict(registry.features), registry.recorder
    for name in instead_of:
        registry.features.pop(name, None)
    registry.recorder = []
    try:
        yield registry.recorder
    except BaseException:
        registry.features = before
        raise
    finally:
        registry.recorder = recorder


def _split(name: str) -> tuple[str, tuple[str, ...]]:
    match = _NUMBERED.fullmatch(name)
    return (name, ()) if match is None else (match[1].rstrip("_"), tuple(match[2].split("_")))


def _resolve_family(name: str) -> Feature | None:
    stem, numbers = _split(name)
    found = _registry.families.get(stem)
    if found is None or len(numbers) != len(found.kinds):
        return None
    separator = "_" if "_" in found.example[len(stem) :] else ""
    values: list[int | float] = []
    for text, kind in zip(numbers, found.kinds, strict=True):
        if re.fullmatch(r"[1-9][0-9]{0,4}" if kind is int else r"(0|[1-9][0-9]{0,4})(\.[0-9]{0,5}[1-9])?", text) is None:
            return None
        values.append(kind(text))
    if name != f"{stem}{separator}{'_'.join(numbers)}":
        return None
    return Feature(name, found.build(*values), found.unit, found.about.format(*values))
