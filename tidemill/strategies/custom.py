"""A strategy made of a user's function; one of a module runs in a process of its own that can be stopped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tidemill.domain.errors import InputError, TidemillError
from tidemill.domain.market import Instrument
from tidemill.domain.parameters import accepted, parameters_of
from tidemill.strategies.base import Strategy

if TYPE_CHECKING:
    import polars as pl

# What the function may name beside its parameters.
GIVEN = ("instruments", "bars")
_COLUMNS = ("symbol", "open_time", "weight")


def custom_strategy(
    name: str,
    weigh: Callable[..., Any],
    *,
    needs: Literal["predictions", "bars", "both"] = "predictions",
    resize: bool = True,
    about: str = "",
    source: str = "",
) -> Strategy:
    """See `Calls.strategy` of tidemill.user_modules.calls. source: hash of the code that decides the weights."""

    def weights(
        frame: pl.DataFrame, params: Any, instruments: Mapping[str, Instrument], bars: pl.DataFrame | None = None
    ) -> pl.DataFrame:
        offered = {"instruments": instruments, "bars": bars, **msgspec.to_builtins(params)}
        checked = asked_of(name, weigh, frame, accepted(weigh, offered, 1))
        return _a_row_each(checked, frame) if needs == "bars" else checked

    return Strategy(
        name=name,
        about=about or about_of(weigh),
        needs=needs,
        params=parameters_of(weigh, name, GIVEN),
        weigh=weights,
        resize=resize,
        source=source,
    )


def asked_of(name: str, weigh: Callable[..., Any], frame: pl.DataFrame, named: Mapping[str, Any]) -> pl.DataFrame:
    """What a user's function asks for, by time and symbol. InputError when it fails, or answers what is not asked for."""
    try:
        answer = weigh(frame, **named)
    except TidemillError:
        raise
    except Exception as exc:  # a user's code may raise anything
        said = " ".join(str(exc).split())[:300].rstrip(".")
        raise InputError(f"The strategy {name} failed: {type(exc).__name__}: {said}.") from exc
    return _checked(answer, frame, name)


def about_of(weigh: Callable[..., Any]) -> str:
    """The first line of what a function says of itself."""
    return (weigh.__doc__ or "").strip().partition("\n")[0] or "A strategy of a user's module."


def _checked(answer: object, frame: pl.DataFrame, name: str) -> pl.DataFrame:
    import polars as pl

    if not isinstance(answer, pl.DataFrame) or any(column not in answer.columns for column in _COLUMNS):
        raise InputError(f"The strategy {name} must return a polars frame of symbol, open_time and weight.")
    try:
        made = answer.select("symbol", pl.col("open_time").cast(frame.schema["open_time"]), pl.col("weight").cast(pl.Float64))
    except pl.exceptions.PolarsError as exc:
        raise InputError(f"The strategy {name} returns times that are not times, or weights that are not numbers.") from exc
    made = made.with_columns(pl.col("weight").fill_nan(None)).sort("open_time", "symbol")
    if made.select("symbol", "open_time").is_duplicated().any():
        raise InputError(f"The strategy {name} returns two weights for one bar of a symbol. Return one.")
    if made["weight"].is_infinite().any():
        raise InputError(f"The strategy {name} returns an infinite weight. Weights are shares of equity, such as 0.1.")
    if made.join(frame, on=("symbol", "open_time"), how="anti").height:
        raise InputError(
            f"The strategy {name} returns a weight for a bar that it was not given. Return weights for given bars only."
        )
    return made


def _a_row_each(weights: pl.DataFrame, bars: pl.DataFrame) -> pl.DataFrame:
    return bars.select("symbol", "open_time").join(weights, on=("symbol", "open_time"), how="left", maintain_order="left")
