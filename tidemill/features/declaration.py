"""How features are declared and found by name. Standard library only: listing and explaining cost no numerics.

A file declares into `Declarations` of its own: `feature(...)` one name, `family(...)` a name with parameters (`sma_20`,
`bb_upper_20_2`, `ROC5`), so that any `sma_N` resolves, `named_set(...)` one name for a list of names. `Features` is a value in
which they are found.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module

import msgspec

from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.features.expression import COLUMNS, Expression, Operand, as_expression, peel

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,63}")
_NUMBERED = re.compile(r"(.*?[A-Za-z_])_?((?:(?<=_)|(?<=[A-Z]))[0-9.]+(?:_[0-9.]+)*)")
_RESERVED = frozenset({"symbol", "open_time", "known_at", "label", "label_end_at", "prediction", "quote_volume", *COLUMNS})
# Under this name a user's file holds its `Declarations`.
OWN = "__declarations__"
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


class Features(msgspec.Struct, frozen=True):
    """Features by name. `shipped()` are those of the project; `joined` gives them with others beside them."""

    features: Mapping[str, Feature]
    families: Mapping[str, Family]
    sets: Mapping[str, tuple[str, ...]]

    def find(self, name: str) -> Feature:
        """The feature of this name, made from its family if need be. Raises UnknownNameError with the choices."""
        found = self.known(name)
        if found is None:
            examples = ", ".join(family.example for family in list(self.families.values())[:3])
            hint = f"Other parameters are possible in names like {examples}."
            raise UnknownNameError("feature or set", name, [*self.sets, *self.declared()], hint)
        return found

    def known(self, name: str) -> Feature | None:
        """The feature of this name; None where there is none."""
        return self.features.get(name) or _of_family(name, self.families)

    def declared(self) -> tuple[str, ...]:
        """Every name of a set or declared by itself."""
        return tuple(dict.fromkeys([*(name for names in self.sets.values() for name in names), *self.features]))

    def joined(self, more: Mapping[str, Feature]) -> Features:
        """These and others, which go before."""
        return msgspec.structs.replace(self, features={**self.features, **more}) if more else self


class Declarations:
    """What one file declares, in its order. beside: what is known already, whose names it cannot give to anything else."""

    def __init__(self, beside: Features | None = None) -> None:
        self._beside = beside
        self.features: dict[str, Feature] = {}
        self.families: dict[str, Family] = {}
        self.sets: dict[str, tuple[str, ...]] = {}

    def feature(self, name: str, expression: Operand, *, unit: str = "", about: str = "") -> Feature:
        """Declare a feature. The same declaration twice changes nothing; InputError for a name that is taken or unfit."""
        return self.add(_feature(name, expression, unit, about))

    def add(self, made: Feature) -> Feature:
        """As `feature`, for one that is made."""
        known = self.features.get(made.name) or (self._beside.known(made.name) if self._beside else None)
        if known is not None and known.expression != made.expression:
            raise InputError(f"The feature {made.name!r} exists already, as {known.expression}. Choose another name.")
        self.features[made.name] = made
        return made

    def family(self, example: str, build: Callable[..., Expression], *, unit: str, about: str) -> None:
        """Declare all names like `example`: its stem, then as many numbers; whole ones where the example's are whole.

        `build` takes the numbers and gives the expression; `{0}`, `{1}` … in `about` stand for them.
        """
        stem, numbers = _split(example)
        kinds = tuple(float if "." in number else int for number in numbers)
        self.families[stem] = Family(stem, build, kinds, unit, about, example)

    def named_set(self, name: str, names: str) -> None:
        """Declare a set of features, whose names are separated by blanks."""
        self.sets[name] = tuple(names.split())


@cache
def shipped() -> Features:
    """The features of the project, read once."""
    files: list[Declarations] = [import_module(module).DECLARED for module in _SHIPPED]
    features: dict[str, Feature] = {}
    families: dict[str, Family] = {}
    sets: dict[str, tuple[str, ...]] = {}
    for file in files:
        features |= file.features
        families |= file.families
        sets |= file.sets
    return Features(features, families, sets)


def feature(name: str, expression: Operand, *, unit: str = "", about: str = "") -> Feature:
    """A feature as a value. A user's file may import this word, which it has anyway; the feature is declared there, too."""
    made = _feature(name, expression, unit, about)
    file = sys._getframe(1).f_globals.get(OWN)
    return file.add(made) if isinstance(file, Declarations) else made


def _feature(name: str, expression: Operand, unit: str, about: str) -> Feature:
    if not isinstance(name, str) or _NAME.fullmatch(name) is None or name in _RESERVED:
        raise InputError(
            f"{name!r} cannot be the name of a feature. Use letters, digits, _ and ., but no column name of the bars."
        )
    made = Feature(name, as_expression(expression), unit, about)
    peel(made.expression)  # refuses an operator of the second stage where it cannot stand
    return made


def _split(name: str) -> tuple[str, tuple[str, ...]]:
    match = _NUMBERED.fullmatch(name)
    return (name, ()) if match is None else (match[1].rstrip("_"), tuple(match[2].split("_")))


def _of_family(name: str, families: Mapping[str, Family]) -> Feature | None:
    stem, numbers = _split(name)
    found = families.get(stem)
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
