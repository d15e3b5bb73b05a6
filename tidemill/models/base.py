"""What every engine shares: its interface, its training data and its scaling.

An engine scores symbols: its prediction is the expected label of a row. What is fitted (winsor bounds, means, weights) is
fitted on the training rows alone and travels in the artifact. A prediction depends on its own row, and for a sequence engine on
that symbol's earlier rows, but on no other row of the batch.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Protocol, TypeVar

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from tidemill.domain.errors import InputError, IntegrityError, UnknownNameError
from tidemill.domain.reading import problem
from tidemill.models.artifact import Artifact, Tensor, TrainingInputs
from tidemill.provenance import source_version
from tidemill.validation.panel import require_columns, require_panel

Floats = NDArray[np.float64]
# Features [rows, features] → predictions [rows], NaN where fewer than half of the features are known.
RowScorer = Callable[["Floats"], "Floats"]
PREDICTION_COLUMNS = ("symbol", "open_time", "prediction")

MINIMUM_ROWS = 30
# Labels and features are clipped to these quantiles of the training rows: one print error must not decide a fit.
WINSOR = (0.01, 0.99)
SCALED_LIMIT = 5.0
# Labels are taken relative to the mean of their bar time where a typical bar time has at least this many of them.
MINIMUM_CROSS_SECTION = 3
_SCALING = ("input.lower", "input.upper", "input.mean", "input.deviation")


class Dimension(msgspec.Struct, frozen=True):
    """A number that a search may vary between `low` and `high`, both possible. log: on a logarithmic scale; whole: integers."""

    name: str
    low: float
    high: float
    log: bool = False
    whole: bool = False


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a person and the graph need to know of an engine.

    kind: `rule`, `linear`, `trees`, `sequence` or `ensemble`.
    history: rows of the same symbol before a row that its prediction depends on.
    needs: alternatives of feature columns; one of them must be there in full. Empty: any features will do.
    needs_by: the alternatives for given parameters (a `params`), where they decide; `needs` are then those of the defaults.
    space: what a search of hyper-parameters varies; empty: nothing is worth it.
    params: what `fit` decodes its parameters into; with it an experiment is refused before any work. None: only `fit` knows.
    """

    name: str
    kind: str
    about: str
    history: int = 0
    needs: tuple[tuple[str, ...], ...] = ()
    needs_by: Callable[[Any], tuple[tuple[str, ...], ...]] | None = None
    params: type[msgspec.Struct] | None = None
    space: tuple[Dimension, ...] = ()


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller knows of the origin of the training rows; it goes into the artifact's hash."""

    feature_fingerprint: str = ""
    data_versions: dict[str, str] = {}
    label: str = "forward_return"
    horizon: int = 0
    split: dict[str, str] = {}


NO_LINEAGE = Lineage()


class Engine(Protocol):
    """A scorer of symbols."""

    @property
    def info(self) -> EngineInfo: ...

    def fit(
        self, training: pl.DataFrame, *, features: tuple[str, ...], params: Mapping[str, Any], seed: int, lineage: Lineage = ...
    ) -> Artifact:
        """Train on `training[symbol, open_time, features…, label, label_end_at]`; rows with a null label teach nothing.

        params: override the documented defaults of the engine.
        Raises InputError for an unknown parameter, a missing column, too few labelled rows, or features that are all empty.
        """
        ...

    def predict(self, artifact: Artifact, frame: pl.DataFrame, *, start: datetime | None = None) -> pl.DataFrame:
        """`symbol, open_time, prediction` for the rows of `frame[symbol, open_time, features…]` from `start` on.

        Rows before `start` only serve as history; to get the bits of the whole history, give at least `info.history` of
        them for each symbol. The prediction is null where fewer than half of the features are known.
        """
        ...


Params = TypeVar("Params", bound=msgspec.Struct)


def decoded(kind: type[Params], params: Mapping[str, Any], engine: str) -> Params:
    """`params` over the defaults of `kind`; UnknownNameError for an unknown name, InputError for a value out of range."""
    for name in params:
        if name not in kind.__struct_fields__:
            raise UnknownNameError(f"parameter of {engine}", name, kind.__struct_fields__)
    try:
        return msgspec.convert(dict(params), kind, strict=True)
    except msgspec.ValidationError as exc:
        raise InputError(f"A parameter of {engine} is wrong: {problem(exc, dict(params), kind)}") from exc


@dataclass(frozen=True)
class TrainingSet:
    """Training rows, sorted by (symbol, open_time), and their target.

    target: label winsorised at `WINSOR`, less the mean of its bar time when `relative`, divided by `scale`; NaN where there is
    no label or too few features are known. A unit of target is one `scale` of label.
    """

    frame: pl.DataFrame
    features: tuple[str, ...]
    target: Floats
    scale: float
    relative: bool

    @cached_property
    def usable(self) -> NDArray[np.bool_]:
        return np.isfinite(self.target)

    @property
    def rows(self) -> int:
        return int(self.usable.sum())

    def column(self, name: str) -> Floats:
        """Values of a feature, NaN where unknown or infinite."""
        return feature_column(self.frame, name)


def training_set(training: pl.DataFrame, features: tuple[str, ...]) -> TrainingSet:
    """The training rows as engines need them; see TrainingSet. Raises InputError when they cannot teach anything."""
    require_distinct(features)
    require_panel(training, "training frame")
    require_columns(training, (*features, "label"), "training frame")
    _require_numbers(training, (*features, "label"))
    label = pl.when(pl.col("label").is_finite() & known(features)).then(pl.col("label").cast(pl.Float64))
    labelled = training.select("open_time", label.alias("label"))
    count = labelled["label"].count()
    if count < MINIMUM_ROWS:
        raise InputError(
            f"The training window holds {count} rows with a label and at least half of the features; "
            f"{MINIMUM_ROWS} are needed. Give a longer window, more symbols, or features that look back less."
        )
    target, relative = _target(labelled)
    scale = float(np.nanstd(target))
    scale = scale if scale > 0.0 else 1.0
    return TrainingSet(training, features, target / scale, scale, relative)


def require_distinct(features: tuple[str, ...]) -> None:
    """InputError when there is no feature, or one twice."""
    if not features or len(set(features)) != len(features):
        raise InputError("An engine needs at least one feature, and each only once.")


def _target(labelled: pl.DataFrame) -> tuple[Floats, bool]:
    column = labelled["label"]
    clipped = labelled.with_columns(
        pl.col("label").clip(column.quantile(WINSOR[0], "linear"), column.quantile(WINSOR[1], "linear"))
    )
    width = labelled.drop_nulls().group_by("open_time").len()["len"].median()
    relative = isinstance(width, int | float) and width >= MINIMUM_CROSS_SECTION
    if relative:
        clipped = clipped.with_columns(pl.col("label") - pl.col("label").mean().over("open_time"))
    return clipped["label"].fill_null(float("nan")).to_numpy().astype(np.float64), relative


def known(features: Iterable[str]) -> pl.Expr:
    """Whether at least half of `features` are known in a row. Below that a prediction would be made of fill-ins."""
    names = list(features)
    flags = pl.col(names).is_finite().fill_null(value=False).cast(pl.Int32)
    return pl.sum_horizontal(flags) * 2 >= len(names)


def known_rows(values: Floats) -> NDArray[np.bool_]:
    """`known` of rows [rows, features]."""
    return np.asarray(np.isfinite(values).sum(axis=1) * 2 >= values.shape[1], dtype=np.bool_)


def feature_column(frame: pl.DataFrame, name: str) -> Floats:
    """Values of a feature, NaN where null, NaN or infinite."""
    values = frame[name].cast(pl.Float64).to_numpy()
    finite = np.isfinite(values)
    return values if finite.all() else np.where(finite, values, np.nan)


@dataclass(frozen=True)
class Standardizer:
    """Scaling fitted on training rows: clip to the winsor bounds, subtract the mean, divide by the deviation, clip to ±5.

    An unknown value becomes 0, which is the training mean. A constant or empty feature is 0 throughout. Element by element, so
    a row's result does not depend on the rows beside it. Arrays of float64, one value a feature.
    """

    lower: Floats
    upper: Floats
    mean: Floats
    deviation: Floats

    @classmethod
    def fit(cls, training: TrainingSet) -> "Standardizer":
        """From the usable rows of `training`. Raises InputError when no feature varies."""
        fitted = [_column_scale(training.column(name)[training.usable]) for name in training.features]
        made = cls(*(np.array(part, dtype=np.float64) for part in zip(*fitted, strict=True)))
        if not (made.deviation > 0.0).any():
            raise InputError("Every feature is empty or constant over the training window; nothing can be learnt from them.")
        return made

    def column(self, position: int, values: Floats) -> Floats:
        """Standardised values of the feature at `position`; never NaN."""
        if self.deviation[position] <= 0.0:
            return np.zeros_like(values)
        scaled = np.clip(values, self.lower[position], self.upper[position])
        scaled -= self.mean[position]
        scaled /= self.deviation[position]
        np.clip(scaled, -SCALED_LIMIT, SCALED_LIMIT, out=scaled)
        scaled[np.isnan(scaled)] = 0.0
        return scaled

    def matrix(self, frame: pl.DataFrame, features: tuple[str, ...]) -> NDArray[np.float32]:
        """Standardised float32 [rows, features]."""
        made = np.empty((frame.height, len(features)), dtype=np.float32)
        for position, name in enumerate(features):
            made[:, position] = self.column(position, feature_column(frame, name))
        return made

    def tensors(self) -> dict[str, Tensor]:
        return dict(zip(_SCALING, (self.lower, self.upper, self.mean, self.deviation), strict=True))

    @classmethod
    def restore(cls, tensors: Mapping[str, Tensor]) -> "Standardizer":
        return cls(*(tensors[name].astype(np.float64) for name in _SCALING))

    @staticmethod
    def layout(features: int) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(_SCALING, (features,))


def _column_scale(values: Floats) -> tuple[float, float, float, float]:
    """(lower, upper, mean, deviation) of one feature; deviation 0 marks one that teaches nothing."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 0.0, 0.0, 0.0
    series = pl.Series(finite)
    lower, upper = (float(series.quantile(at, "linear") or 0.0) for at in WINSOR)
    clipped = np.clip(finite, lower, upper)
    mean, deviation = float(clipped.mean()), float(clipped.std())
    # Below this a spread is rounding error of the mean, not information.
    return lower, upper, mean, deviation if deviation > 1e-9 * abs(mean) else 0.0


def symbol_runs(frame: pl.DataFrame) -> list[tuple[int, int]]:
    """(first, past-the-last) row of each symbol of a sorted panel."""
    if frame.is_empty():
        return []
    lengths = frame["symbol"].rle().struct.field("len").to_numpy().astype(np.int64)
    stops = np.cumsum(lengths)
    return list(zip((stops - lengths).tolist(), stops.tolist(), strict=True))


def training_inputs(
    training: TrainingSet, *, engine: str, module: str, params: msgspec.Struct, seed: int, lineage: Lineage
) -> TrainingInputs:
    """The canonical inputs of an artifact, trained on `training` by the code of `module`."""
    times = training.frame["open_time"].filter(pl.Series(training.usable))
    start, end = times.min(), times.max()
    return TrainingInputs(
        engine=engine,
        features=training.features,
        feature_fingerprint=lineage.feature_fingerprint,
        code_version=source_version(module),
        data_versions=lineage.data_versions,
        label=lineage.label,
        horizon=lineage.horizon,
        split=lineage.split,
        seed=seed,
        params=msgspec.to_builtins(params),
        rows=training.rows,
        start=start.isoformat() if isinstance(start, datetime) else "",
        end=end.isoformat() if isinstance(end, datetime) else "",
    )


def require_scoring(artifact: Artifact, frame: pl.DataFrame, engine: str) -> tuple[str, ...]:
    """The features of `artifact`, once it is of `engine` and `frame` is a sorted panel that has all of them."""
    if artifact.inputs.engine != engine:
        raise InputError(f"This is a {artifact.inputs.engine} model; the engine {engine} cannot score with it.")
    require_panel(frame, "frame to score")
    require_columns(frame, artifact.inputs.features, "frame to score")
    _require_numbers(frame, artifact.inputs.features)
    return artifact.inputs.features


def require_layout(artifact: Artifact, layout: Mapping[str, tuple[int, ...]]) -> None:
    """IntegrityError unless the tensors of `artifact` have exactly the names and shapes that its engine computes with."""
    found = {name: tensor.shape for name, tensor in artifact.tensors.items()}
    if found != dict(layout):
        raise IntegrityError(f"The weights of {artifact.model_id} do not have the shapes of its engine. Train it again.")


def predictions(frame: pl.DataFrame, values: Floats, features: tuple[str, ...], start: datetime | None) -> pl.DataFrame:
    """The answer of `predict`: `values` of the rows of `frame`, null where unknown, from `start` on."""
    made = pl.Series("prediction", values, dtype=pl.Float64)
    scored = frame.select("symbol", "open_time", pl.when(known(features) & made.is_finite()).then(made).alias("prediction"))
    return scored if start is None else scored.filter(pl.col("open_time") >= start)


def from_start(frame: pl.DataFrame, start: datetime | None) -> pl.DataFrame:
    """Rows that an engine without history has to look at."""
    return frame if start is None else frame.filter(pl.col("open_time") >= start)


def _require_numbers(frame: pl.DataFrame, columns: Iterable[str]) -> None:
    schema = frame.schema
    wrong = [name for name in columns if not (schema[name].is_numeric() or schema[name] == pl.Null)]
    if wrong:
        raise InputError(f"The column(s) {', '.join(wrong[:8])} do not hold numbers. Features and labels must be numeric.")


def distinct(symbols: Sequence[str]) -> tuple[str, ...]:
    """The symbols of a stream; InputError unless there is one at least, and each only once."""
    if not symbols or len(set(symbols)) != len(symbols):
        raise InputError("A stream needs at least one symbol, and each only once.")
    return tuple(symbols)


def require_shape(values: Floats, shape: tuple[int, int]) -> None:
    """InputError unless `values` has the [symbols, features] of its stream."""
    if values.shape != shape:
        raise InputError(f"The stream expects features of shape {shape}, not {values.shape}.")
