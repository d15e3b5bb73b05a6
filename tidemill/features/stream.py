"""Features bar by bar: the step. One row of symbols goes in, one row of features comes out, with the bits of the batch."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from tidemill.domain.errors import InputError
from tidemill.domain.intervals import EPOCH
from tidemill.features.api import FeatureSet
from tidemill.features.arrays import Flags, Floats
from tidemill.features.calendar import calendar_column
from tidemill.features.expression import CALENDAR, COLUMNS, INPUTS
from tidemill.features.kernels.execute import execute
from tidemill.features.kernels.order import SORT_LANES
from tidemill.features.kernels.windows import SCRATCH
from tidemill.features.prices import average_price
from tidemill.features.state import State

Row: TypeAlias = ArrayLike
_NO_HISTORY, _NO_BOUNDS = np.empty((0, 0)), np.zeros(1, dtype=np.int64)


class Stream:
    """Live features of `symbols`, from `state` on (None: no bar yet). A symbol that the state does not know starts as newly
    listed.

    Symbols that the state knows and the stream does not are left out of `state()`; `State.updated` puts them back.
    Not safe for use by two threads at once. Raises IntegrityError for the state of another feature set.
    """

    def __init__(self, features: FeatureSet, symbols: Sequence[str], state: State | None = None) -> None:
        if not symbols or len(set(symbols)) != len(symbols):
            raise InputError("A stream needs at least one symbol, and each once.")
        program = features.program
        if state is not None:
            state.require(features.fingerprint, program.carried, program.history)
        self.features, self.symbols, self._program = features, tuple(symbols), program
        start = state or State.empty(features.fingerprint, (), program.carried, program.history)
        self._load(start.select(self.symbols))

    def step(
        self,
        open: Row,
        high: Row,
        low: Row,
        close: Row,
        volume: Row,
        vwap: Row | None = None,
        present: ArrayLike | None = None,
        *,
        open_time: datetime | None = None,
        context: Mapping[str, Row] | None = None,
    ) -> Floats:
        """Take one closed bar of each symbol that is present and return float64[symbols, features], NaN for the absent.

        Arrays hold one number a symbol, in the order of `symbols`; NaN where a value is missing. vwap: see `average_price`;
        (high + low + close) / 3 when not given. present: flags, all when not given; an absent symbol advances nothing.
        open_time: when given, it is kept in the state, so that a later batch cannot take the same bar again; features of the
        calendar need it. context: values of CONTEXT that some feature reads, one number or one a symbol. Cross-sectional
        features compare the symbols that are present: record `present` to replay a row.
        The returned array is reused by the next step. Raises InputError for a wrong length or a bar that is not later than the
        last.
        """
        row, flags = self._row, self._present
        try:
            row[0], row[1], row[2], row[3], row[4] = open, high, low, close, volume
            if self._program.raw[5] >= 0:  # some feature reads it
                row[5] = average_price(row[1], row[2], row[3], row[4]) if vwap is None else vwap
            flags[:] = True if present is None else present
        except (ValueError, TypeError) as exc:
            raise InputError(f"Each array of a step must hold {len(self.symbols)} numbers, one a symbol.") from exc
        if open_time is not None:
            self._mark(open_time)
        program = self._program
        if self._beyond:
            self._take_beyond(open_time, context or {})
        execute(
            True, program.code, program.numbers, program.depth, program.raw, program.outputs, self._offsets, self._mirror,
            self._columns,
            self._memory, self._scratch, self._ordered, flags, self._slots, _NO_HISTORY, _NO_BOUNDS, self._position,
            self._result,
        )  # fmt: skip
        if program.stages.models or program.stages.across:
            self._second_stage(open_time)
        return self._result.T

    def _take_beyond(self, open_time: datetime | None, context: Mapping[str, Row]) -> None:
        """The columns that are no prices: calendar and context."""
        for name, index in self._beyond:
            if name in CALENDAR:
                if open_time is None:
                    raise InputError(f"Some feature reads {name}. Give the open_time of the bar.")
                self._row[index] = calendar_column(name, np.array([_micros(open_time)], dtype=np.int64))
                continue
            if name not in context:
                raise InputError(f"Some feature reads {name}. Give its value as known at the bar's close in `context`.")
            try:
                self._row[index] = context[name]
            except (ValueError, TypeError) as exc:
                raise InputError(f"The context {name} must be one number, or {len(self.symbols)}, one a symbol.") from exc

    def _second_stage(self, open_time: datetime | None) -> None:
        stages, count = self._program.stages, len(self.symbols)
        places = np.arange(count + 1, dtype=np.int64)
        times = np.full(count, 0 if open_time is None else _micros(open_time), dtype=np.int64)
        stages.carry(self._result, places, times, self._carried, 0)
        stages.compare(self._result, places[:-1], np.array([0, count], dtype=np.int64))

    def state(self) -> State:
        """A copy of what is remembered; stepping on does not change it."""
        count, program = len(self.symbols), self._program
        history = np.empty((count, program.history))
        read = 0
        for node, depth in enumerate(program.depth):
            if depth:
                history[:, read : read + depth] = self._ring(node)[self._rows(int(depth))].T
                read += depth
        slots = np.hstack([self._slots.T, self._carried])
        return State(self.features.fingerprint, self.symbols, slots, history, self._times.copy())

    def _load(self, state: State) -> None:
        count, program = len(self.symbols), self._program
        self._offsets, size, self._mirror = program.step_layout(count)
        self._memory = np.full(size, np.nan)
        for node, value in zip(program.constants, program.values, strict=True):
            self._memory[self._offsets[node] : self._offsets[node] + count] = value
        self._position = np.zeros(1, dtype=np.int64)
        read = 0
        for node, depth in enumerate(program.depth):
            if depth:
                ring, rows = self._ring(node), self._rows(int(depth))
                ring[rows] = state.history[:, read : read + depth].T
                ring[depth + 1 :] = ring[: depth + 1]
                read += depth
        self._slots = np.ascontiguousarray(state.slots[:, : program.slots].T)
        self._carried = state.slots[:, program.slots :].copy()
        self._times = state.times.copy()
        self._row = np.full((len(INPUTS), count), np.nan)
        wanted = zip(INPUTS, range(len(INPUTS)), program.raw, strict=True)
        self._beyond = tuple((name, index) for name, index, node in wanted if node >= 0 and index >= len(COLUMNS))
        self._columns = tuple(column.view() for column in self._row)
        for column in self._columns:
            column.flags.writeable = False
        self._present: Flags = np.ones(count, dtype=np.bool_)
        self._result = np.full((len(self.features.names), count), np.nan)
        self._scratch, self._ordered = np.empty(SCRATCH), np.empty(program.deepest * SORT_LANES)

    def _ring(self, node: int) -> Floats:
        """The rows of a ring node with their twins: 2 · (depth + 1) × symbols, a view."""
        count, rows = len(self.symbols), 2 * (int(self._program.depth[node]) + 1)
        begin = int(self._offsets[node])
        return self._memory[begin : begin + rows * count].reshape(rows, count)

    def _rows(self, depth: int) -> list[int]:
        """Rows of the newest `depth` values in the first half of a ring, oldest first."""
        newest = int(self._position[0])
        return [(newest - back) % (depth + 1) for back in range(depth - 1, -1, -1)]

    def _mark(self, open_time: datetime) -> None:
        moment = _micros(open_time)
        late = np.flatnonzero(self._present & (self._times >= moment))
        if len(late):
            raise InputError(
                f"A bar of {self.symbols[late[0]]!r} at {open_time} is not later than its last. Rebuild the state instead."
            )
        self._times[self._present] = moment


def _micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)
