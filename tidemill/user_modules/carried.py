"""A function of a notebook as bytes and back, with all that it refers to: what a fresh process needs to have the same one.

Its code goes as the interpreter's own byte code, from a process to its child and nowhere else; what it refers to goes by kind:
modules and what can be imported by name, functions as it goes itself, plain values, texts, expressions, arrays, frames. Never a
pickle: what is none of these is said, and nobody guesses.

A list or dict that holds frames or arrays is not carried either: it may be what an earlier call left behind.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import io
import marshal  # nosec B302  # between this process and its own child
import sys
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any

import msgspec
import numpy as np
import polars as pl

from tidemill.domain.errors import InputError

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
# Marks a function in a serialized expression.
_CALLS_PYTHON = b"AnonymousFunction"
_DATA = (pl.DataFrame, pl.Series, np.ndarray)


class NotCarriedError(InputError):
    """What a function refers to cannot go to a fresh process."""


class Thing(msgspec.Struct, frozen=True):
    """A value by kind. data: its bytes. parts: numbers of further things. names: of parts, or of what is imported."""

    kind: str
    data: bytes = b""
    parts: tuple[int, ...] = ()
    names: tuple[str, ...] = ()


class Carried(msgspec.Struct, frozen=True):
    """things: the function is the first. paths: where modules are found. modules: all that are referred to by name."""

    things: tuple[Thing, ...]
    paths: tuple[str, ...]

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(thing.names[0] for thing in self.things if thing.kind in ("module", "imported")))


def carried(function: Callable[..., Any]) -> Carried:
    """The function as it is now. Raises NotCarriedError, naming what cannot go."""
    packing = _Packing()
    packing.add(function, getattr(function, "__name__", "the function"))
    return Carried(tuple(packing.things), tuple(sys.path))


def rebuilt(given: Carried) -> Callable[..., Any]:
    """The function again, with values of its own."""
    return _Unpacking(given.things).made(0)  # type: ignore[no-any-return]  # the first thing is a function


class _Packing:
    def __init__(self) -> None:
        self.things: list[Thing] = []
        self._numbers: dict[int, int] = {}
        self._kept: list[object] = []  # so that no id is given twice

    def add(self, value: Any, where: str, *, inside: bool = False) -> int:
        """Number of a value among the things. where: what refers to it. inside: whether a list or dict holds it."""
        if id(value) in self._numbers:
            return self._numbers[id(value)]
        if inside and isinstance(value, _DATA):
            raise NotCarriedError(f"{where} holds a {type(value).__name__}, which an earlier call may have left behind")
        number = self._numbers[id(value)] = len(self.things)
        self._kept.append(value)
        self.things.append(Thing("plain"))
        self.things[number] = self._thing(value, where)
        return number

    def _thing(self, value: Any, where: str) -> Thing:
        if type(value) in _PLAIN:
            return Thing("plain", marshal.dumps(value))
        if isinstance(value, ModuleType):
            return Thing("module", names=(value.__name__,))
        found = _imported(value)
        if found is not None:
            return Thing("imported", names=found)
        if isinstance(value, FunctionType):
            return self._function(value, where)
        if type(value) is dict:
            return self._dict(value, where)
        if type(value) in (list, tuple, set, frozenset):
            return self._sequence(value, where)
        return self._special(value, where)

    def _special(self, value: Any, where: str) -> Thing:
        if isinstance(value, functools.partial):
            parts = [self.add(one, where) for one in (value.func, value.args, value.keywords)]
            return Thing("partial", parts=tuple(parts))
        if isinstance(value, functools._lru_cache_wrapper):  # without what it remembers
            return Thing("same", parts=(self.add(value.__wrapped__, where),))
        if isinstance(value, datetime | date | timedelta):
            return Thing("time", names=(type(value).__name__, _text(value)))
        return _data(value, where)

    def _dict(self, value: dict[Any, Any], where: str) -> Thing:
        parts = [self.add(one, where, inside=True) for pair in value.items() for one in pair]
        return Thing("dict", parts=tuple(parts))

    def _sequence(self, value: Any, where: str) -> Thing:
        mutable = not isinstance(value, tuple)
        return Thing(type(value).__name__, parts=tuple(self.add(one, where, inside=mutable) for one in value))

    def _function(self, function: FunctionType, where: str) -> Thing:
        closure = _cells(function)
        names = [name for name in _names(function.__code__) if name in function.__globals__]
        named = [*closure.items(), *((name, function.__globals__[name]) for name in names)]
        own = (function.__defaults__, function.__kwdefaults__, dict(function.__dict__))
        parts = [self.add(one, f"{where}: its defaults or attributes") for one in own]
        parts += [self.add(value, f"{where}: {name!r}") for name, value in named]
        code = marshal.dumps(function.__code__)
        return Thing("function", code, tuple(parts), (function.__name__, str(len(closure)), *(name for name, _ in named)))


def _text(value: datetime | date | timedelta) -> str:
    return str(value // timedelta(microseconds=1)) if isinstance(value, timedelta) else value.isoformat()


def _imported(value: Any) -> tuple[str, str] | None:
    """Module and name under which a fresh process imports this very object."""
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if isinstance(value, BuiltinFunctionType) and isinstance(value.__self__, ModuleType):
        module = value.__self__.__name__
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__" or not callable(value):
        return _of_a_library(value)
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return (module, name) if found is value else _of_a_library(value)


def _of_a_library(value: Any) -> tuple[str, str] | None:
    """Of an object that knows no name of its own, as `polars.col`: the one under which its package has it."""
    package = type(value).__module__.partition(".")[0]
    names = vars(sys.modules[package]).items() if package not in ("builtins", "__main__") and package in sys.modules else ()
    return next(((package, name) for name, known in names if known is value), None)


def _cells(function: FunctionType) -> dict[str, Any]:
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError as exc:
            raise NotCarriedError(f"{function.__name__} refers to {name!r}, which has no value yet") from exc
    return found


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)


def _data(value: Any, where: str) -> Thing:
    buffer = io.BytesIO()
    if isinstance(value, pl.Expr):
        return Thing("expression", _expression(value, where))
    if isinstance(value, pl.DataFrame):
        value.write_ipc_stream(buffer)
        return Thing("frame", buffer.getvalue())
    if isinstance(value, pl.Series):
        value.to_frame().write_ipc_stream(buffer)
        return Thing("series", buffer.getvalue())
    if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        np.save(buffer, np.asarray(value), allow_pickle=False)
        return Thing("array" if isinstance(value, np.ndarray) else "number", buffer.getvalue())
    raise NotCarriedError(f"{where} is a {type(value).__name__}, which cannot go to a fresh process")


def _expression(value: pl.Expr, where: str) -> bytes:
    made = value.meta.serialize()
    if _CALLS_PYTHON in made:  # polars would pickle the function
        raise NotCarriedError(f"{where} is an expression that calls a function of Python")
    return made


class _Unpacking:
    def __init__(self, things: tuple[Thing, ...]) -> None:
        self._things = things
        self._made: dict[int, Any] = {}

    def made(self, number: int) -> Any:
        if number not in self._made:
            thing = self._things[number]
            if thing.kind == "function":
                return self._function(number, thing)
            self._made[number] = _MADE[thing.kind](thing, [self.made(part) for part in thing.parts])
        return self._made[number]

    def _function(self, number: int, thing: Thing) -> FunctionType:
        name, count, names = thing.names[0], int(thing.names[1]), thing.names[2:]
        space: dict[str, Any] = {"__builtins__": builtins, "__name__": "notebook"}
        cells = tuple(CellType() for _ in range(count))
        made = FunctionType(marshal.loads(thing.data), space, name, None, cells)  # nosec B302  # of this program's own parent
        self._made[number] = made  # before its parts, which may refer to it
        made.__defaults__, made.__kwdefaults__ = self.made(thing.parts[0]), self.made(thing.parts[1])
        made.__dict__.update(self.made(thing.parts[2]))
        values = [self.made(part) for part in thing.parts[3:]]
        for cell, value in zip(cells, values, strict=False):
            cell.cell_contents = value
        space.update(zip(names[count:], values[count:], strict=True))
        return made


def _import(thing: Thing, _: list[Any]) -> Any:
    found: Any = importlib.import_module(thing.names[0])
    for part in thing.names[1].split(".") if thing.kind == "imported" else ():
        found = getattr(found, part)
    return found


def _moment(thing: Thing, _: list[Any]) -> Any:
    kind, text = thing.names
    if kind == "timedelta":
        return timedelta(microseconds=int(text))
    return (datetime if kind == "datetime" else date).fromisoformat(text)


_MADE: dict[str, Callable[[Thing, list[Any]], Any]] = {
    "plain": lambda thing, _: marshal.loads(thing.data),  # nosec B302  # of this program's own parent
    "module": _import,
    "imported": _import,
    "time": _moment,
    "same": lambda _, parts: parts[0],
    "partial": lambda _, parts: functools.partial(parts[0], *parts[1], **parts[2]),
    "dict": lambda _, parts: dict(zip(parts[::2], parts[1::2], strict=True)),
    "list": lambda _, parts: parts,
    "tuple": lambda _, parts: tuple(parts),
    "set": lambda _, parts: set(parts),
    "frozenset": lambda _, parts: frozenset(parts),
    "expression": lambda thing, _: pl.Expr.deserialize(io.BytesIO(thing.data)),
    "frame": lambda thing, _: pl.read_ipc_stream(io.BytesIO(thing.data)),
    "series": lambda thing, _: pl.read_ipc_stream(io.BytesIO(thing.data)).to_series(),
    "array": lambda thing, _: np.load(io.BytesIO(thing.data), allow_pickle=False),
    "number": lambda thing, _: np.load(io.BytesIO(thing.data), allow_pickle=False)[()],
}
