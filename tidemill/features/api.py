"""The door to features: name a set, compute it over bars, step it bar by bar, explain it.

    features = feature_set("classic", "ROC5")
    frame, state = compute(adjusted_bars, features)             # batch
    stream = FeatureStream(features, symbols, state)            # streaming, from where the batch ended
    row = stream.step(open, high, low, close, volume)           # the same bits

Naming and explaining import no numerics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidemill.domain.errors import InputError
from tidemill.features.declaration import Features, shipped
from tidemill.features.feature_set import Explanation, FeatureSet
from tidemill.features.sources import feature_source

if TYPE_CHECKING:
    import polars as pl

    from tidemill.features.state import FeatureState
    from tidemill.features.stream import FeatureStream

__all__ = ["Explanation", "FeatureSet", "FeatureState", "FeatureStream", "compute", "explain", "feature_set", "warm"]


def feature_set(*names: str, known: Features | None = None) -> FeatureSet:
    """The features of `names`: names of sets and of single features, in order, each once.

    known: where they are found; None for those that ship. Raises UnknownNameError with the choices, InputError when nothing is
    named.
    """
    known = known or shipped()
    wanted = dict.fromkeys(single for name in names for single in known.sets.get(name, (name,)))
    if not wanted:
        raise InputError(f"No feature was given. Name a set ({', '.join(known.sets)}) or single features.")
    return FeatureSet(tuple(known.find(name) for name in wanted))


def explain(name: str, known: Features | None = None) -> Explanation:
    """Formula, look-back, unit, meaning and source of one feature; known as in `feature_set`. Raises UnknownNameError."""
    known = known or shipped()
    found = known.find(name)
    expression = found.expression
    return Explanation(
        name=name,
        formula=str(expression),
        lookback=expression.lookback,
        recursive=expression.recursive,
        unit=found.unit,
        about=found.about,
        source=feature_source(name, known.sets),
        cross_sectional=expression.cross_sectional,
    )


def compute(
    bars: pl.DataFrame, features: FeatureSet, state: FeatureState | None = None, *, left_out: dict[str, str] | None = None
) -> tuple[pl.DataFrame, FeatureState]:
    """Every feature at every bar, and the state after the last bar of each symbol.

    bars: adjusted, the columns of BAR_COLUMNS (`quote_volume` may be absent), any number of symbols, not necessarily aligned.
    state: where an earlier call ended; `bars` must then hold later bars only.
    left_out: takes feature → reason for each function of a user's module that fails; its columns are then left out of the
    frame and the rest goes on. Without it the first failure is raised.
    Returns columns symbol, open_time and one float64 column a feature. What cannot be known is NaN, never infinite.
    Raises InputError for missing or unfit columns, duplicate or old bars, IntegrityError for the state of another feature set.
    """
    if features.functions:
        from tidemill.features.functions import compute_with_functions  # polars

        return compute_with_functions(bars, features, state, left_out)
    from tidemill.features.batch import compute_frame

    return compute_frame(bars, features, state)


def warm() -> None:
    """Compile the kernels, or load them from disk. Part of set-up; later processes load them in well under a second."""
    from tidemill.features.stream import FeatureStream

    FeatureStream(feature_set("sma_20"), ("A",)).step([1.0], [1.0], [1.0], [1.0], [1.0])


def __getattr__(name: str) -> object:
    # Both need numpy; listing and explaining do not.
    if name == "FeatureStream":
        from tidemill.features.stream import FeatureStream

        return FeatureStream
    if name == "FeatureState":
        from tidemill.features.state import FeatureState

        return FeatureState
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
