"""Many parameters of one strategy over the same bars: each is a backtest of its own, equal to the single one to the bit.

What does not depend on the parameters (panel, market, terms, window means) is made once; the runs share it and go on threads,
since the scan does not hold Python's lock. Memory: the panel, the means that a strategy's grid keeps, and one set of targets
for each run in flight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from tidemill.backtest.backtest import BacktestInputs, Options, Prepared, prepare, run_prepared
from tidemill.backtest.panel import bars_panel
from tidemill.backtest.result import BacktestResult
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.experiment import CostSpec
from tidemill.domain.intervals import Interval
from tidemill.domain.market import Instrument
from tidemill.matching.rules import Floats
from tidemill.strategies.base import Strategy, closes
from tidemill.strategies.registry import SHIPPED_STRATEGIES, Strategies, weights_over_bars

if TYPE_CHECKING:
    import polars as pl

MOST_RUNS = 100_000


class Figures(NamedTuple):
    """Totals of one run; cash in the quote currency, as in `BacktestResult`."""

    final_equity: float
    total_return: float
    max_drawdown: float
    trades: int
    fees: float
    slippage: float
    borrow: float
    turnover: float


class Sweep(NamedTuple):
    """configs: parameters of each run. figures: theirs. times: of the slots. equity: [slots, runs]. skipped: combinations of
    the grid that the strategy refuses, such as a fast window above the slow one.
    """

    configs: tuple[dict[str, Any], ...]
    figures: tuple[Figures, ...]
    times: pl.Series
    equity: Floats
    skipped: int

    @property
    def returns(self) -> Floats:
        """[slots − 1, runs]: change of equity since the slot before, as `BacktestResult.returns`; NaN after ruin."""
        before = self.equity[:-1]
        change = np.full(before.shape, np.nan)
        np.divide(self.equity[1:], before, out=change, where=before > 0.0)
        return change - 1.0


def combinations(chosen: Strategy, grid: Mapping[str, Sequence[Any]]) -> tuple[list[dict[str, Any]], list[msgspec.Struct], int]:
    """All parameters of the grid, as given and as parsed, and how many combinations were refused.

    InputError for an empty grid, one that is too large, or where no combination is fine.
    """
    for name, values in grid.items():
        if name not in chosen.params.__struct_fields__:
            raise UnknownNameError(f"parameter of {chosen.name}", name, chosen.params.__struct_fields__)
        if not values:
            raise InputError(f"The sweep gives no value for {name}. Write for example {name}=5:50:5.")
    number = int(np.prod([len(values) for values in grid.values()], dtype=np.float64)) if grid else 0
    if not 0 < number <= MOST_RUNS:
        raise InputError(f"A sweep takes 1 to {MOST_RUNS:,} combinations of parameters; these are {number:,}.")
    configs, parsed, refused = [], [], None
    for values in product(*grid.values()):
        config = dict(zip(grid, values, strict=True))
        try:
            parsed.append(chosen.parse(config))
        except InputError as error:
            refused = error
            continue
        configs.append(config)
    if not configs and refused is not None:
        raise refused
    return configs, parsed, number - len(configs)


def sweep_strategy(
    name: str,
    grid: Mapping[str, Sequence[Any]],
    bars: pl.DataFrame,
    *,
    interval: Interval,
    instruments: Mapping[str, Instrument],
    signal_bars: pl.DataFrame | None = None,
    adjustments: pl.DataFrame | None = None,
    costs: CostSpec | None = None,
    suspected: pl.DataFrame | None = None,
    options: Options | None = None,
    threads: int = 2,
    known: Strategies = SHIPPED_STRATEGIES,
) -> Sweep:
    """Run a strategy over bars with every combination of `grid` (parameter → values); the rest as in `backtest_strategy`."""
    chosen = known.find(name)
    if chosen.needs != "bars":
        raise InputError(f"A sweep needs a strategy over bars; {name} works on predictions. Run it as experiments instead.")
    configs, parsed, skipped = combinations(chosen, grid)
    seen = bars if signal_bars is None else signal_bars
    if seen.height != bars.height:
        raise InputError(
            "The signal bars and the traded bars must have the same rows. Pass the same symbols and times in both."
        )
    panel = bars_panel(bars, interval)
    empty = np.broadcast_to(np.nan, panel.axes.shape)
    inputs = BacktestInputs(panel, empty, interval, instruments, adjustments, suspected)
    prepared = prepare(inputs, costs or CostSpec(), (options or Options())._replace(resize=chosen.resize))
    figures, equity = [], np.empty((panel.axes.shape[0], len(configs)))
    for at, result in enumerate(_run_all(inputs, prepared, _targets(chosen, parsed, seen, inputs), threads)):
        figures.append(_figures(result))
        equity[:, at] = result.equity_values
    return Sweep(tuple(configs), tuple(figures), result.equity.get_column("time"), equity, skipped)


def _targets(chosen: Strategy, parsed: Sequence[Any], seen: pl.DataFrame, inputs: BacktestInputs) -> Iterable[Floats]:
    panel = inputs.panel
    if chosen.grid is not None:
        close, ends = closes(seen)
        yield from chosen.grid(close, ends, parsed, panel.shares(ends), panel.spread)
        return
    for params in parsed:
        yield panel.spread(weights_over_bars(chosen, params, seen, inputs.instruments or {}, inputs.interval))


def _run_all(inputs: BacktestInputs, prepared: Prepared, targets: Iterable[Floats], threads: int) -> Iterator[BacktestResult]:
    """Results in the order of the targets; few targets exist at a time."""
    waiting: deque[Future[BacktestResult]] = deque()
    with ThreadPoolExecutor(max_workers=max(threads, 1)) as pool:
        for target in targets:
            waiting.append(pool.submit(run_prepared, inputs._replace(targets=target), prepared))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _figures(result: BacktestResult) -> Figures:
    return Figures(
        final_equity=result.final_equity,
        total_return=result.final_equity / result.capital - 1.0,
        max_drawdown=result.max_drawdown,
        trades=result.trade_count,
        fees=result.fees,
        slippage=result.slippage,
        borrow=result.borrow,
        turnover=result.turnover,
    )
