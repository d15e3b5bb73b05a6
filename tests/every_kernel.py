"""Calls every compiled function of the package from Python, in a process of its own: one that ends it is seen from outside.

Reads [[module, name, "kernel" or "entry"], …] and writes a line of JSON for each: the name, the kind and what came of the call.
Arguments of a kernel are made up from its annotations; entries are called by what calls them in the package.
"""

import importlib
import inspect
import json
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

import numpy as np

from tidemill.features.kernels import cross, markov
from tidemill.maintenance.warm import warm
from tidemill.validation.comparison import bits_of, differences, first_difference


def ordinary(kind: Any) -> Any:
    """A value of an annotated type: ones, of eight rows where it is an array; of a choice of types, the first."""
    if isinstance(kind, types.UnionType):
        return ordinary(typing.get_args(kind)[0])
    if kind in (float, int, bool):
        return kind(1)
    if hasattr(kind, "_fields"):
        fields = typing.get_type_hints(kind)
        return kind(*(ordinary(fields[name]) for name in kind._fields))
    if inspect.isclass(kind) and issubclass(kind, np.generic):
        return kind(1)
    [dtype] = typing.get_args(typing.get_args(kind)[1])
    return np.ones((8, 8), dtype)


def arguments(function: Callable[..., Any]) -> list[Any]:
    hints = typing.get_type_hints(function)
    return [ordinary(hints[name]) for name in inspect.signature(function).parameters]


def outcome(call: Callable[..., Any], function: Callable[..., Any]) -> str:
    try:
        return f"answered {call(*arguments(function))!r}"
    except Exception as exc:
        return f"{type(exc).__name__}: {exc}"


def call_entries() -> None:
    """Every entry once, each through what calls it or as its tests do."""
    warm()
    from tidemill.strategies.sma_kernel import cross_signals

    ones, bounds = np.ones(8), np.array([0, 8])
    cross_signals(ones, np.array([8]), 2, 3, np.ones(8))
    cross.across(cross.RANK, np.ones(8), np.arange(8), bounds)
    theta, numbers = np.linspace(0.1, 0.9, 10), np.array([2, 10, 60, 60, 5])
    markov.markov(ones, bounds, np.arange(8), np.zeros((1, 100)), 0, numbers, np.empty((3, 8)))
    series = np.linspace(-1.0, 1.0, 8)
    markov.fit_series(series, 2, theta.copy())
    markov.improve_series(series, 2, theta.copy(), 1)
    markov.filter_series(series, 2, theta.copy(), np.empty((8, 2)))
    call_steps()
    first_difference(bits_of(ones), bits_of(ones), np.arange(8), np.arange(8))
    differences(bits_of(ones), bits_of(ones), np.arange(8), np.arange(8))


def call_steps() -> None:
    """Those that a session calls bar by bar."""
    from tidemill.backtest.backtest import Options, terms_of
    from tidemill.domain.experiment import CostSpec
    from tidemill.domain.intervals import EPOCH
    from tidemill.market.adjusting import Adjuster
    from tidemill.models.kernels.linear import linear_rows
    from tidemill.models.kernels.ranks import apart_of_ranks, mean_of_ranks
    from tidemill.trading.arriving import BarsOfSlot
    from tidemill.trading.checks import judge_slot
    from tidemill.trading.ordering import Desk, Ordering

    ones, rows, made = np.ones(2), np.ones((2, 2)), np.empty(2)
    Adjuster(("A", "B")).step(0, np.ones((6, 2)))
    desk = Desk(terms_of(("A", "B"), {}, CostSpec(), Options()), 1.0, np.zeros(2, np.int64))
    bars = BarsOfSlot(EPOCH, 0, np.ones((6, 2)), np.ones(2, np.bool_), np.ones(2, np.bool_))
    Ordering(("A", "B"), desk).step(bars, 0, 1, ones)
    linear_rows(rows, ones, ones, ones, ones, ones, 1.0, 5.0, made)
    mean_of_ranks(rows, ones, made)
    apart_of_ranks(rows, np.ones(2, np.bool_), made)
    judge_slot(rows, rows, made, 0.5, 1.0, 1.0, 1.0, np.ones((3, 2)), np.ones((2, 2)), np.zeros((2, 3), np.bool_))


def main() -> None:
    called = False
    for module, name, kind in json.load(sys.stdin):
        made = getattr(importlib.import_module(module), name)
        print(f"{module}.{name} …", file=sys.stderr, flush=True)
        if kind == "entry" and not called:
            call_entries()
            called = True
        told = f"called as {made.signatures}" if kind == "entry" else outcome(made, made.py_func)
        print(json.dumps([f"{module}.{name}", kind, told]), flush=True)


if __name__ == "__main__":
    main()
