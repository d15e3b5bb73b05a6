"""What a set of features is, and what a person may want to know of one of them. Naming and explaining import no numerics."""

from __future__ import annotations

import hashlib
from collections.abc import Container
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from tidemill.domain.errors import InputError
from tidemill.features.declaration import Feature
from tidemill.features.external import External, Function, functions_of
from tidemill.features.kernel_sources import sources_hash

if TYPE_CHECKING:
    from tidemill.features.program import Program


class FeatureSet:
    """Features in a fixed order. Equal definitions and kernels give an equal fingerprint."""

    def __init__(self, features: tuple[Feature, ...]) -> None:
        self.features = features

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @cached_property
    def lookback(self) -> int:
        """The longest finite look-back: own bars that a value reads, the current one included."""
        return max((feature.expression.lookback for feature in self.features), default=1)

    @cached_property
    def recursive(self) -> tuple[str, ...]:
        """Names of the features that depend on all of the history through carried state."""
        return tuple(feature.name for feature in self.features if feature.expression.recursive)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of names, definitions and kernel sources: what decides the bits besides the bars."""
        digest = hashlib.sha256(sources_hash().encode())
        for feature in self.features:
            digest.update(f"\n{feature.name}={feature.expression.key}".encode())
        return digest.hexdigest()

    @cached_property
    def functions(self) -> tuple[Function, ...]:
        """The functions of a user's module that have a part in the set."""
        return functions_of(feature.expression for feature in self.features)

    @cached_property
    def whole_history(self) -> tuple[str, ...]:
        """Names of the functions that declare no look-back: they are computed from the first bar each time."""
        return tuple(function.name for function in self.functions if function.lookback is None)

    @cached_property
    def compiled(self) -> FeatureSet:
        """The features that the kernels compute: the set itself when no function has a part in it."""
        if not self.functions:
            return self
        return FeatureSet(tuple(feature for feature in self.features if not isinstance(feature.expression, External)))

    def without(self, names: Container[str]) -> FeatureSet:
        """The same set but for the features of these names."""
        return FeatureSet(tuple(feature for feature in self.features if feature.name not in names))

    @cached_property
    def program(self) -> Program:
        """The table that the kernels run. Raises InputError for a feature that looks ahead or is a function's."""
        from tidemill.features.program import build

        if self.functions:
            raise InputError(
                f"{self.functions[0].name} of {self.functions[0].origin} is a function; functions are computed in batch only."
            )
        for feature in self.features:
            if feature.expression.looks_ahead:
                raise InputError(
                    f"The feature {feature.name!r} looks ahead: {feature.expression}. Use ref() with a positive number."
                )
        return build(self.features)

    def __repr__(self) -> str:
        return f"FeatureSet({', '.join(self.names)})"


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What a person may want to know of one feature.

    lookback: counts own bars; a recursive feature reads on. source: where the formula comes from; empty where nobody said.
    cross_sectional: the value depends on the other symbols of its bar time.
    """

    name: str
    formula: str
    lookback: int
    recursive: bool
    unit: str
    about: str
    source: str = ""
    cross_sectional: bool = False
