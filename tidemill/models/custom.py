"""An engine made of two functions of a user's module: `fit` gives numbers and arrays, `predict` turns them into predictions.

Whoever makes one decides where the functions run: those of a module run in a process of their own that can be stopped.
"""

from collections.abc import Callable, Mapping
from copy import copy
from datetime import datetime
from typing import Any, Self

import msgspec
import numpy as np
import polars as pl

from tidemill.domain.errors import FunctionError, InputError, TidemillError
from tidemill.domain.parameters import accepted, parameters_of
from tidemill.models.artifact import Artifact, Tensor, make
from tidemill.models.base import (
    NO_LINEAGE,
    EngineInfo,
    Floats,
    Lineage,
    decoded,
    from_start,
    predictions,
    require_scoring,
    training_inputs,
    training_set,
)
from tidemill.provenance import fingerprint

# Owner, newest → a function.
Beginning = Callable[[object | None, int], Callable[..., Any]]
# Before a fit on more rows than `_LONG`, one on so many rows of so many symbols shows whether its answer can be stored.
_FEW_SYMBOLS, _FEW_ROWS, _LONG = 5, 200, 2_000


class CustomEngine:
    """See `Calls.engine` of tidemill.user_modules.calls. source: hash of the code that decides the predictions.

    begin: owner, newest → `predict` in a process that lives as long as the owner (None: in one for each call), asked for so
    many of the newest times where it goes by its tail (0: of all); without `begin` a call is one of this process. by_tail: rows
    of a symbol that it is given at each time, 0: all at once; its answer is a frame then: symbol, open_time, prediction.
    """

    # What its functions are mostly made of.
    libraries = ("pandas", "scipy", "scikit-learn")

    def __init__(
        self,
        name: str,
        fit: Callable[..., Any],
        predict: Callable[..., Any],
        *,
        source: str,
        begin: Beginning | None = None,
        about: str = "",
        history: int = 0,
        by_tail: int = 0,
        needs: tuple[str, ...] = (),
    ) -> None:
        self._params = parameters_of(fit, name, ("features", "seed"))
        self._fit, self._predict, self.source, self._begin = fit, predict, source, begin
        self.by_tail = by_tail
        self._owner: object | None = None
        self._tried: set[str] = set()
        self.info = EngineInfo(
            name=name,
            kind="custom",
            about=about or (fit.__doc__ or "").strip().partition("\n")[0].rstrip(".") or "an engine of a user's module",
            history=max(by_tail - 1, 0) or history,
            needs=(needs,) if needs else (),
            params=self._params,
        )

    def fit(
        self,
        training: pl.DataFrame,
        *,
        features: tuple[str, ...],
        params: Mapping[str, Any],
        seed: int,
        lineage: Lineage = NO_LINEAGE,
    ) -> Artifact:
        missing = [name for need in self.info.needs for name in need if name not in features]
        if missing:
            raise InputError(
                f"The engine {self.info.name} needs the feature {missing[0]}. Add it to features.names of the experiment."
            )
        chosen = decoded(self._params, params, self.info.name)
        data = training_set(training, features)
        rows = training.filter(pl.Series(data.usable)).select("symbol", "open_time", *features, "label")
        offered = {"features": features, "seed": seed, **msgspec.to_builtins(chosen)}
        self._try(rows, features, offered)
        answer = self._fitted(rows, offered)
        made = training_inputs(data, engine=self.info.name, module=__name__, params=chosen, seed=seed, lineage=lineage)
        inputs = msgspec.structs.replace(made, code_version=f"{made.code_version}.{self.source}")
        return make(inputs, tensors=self._tensors(answer))

    def _try(self, rows: pl.DataFrame, features: tuple[str, ...], offered: dict[str, Any]) -> None:
        """Once for each set of parameters, before a long fit: a short one, whose answer must be stored and must predict.

        A fit that fails on a few rows may do well on all of them; that is no reason to refuse it.
        """
        key = fingerprint(offered)
        if rows.height <= _LONG or key in self._tried:
            return
        few = _few(rows)
        params = {name: value for name, value in offered.items() if name not in ("features", "seed")}
        try:
            answer = self._fitted(few, offered)
        except FunctionError:
            pass
        else:
            last = few["open_time"].max() if self.by_tail else None
            self._scored(self._tensors(answer), few.drop("label"), features, params, last)
        self._tried.add(key)

    def predict(self, artifact: Artifact, frame: pl.DataFrame, *, start: datetime | None = None) -> pl.DataFrame:
        features = require_scoring(artifact, frame, self.info.name)
        rows = frame if self.info.history else from_start(frame, start)
        numbers = self._scored(artifact.tensors, rows, features, artifact.inputs.params, start)
        return predictions(rows, numbers, features, start)

    def begun(self, owner: object) -> Self:
        """The same engine, which scores in one process as long as `owner` lives."""
        if self._begin is None:
            return self
        made = copy(self)
        made._owner, made._predict = owner, self._begin(owner, 0)
        return made

    def _fitted(self, rows: pl.DataFrame, offered: dict[str, Any]) -> Any:
        return self._called(self._fit, rows, what="fit", **accepted(self._fit, offered, 1))

    def _scored(
        self,
        tensors: Mapping[str, Tensor],
        rows: pl.DataFrame,
        features: tuple[str, ...],
        params: Mapping[str, Any],
        start: Any = None,
    ) -> Floats:
        """A number for each row; by its tail NaN before `start`. It is given NaN for what is unknown, as in steps."""
        known = (pl.col(name).cast(pl.Float64).fill_null(float("nan")) for name in features)
        given, predict = rows.select("symbol", "open_time", *known), self._predict
        if self.by_tail and self._begin is not None and rows.height:
            predict = self._begin(self._owner, from_start(rows, start)["open_time"].n_unique())
        offered = accepted(self._predict, {"features": features, **params}, 2)
        answer = self._called(predict, dict(tensors), given, what="predict", **offered)
        return self._numbers(self._in_order(answer, given) if self.by_tail else answer, rows.height)

    def _in_order(self, answer: object, rows: pl.DataFrame) -> pl.Series:
        """What it says by its tail, a number for each of `rows`."""
        if not isinstance(answer, pl.DataFrame):
            raise InputError(f"predict of the engine {self.info.name} must answer one number a row of what it is given.")
        keys = rows.select("symbol", "open_time")
        found = keys.join(answer, on=("symbol", "open_time"), how="left", maintain_order="left")
        return found["prediction"].fill_null(float("nan"))

    def _called(self, function: Callable[..., Any], *args: Any, what: str, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TidemillError:
            raise
        except Exception as exc:  # a user's code may raise anything
            said = " ".join(str(exc).split())[:300].rstrip(".")
            raise FunctionError(f"{what} of the engine {self.info.name} failed: {type(exc).__name__}: {said}.") from exc

    def _tensors(self, answer: object) -> dict[str, Tensor]:
        if not isinstance(answer, Mapping) or not answer or not all(isinstance(name, str) for name in answer):
            raise InputError(
                f"fit of the engine {self.info.name} must return a dict of names to numbers or arrays. For any other model "
                f"give engine({self.info.name!r}, fit, predict, save=…, load=…), which turn it into one and back."
            )
        try:
            return {name: np.atleast_1d(np.asarray(value, dtype=np.float64)) for name, value in answer.items()}
        except (TypeError, ValueError) as exc:
            raise InputError(
                f"fit of the engine {self.info.name} returned something other than numbers or arrays of numbers. Leave it "
                "out of the dict, or turn it into numbers."
            ) from exc

    def _numbers(self, answer: object, rows: int) -> Floats:
        try:
            numbers = np.asarray(answer, dtype=np.float64).reshape(-1)
        except (TypeError, ValueError) as exc:
            raise InputError(
                f"predict of the engine {self.info.name} returned something that is not a number. It must return one number a "
                "row, NaN where it predicts nothing."
            ) from exc
        if numbers.size != rows:
            raise InputError(
                f"predict of the engine {self.info.name} returned {numbers.size:,} predictions for {rows:,} rows. It must "
                "return one a row, in the order of the rows, NaN where it predicts nothing."
            )
        return numbers


def _few(rows: pl.DataFrame) -> pl.DataFrame:
    """The last rows of the first symbols, in their order."""
    symbols = rows["symbol"].unique(maintain_order=True).head(_FEW_SYMBOLS)
    some = rows.filter(pl.col("symbol").is_in(symbols.implode()))
    return some.group_by("symbol", maintain_order=True).tail(_FEW_ROWS)
