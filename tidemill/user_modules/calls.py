"""The calls by which a user's module declares what it has, beside `feature(…)`. They take notes; the loader acts on them.

    features(function, lookback=20)         function(bars) → frame; by_tail=20 instead: at each bar of the last 20 alone
    label("my_label", function, horizon=5)  function(bars) → one value a bar
    engine("my_engine", fit, predict)       fit(training, features=…) → arrays; predict(arrays, frame) → one number a row;
                                            by_tail=20: of the last 20 rows of a symbol alone
    strategy("my_strategy", weigh)          weigh(predictions) → symbol, open_time, weight
    data("sectors.csv")                     a polars frame: what stands in a file beside the module

Parameters of an engine are the keyword parameters of `fit` that have a default, those of a strategy the ones of `weigh`; an
experiment may override them. A plain function named `features` needs no call.
"""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tidemill.domain.errors import InputError
from tidemill.user_modules.data import read

if TYPE_CHECKING:
    import polars as pl

Kind = Literal["features", "label", "engine", "strategy"]
_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
_LONGEST = 5_000


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """One call: what it names, the functions given, and the line of the file on which the statement stands.

    save, load: of an engine, from what `fit` answers to what is stored and back.
    """

    kind: Kind
    name: str
    line: int
    function: Callable[..., Any]
    second: Callable[..., Any] | None = None
    save: Callable[[Any], Any] | None = None
    load: Callable[[Any], Any] | None = None
    options: dict[str, Any] = {}


class Calls:
    """The calls of one file, in order. data: the data files that it names → their digests."""

    def __init__(self, file: Path, data: Mapping[str, str]) -> None:
        self._file, self._data = file, data
        self.made: list[Declared] = []

    def features(
        self,
        function: Callable[..., Any],
        *,
        lookback: int | None = None,
        by_tail: int | None = None,
        columns: Sequence[str] = (),
        unit: str = "",
        about: str = "",
    ) -> Callable[..., Any]:
        """Features by arbitrary code. function: adjusted bars of all symbols, sorted by symbol and open_time → a frame with
        `symbol`, `open_time` and one column a feature, or one row for each bar in their order.

        lookback: own bars that a value reads, the current one included; without it the whole history is computed each time.
        by_tail: instead of it, where a session is to step the function: at each bar time it is given the last so many bars of
        every symbol, with NaN for what is unknown, and its rows of that time count. So research has the bits of a session.
        columns: names of the features; without them the function is tried on made-up bars to learn them.
        """
        name = getattr(function, "__name__", "features")
        if lookback is not None and by_tail is not None:
            raise InputError(f"{name!r} has a look-back and a tail. Give one of lookback and by_tail.")
        _require_bars(lookback, "look-back")
        _require_bars(by_tail, "tail")
        told = {} if by_tail is None else {"by_tail": True}
        options = {"lookback": by_tail or lookback, "columns": tuple(columns), "unit": unit, "about": about, **told}
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
        save: Callable[[Any], Any] | None = None,
        load: Callable[[Any], Any] | None = None,
        about: str = "",
        history: int | None = None,
        by_tail: int | None = None,
        needs: Sequence[str] = (),
    ) -> None:
        """An engine. fit(training, *, features, seed, **parameters) → dict of numbers and arrays; training: symbol, open_time,
        the features and `label`, rows with a label only. predict(arrays, frame, *, features) → one number a row of frame.

        save, load: for a `fit` that answers anything else, such as an estimator of sklearn. save(model) → a dict of numbers and
        arrays, bytes or a text, which is what is stored; load(stored) → what `predict` gets. Arrays come back as float64.

        `features` and `seed` are given where the function names them. What is unknown is NaN in a frame of `predict`. history:
        earlier rows of a symbol that a prediction reads. by_tail: instead of it, where a session is to step the engine: at each
        time `predict` is given the last so many rows of every symbol that has one then, and its numbers of that time count.
        needs: features without which the engine cannot work.
        """
        if history is not None and by_tail is not None:
            raise InputError(f"The engine {name!r} has a history and a tail. Give one of history and by_tail.")
        _require_bars(by_tail, "tail")
        history = 0 if history is None else history
        if not _whole(history) or not 0 <= history <= _LONGEST:
            raise InputError(f"A history of {history!r} rows is not possible. Use a whole number from 0 to {_LONGEST}.")
        if (save is None) != (load is None):
            raise InputError(f"The engine {name!r} has one of save and load. Give both, or none.")
        for function in (predict, save or predict, load or predict):
            _require_callable(function, name)
        told = {} if by_tail is None else {"by_tail": by_tail}
        options = {"about": about, "history": history, "needs": tuple(needs), **told}
        self._note("engine", name, fit, second=predict, save=save, load=load, options=options)

    def strategy(
        self,
        name: str,
        weigh: Callable[..., Any],
        *,
        needs: Literal["predictions", "bars"] = "predictions",
        resize: bool = True,
        by_tail: int | None = None,
        about: str = "",
    ) -> Callable[..., Any]:
        """A strategy. weigh(frame, **parameters) → symbol, open_time, weight: the share of equity wanted from the next open on.

        needs: what the frame holds, `predictions` (symbol, open_time, prediction; where coins and stocks are mixed, a stock's
        newest one stands while its market is closed) or adjusted `bars`. A parameter named
        `instruments` is given what each symbol may do. resize: whether a target may trim or add to a position. by_tail: where a
        session is to step it: at each time it is given the predictions of the last so many times at which there were any, and
        its rows of that time count; it sees no `instruments` then.
        """
        _require_bars(by_tail, "tail")
        if by_tail is not None and needs != "predictions":
            raise InputError(f"The strategy {name!r} needs bars, of which no tail is given yet. Leave by_tail out.")
        if needs not in ("predictions", "bars"):
            raise InputError(f"A strategy needs 'predictions' or 'bars', not {needs!r}.")
        told = {} if by_tail is None else {"by_tail": by_tail}
        return self._note("strategy", name, weigh, options={"needs": needs, "resize": resize, "about": about, **told})

    def data(self, name: str) -> "pl.DataFrame":
        """The frame in a file: .csv, .parquet or .arrow, of up to 64 MiB. name: its path, relative to the module's file.

        What stands in it is part of the fingerprint of everything whose statements name it.
        """
        if name not in self._data:
            raise InputError(f'data({name!r}) is not known. Write the path itself into the call, as in data("sectors.csv").')
        return read(name, self._file, self._data[name])

    def _note(
        self,
        kind: Kind,
        name: str,
        function: Callable[..., Any],
        *,
        options: dict[str, Any],
        second: Callable[..., Any] | None = None,
        save: Callable[[Any], Any] | None = None,
        load: Callable[[Any], Any] | None = None,
    ) -> Callable[..., Any]:
        if kind != "features" and (not isinstance(name, str) or _NAME.fullmatch(name) is None):
            raise InputError(f"{name!r} cannot name a {kind}. Use small letters, digits and _, and begin with a letter.")
        _require_callable(function, name)
        if any((one.kind, one.name) == (kind, name) for one in self.made):
            raise InputError(f"The {kind} {name!r} is declared twice. Keep one of them.")
        line = self._line()
        self.made.append(
            Declared(kind=kind, name=name, line=line, function=function, second=second, save=save, load=load, options=options)
        )
        return function

    def _line(self) -> int:
        """Line of the file's top-level statement that is being executed."""
        frame = sys._getframe(1)
        while frame.f_back is not None and (frame.f_code.co_name != "<module>" or frame.f_code.co_filename != str(self._file)):
            frame = frame.f_back
        return frame.f_lineno


def _whole(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)


def _require_bars(count: int | None, what: str) -> None:
    if count is not None and not (_whole(count) and 1 <= count <= _LONGEST):
        raise InputError(f"A {what} of {count!r} bars is not possible. Use a whole number from 1 to {_LONGEST}.")


def _require_callable(function: object, name: str) -> None:
    if not callable(function):
        raise InputError(f"{name!r} is declared with {function!r}, which is not a function. Give one.")
