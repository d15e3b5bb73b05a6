"""The calls by which a user's module declares what it has, beside `feature(…)`. They take notes; the loader acts on them.

    features(function, lookback=20)         function(bars) → frame
    label("my_label", function, horizon=5)  function(bars) → one value a bar
    engine("my_engine", fit, predict)       fit(training, features=…) → arrays; predict(arrays, frame) → one number a row
    strategy("my_strategy", weigh)          weigh(predictions) → symbol, open_time, weight

Parameters of an engine are the keyword parameters of `fit` that have a default, those of a strategy the ones of `weigh`; an
experiment may override them. A plain function named `features` needs no call.
"""

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from tidemill.domain.errors import InputError

Kind = Literal["features", "label", "engine", "strategy"]
_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
_LONGEST = 5_000


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """One call: what it names, the functions given, and the line of the file on which the statement stands."""

    kind: Kind
    name: str
    line: int
    function: Callable[..., Any]
    second: Callable[..., Any] | None = None
    options: dict[str, Any] = {}


class Calls:
    """The calls of one file, in order."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.made: list[Declared] = []

    def features(
        self,
        function: Callable[..., Any],
        *,
        lookback: int | None = None,
        columns: Sequence[str] = (),
        unit: str = "",
        about: str = "",
    ) -> Callable[..., Any]:
        """Features by arbitrary code. function: adjusted bars of all symbols, sorted by symbol and open_time → a frame with
        `symbol`, `open_time` and one column a feature, or one row for each bar in their order.

        lookback: own bars that a value reads, the current one included; without it the whole history is computed each time.
        columns: names of the features; without them the function is tried on made-up bars to learn them.
        """
        if lookback is not None and not (_whole(lookback) and 1 <= lookback <= _LONGEST):
            raise InputError(f"A look-back of {lookback!r} bars is not possible. Use a whole number from 1 to {_LONGEST}.")
        name = getattr(function, "__name__", "features")
        options = {"lookback": lookback, "columns": tuple(columns), "unit": unit, "about": about}
        return self._note("features", name.strip("<>"), function, options=options)

    def label(self, name: str, function: Callable[..., Any], horizon: int, *, about: str = "") -> Callable[..., Any]:
        """A label. function: adjusted bars, sorted → one value a bar, in their order; null or NaN where there is none.

        horizon: own bars from the next open on. The value of bar t may read bars up to t + horizon and the open of bar
        t + 1 + horizon, at which it is known.
        """
        if not _whole(horizon) or not 1 <= horizon <= _LONGEST:
            raise InputError(f"A horizon of {horizon!r} bars is not possible. Use a whole number from 1 to {_LONGEST}.")
        return self._note("label", name, function, options={"horizon": horizon, "about": about})

    def engine(
        self,
        name: str,
        fit: Callable[..., Any],
        predict: Callable[..., Any],
        *,
        about: str = "",
        history: int = 0,
        needs: Sequence[str] = (),
    ) -> None:
        """An engine. fit(training, *, features, seed, **parameters) → dict of numbers and arrays; training: symbol, open_time,
        the features and `label`, rows with a label only. predict(arrays, frame, *, features) → one number a row of frame.

        `features` and `seed` are given where the function names them. history: earlier rows of a symbol that a prediction
        reads. needs: features without which the engine cannot work.
        """
        if not _whole(history) or not 0 <= history <= _LONGEST:
            raise InputError(f"A history of {history!r} rows is not possible. Use a whole number from 0 to {_LONGEST}.")
        _require_callable(predict, name)
        self._note("engine", name, fit, predict, {"about": about, "history": history, "needs": tuple(needs)})

    def strategy(
        self,
        name: str,
        weigh: Callable[..., Any],
        *,
        needs: Literal["predictions", "bars"] = "predictions",
        resize: bool = True,
        about: str = "",
    ) -> Callable[..., Any]:
        """A strategy. weigh(frame, **parameters) → symbol, open_time, weight: the share of equity wanted from the next open on.

        needs: what the frame holds, `predictions` (symbol, open_time, prediction; where coins and stocks are mixed, a stock's
        newest one stands while its market is closed) or adjusted `bars`. A parameter named
        `instruments` is given what each symbol may do. resize: whether a target may trim or add to a position.
        """
        if needs not in ("predictions", "bars"):
            raise InputError(f"A strategy needs 'predictions' or 'bars', not {needs!r}.")
        return self._note("strategy", name, weigh, options={"needs": needs, "resize": resize, "about": about})

    def _note(
        self,
        kind: Kind,
        name: str,
        function: Callable[..., Any],
        second: Callable[..., Any] | None = None,
        options: dict[str, Any] | None = None,
    ) -> Callable[..., Any]:
        if kind != "features" and (not isinstance(name, str) or _NAME.fullmatch(name) is None):
            raise InputError(f"{name!r} cannot name a {kind}. Use small letters, digits and _, and begin with a letter.")
        _require_callable(function, name)
        if any((one.kind, one.name) == (kind, name) for one in self.made):
            raise InputError(f"The {kind} {name!r} is declared twice. Keep one of them.")
        made = Declared(kind=kind, name=name, line=self._line(), function=function, second=second, options=options or {})
        self.made.append(made)
        return function

    def _line(self) -> int:
        """Line of the file's top-level statement that is being executed."""
        frame = sys._getframe(1)
        while frame.f_back is not None and (frame.f_code.co_name != "<module>" or frame.f_code.co_filename != self._file):
            frame = frame.f_back
        return frame.f_lineno


def _whole(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)


def _require_callable(function: object, name: str) -> None:
    if not callable(function):
        raise InputError(f"{name!r} is declared with {function!r}, which is not a function. Give one.")
