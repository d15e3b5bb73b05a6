"""The expression tree of a feature: what it is made of, how it reads, how far back it looks. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TypeAlias

from tidemill.domain.errors import InputError

# One window may hold 20 years of days or two months of hours; beyond it the state of a stream would no longer be small.
MAX_WINDOW = 5_000
COLUMNS = ("open", "high", "low", "close", "volume", "vwap")
# Functions of a bar's open_time, see calendar.py.
CALENDAR = ("day_of_week", "day_of_month", "days_left_in_month", "month", "hour_sine", "hour_cosine")
# What is no bar, joined beforehand as of the time at which it was known (NUMBERS, Time): an index that is the same for all
# symbols, and what a symbol's news said (sentiment.py).
FEAR_GREED = ("fear_greed", "fear_greed_change_7")
SENTIMENT = ("sentiment_mean", "sentiment_count", "sentiment_surprise")
CONTEXT = (*FEAR_GREED, *SENTIMENT)
INPUTS = (*COLUMNS, *CALENDAR, *CONTEXT)

ELEMENTWISE = frozenset({"add", "subtract", "multiply", "divide", "maximum", "minimum", "greater", "greater_equal",
    "not_equal", "where",
                         "absolute", "log", "square_root"})  # fmt: skip
WINDOWED = frozenset({"sum", "mean", "std", "wma", "slope", "rsquare", "resid", "corr", "max", "min", "argmax", "argmin",
    "since_max",
                      "since_min", "rank", "quantile", "mean_deviation"})  # fmt: skip
RECURSIVE = frozenset({"smooth", "adaptive", "cumulative", "sar"})
# Operators of the second stage (stages.py), over what the kernels computed: fitted ones carry state, cross-sectional ones
# read one row of symbols. An expression may begin with a cross-sectional one, then a fitted one; they stand nowhere else.
FITTED = frozenset({"hmm"})
CROSS_SECTIONAL = frozenset({"cs_rank", "cs_zscore"})
_INFIX = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "greater": ">", "greater_equal": "≥", "not_equal": "≠"}

Operand: TypeAlias = "Expression | float | int"


class Expression:
    """One node: an operator, its arguments, and numbers that select its behaviour. Immutable; equal when written alike.

    Arithmetic and order comparisons build new nodes. A comparison is 1.0 or 0.0, and 0.0 where either side is NaN, as in qlib.
    """

    __slots__ = ("__dict__", "arguments", "operator", "parameters")

    operator: str
    arguments: tuple[Expression, ...]
    parameters: tuple[float, ...]

    def __init__(self, operator: str, arguments: tuple[Expression, ...] = (), parameters: tuple[float, ...] = ()) -> None:
        object.__setattr__(self, "operator", operator)
        object.__setattr__(self, "arguments", arguments)
        object.__setattr__(self, "parameters", parameters)

    @cached_property
    def key(self) -> str:
        """Canonical text: two nodes with one key are computed once."""
        parts = [argument.key for argument in self.arguments] + [repr(float(number)) for number in self.parameters]
        return f"{self.operator}({','.join(parts)})"

    @cached_property
    def lookback(self) -> int:
        """Own bars that the value reads, the current one included; of a recursive operator only its finite part."""
        inner = max((argument.lookback for argument in self.arguments), default=1)
        if self.operator in WINDOWED:
            return inner + int(self.parameters[0]) - 1
        return inner + int(self.parameters[0]) if self.operator == "ref" else inner

    @cached_property
    def recursive(self) -> bool:
        """Whether the value depends on all of the history through carried state."""
        return any(node.operator in RECURSIVE or node.operator in FITTED for node in walk(self))

    @cached_property
    def cross_sectional(self) -> bool:
        """Whether the value depends on the other symbols of its bar time."""
        return any(node.operator in CROSS_SECTIONAL for node in walk(self))

    @cached_property
    def inputs(self) -> frozenset[str]:
        """The columns of INPUTS that it reads."""
        return frozenset(INPUTS[int(node.parameters[0])] for node in walk(self) if node.operator == "column")

    @cached_property
    def looks_ahead(self) -> bool:
        """Whether some `ref` reaches into the future."""
        return any(node.operator == "ref" and node.parameters[0] < 0 for node in walk(self))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"an expression cannot be changed ({name})")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Expression) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __bool__(self) -> bool:
        raise InputError("An expression has no truth value. Use where(condition, a, b), and (a > b) * (c > d) for 'and'.")

    def __add__(self, other: Operand) -> Expression:
        return combine("add", self, other)

    def __radd__(self, other: Operand) -> Expression:
        return combine("add", other, self)

    def __sub__(self, other: Operand) -> Expression:
        return combine("subtract", self, other)

    def __rsub__(self, other: Operand) -> Expression:
        return combine("subtract", other, self)

    def __mul__(self, other: Operand) -> Expression:
        return combine("multiply", self, other)

    def __rmul__(self, other: Operand) -> Expression:
        return combine("multiply", other, self)

    def __truediv__(self, other: Operand) -> Expression:
        return combine("divide", self, other)

    def __rtruediv__(self, other: Operand) -> Expression:
        return combine("divide", other, self)

    def __neg__(self) -> Expression:
        return combine("multiply", self, -1.0)

    def __gt__(self, other: Operand) -> Expression:
        return combine("greater", self, other)

    def __lt__(self, other: Operand) -> Expression:
        return combine("greater", other, self)

    def __ge__(self, other: Operand) -> Expression:
        return combine("greater_equal", self, other)

    def __le__(self, other: Operand) -> Expression:
        return combine("greater_equal", other, self)

    def __str__(self) -> str:
        return _render(self, top=True)

    def __repr__(self) -> str:
        return f"Expression({self})"


def as_expression(operand: Operand) -> Expression:
    """A node for `operand`; InputError for anything that is neither an expression nor a finite number."""
    if isinstance(operand, Expression):
        return operand
    if isinstance(operand, bool) or not isinstance(operand, int | float) or operand != operand or abs(operand) == float("inf"):
        raise InputError(f"{operand!r} cannot be part of an expression. Use a column, an operator or a finite number.")
    return Expression("constant", (), (float(operand),))


def combine(operator: str, *operands: Operand) -> Expression:
    """A node of an element-wise operator."""
    return Expression(operator, tuple(as_expression(operand) for operand in operands))


def walk(expression: Expression) -> Iterator[Expression]:
    """Every node once, arguments before what uses them."""
    seen: set[str] = set()
    stack = [(expression, False)]
    while stack:
        node, opened = stack.pop()
        if node.key in seen:
            continue
        if opened:
            seen.add(node.key)
            yield node
            continue
        stack.append((node, True))
        stack.extend((argument, False) for argument in reversed(node.arguments))


def _render(node: Expression, top: bool = False) -> str:
    if node.operator == "column":
        return INPUTS[int(node.parameters[0])]
    if node.operator == "constant":
        return f"{node.parameters[0]:g}"
    if node.operator in _INFIX:
        text = f" {_INFIX[node.operator]} ".join(_render(argument) for argument in node.arguments)
        return text if top else f"({text})"
    shown = [_render(argument, top=True) for argument in node.arguments] + [f"{number:g}" for number in node.parameters]
    return f"{node.operator}({', '.join(shown)})"


def peel(expression: Expression) -> tuple[Expression, Expression | None, Expression | None]:
    """(what the kernels compute, the fitted operator over it, the cross-sectional operator over all).

    InputError where such an operator stands inside of another one.
    """
    compared = fitted = None
    inner = expression
    if inner.operator in CROSS_SECTIONAL:
        compared, inner = inner, inner.arguments[0]
    if inner.operator in FITTED:
        fitted, inner = inner, inner.arguments[0]
    for node in walk(inner):
        if node.operator in FITTED or node.operator in CROSS_SECTIONAL:
            raise InputError(
                f"{node.operator}() is nested in {expression}. It compares or fits finished values: "
                "make it the outermost operator of a feature, with cs_… around hmm() where both are used."
            )
    return inner, fitted, compared
