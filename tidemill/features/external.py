"""Features that a function of a user's module computes, as they stand in a set: columns beside those of the kernels.

Nothing here knows how the function is run; `Function.run` takes adjusted bars and answers a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from tidemill.features.expression import Expression

if TYPE_CHECKING:
    import polars as pl


Run = Callable[["pl.DataFrame"], "pl.DataFrame"]


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """A function of a module.

    columns: what it answers. lookback: own bars that a value reads, the current one included; None: all of them.
    source: hash of the code that decides the values. run: bars, sorted by symbol and time → `symbol, open_time` and the
    columns, one row for each bar and in their order; TidemillError when it fails. by_tail: whether each value is computed from
    the last `lookback` bars of every symbol and nothing else. begin: what runs it bar after bar, in a process that lives as
    long as the object that is given: such a tail → the rows of its newest time.
    """

    name: str
    origin: str
    source: str
    columns: tuple[str, ...]
    lookback: int | None
    run: Run
    by_tail: bool = False
    begin: Callable[[object], Run] | None = None


class External(Expression):
    """One column of a function, where an expression would stand. The kernels never see it."""

    function: Function
    column: str

    def __init__(self, function: Function, column: str) -> None:
        super().__init__("external")
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "column", column)

    @cached_property
    def key(self) -> str:
        """Name, column, look-back and source: equal keys give equal values."""
        tail = ",tail" if self.function.by_tail else ""
        return f"external({self.function.name}.{self.column},{self.function.lookback},{self.function.source}{tail})"

    @cached_property
    def lookback(self) -> int:
        """Own bars that the value reads as declared, the current one included; 1 where nothing was declared."""
        return self.function.lookback or 1

    @cached_property
    def recursive(self) -> bool:
        """Without a declared look-back the value may depend on all of the history."""
        return self.function.lookback is None

    def __str__(self) -> str:
        return f"{self.function.name}(bars)[{self.column!r}], a function in {self.function.origin}"


def functions_of(expressions: Iterable[Expression]) -> tuple[Function, ...]:
    """The functions behind `expressions`, each once."""
    found = {
        (node.function.origin, node.function.name, node.function.source): node.function
        for node in expressions
        if isinstance(node, External)
    }
    return tuple(found.values())
