"""The door to features: name a set, compute it over bars, step it bar by bar, explain it.

    features = feature_set("classic", "ROC5")
    frame, state = compute(adjusted_bars, features)             # batch
    stream = Stream(features, symbols, state)                   # streaming, from where the batch ended
    row = stream.step(open, high, low, close, volume)           # the same bits

Naming and explaining import no numerics.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from tidemill.domain.errors import InputError
from tidemill.features import declaration
from tidemill.features.declaration import Feature
from tidemill.features.external import External, Function, functions_of
from tidemill.features.kernel_sources import sources_hash
from tidemill.features.sources import source_of

if TYPE_CHECKING:
    import polars as pl

    from tidemill.features.program import Program
    from tidemill.features.state import State
    from tidemill.features.stream import Stream

__all__ = ["Explanation", "FeatureSet", "State", "Stream", "compute", "explain", "feature_set", "warm"]


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


def feature_set(*names: str) -> FeatureSet:
    """The features of `names`: names of sets and of single features, in order, each once.

    Raises UnknownNameError with the choices, InputError when nothing is named.
    """
    known = declaration.sets()
    wanted = dict.fromkeys(single for name in names for single in known.get(name, (name,)))
    if not wanted:
        raise InputError(f"No feature is named. Name a set ({', '.join(known)}) or single features.")
    return FeatureSet(tuple(declaration.find(name) for name in wanted))


def explain(name: str) -> Explanation:
    """Formula, look-back, unit, meaning and source of one feature. Raises UnknownNameError."""
    found = declaration.find(name)
    expression = found.expression
    return Explanation(
        name=name,
        formula=str(expression),
        lookback=expression.lookback,
        recursive=expression.recursive,
        unit=found.unit,
        about=found.about,
        source=source_of(name, declaration.sets()),
        cross_sectional=expression.cross_sectional,
    )


def compute(
    bars: pl.DataFrame, features: FeatureSet, state: State | None = None, *, left_out: dict[str, str] | None = None
) -> tuple[pl.DataFrame, State]:
    """Every feature at every bar, and the state after the last bar of each symbol.

    bars: adjusted, the columns of BAR_COLUMNS (`quote_volume` may be absent), any number of symbols, not necessarily aligned.
    state: where an earlier call ended; `bars` must then hold later bars only.
    left_out: takes feature → reason for each function of a user's module that fails; its columns are then left out of the
    frame and the rest goes on. Without it the first failure is raised.
    Returns columns symbol, open_time and one float64 column a feature. What cannot be known is NaN, never infinite.
    Raises InputError for missing or unfit columns, duplicate or old bars, IntegrityError for the state of another feature set.
    """
    if features.functions:
        from tidemill.features.external import compute_with_functions  # polars

        return compute_with_functions(bars, features, state, left_out)
    from tidemill.features.batch import compute_frame

    return compute_frame(bars, features, state)


def warm() -> None:
    """Compile the kernels, or load them from disk. Part of set-up; later processes load them in well under a second."""
    from tidemill.features.stream import Stream

    Stream(feature_set("sma_20"), ("A",)).step([1.0], [1.0], [1.0], [1.0], [1.0])


def __getattr__(name: str) -> object:
    # Both need numpy; listing and explaining do not.
    if name == "Stream":
        from tidemill.features.stream import Stream

        return Stream
    if name == "State":
        from tidemill.features.state import State

        return State
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
