"""Features bar by bar: the step. One row of symbols goes in, one row of features comes out, with the bits of the batch."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tidemill.domain.errors import InputError
from tidemill.domain.intervals import EPOCH, epoch_microseconds
from tidemill.features.arrays import Flags, Floats
from tidemill.features.binding import Bound
from tidemill.features.blocks import Blocks
from tidemill.features.calendar import calendar_column
from tidemill.features.expression import CALENDAR, COLUMNS, INPUTS
from tidemill.features.feature_set import FeatureSet
from tidemill.features.kernels.execute import execute
from tidemill.features.state import FeatureState

Row: TypeAlias = ArrayLike
_NO_HISTORY = np.empty((0, 0))
_VWAP = COLUMNS.index("vwap")


class Arrays(NamedTuple):
    """What a stream works on, for as long as it lives. table: of `execute`. rows: of bars, read. present: who has one.

    times: [symbols] when each one's last bar opened, epoch microseconds. result: [features, symbols], where it writes.
    """

    table: NDArray[np.int64]
    rows: Floats
    present: Flags
    times: NDArray[np.int64]
    result: Floats


class FeatureStream:
    """Live features of `symbols`, from `state` on (None: no bar yet). A symbol that the state does not know starts as newly
    listed.

    Symbols that the state knows and the stream does not are left out of `state()`; `FeatureState.updated` puts them back.
    Not safe for use by two threads at once. Raises IntegrityError for the state of another feature set.
    """

    def __init__(self, features: FeatureSet, symbols: Sequence[str], state: FeatureState | None = None) -> None:
        if not symbols or len(set(symbols)) != len(symbols):
            raise InputError("A stream needs at least one symbol, and each only once.")
        program = features.program
        self._latest = 0
        if state is not None:
            state.require(features.fingerprint, program.carried, program.history)
        self.features, self.symbols, self._program = features, tuple(symbols), program
        self._whole = True  # whether the flags of the last step say that all are present
        start = state or FeatureState.empty(features.fingerprint, (), program.carried, program.history)
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
            if vwap is not None:
                row[_VWAP] = vwap
            if present is not None or not self._whole:
                flags[:] = True if present is None else present
                self._whole = present is None
        except (ValueError, TypeError) as exc:
            raise InputError(f"Each array of a step must hold {len(self.symbols)} numbers, one for each symbol.") from exc
        if open_time is not None:
            self._mark(open_time)
        program = self._program
        if self._beyond:
            self._take_beyond(open_time, context or {})
        execute(True, self._typical.table if vwap is None else self._given.table)
        if program.stages.models or program.stages.across:
            self._second_stage(open_time)
        return self._result.T

    @property
    def context(self) -> tuple[str, ...]:
        """The columns of CONTEXT that some feature reads."""
        return tuple(name for name, _ in self._beyond if name not in CALENDAR)

    @property
    def arrays(self) -> Arrays | None:
        """For a caller that runs `execute(True, table)` itself, after `take`; None where a step is more than that."""
        stages = self._program.stages
        if self._beyond or stages.models or stages.across:
            return None
        return Arrays(self._given.table, self._row, self._present, self._times, self._result)

    def take(self, opened: int, present: Flags) -> None:
        """What a step of such a caller begins with: a bar that opened then, epoch microseconds, and of whom.

        InputError for one that is not later than the last. The caller writes both into `arrays`.
        """
        if opened <= self._latest:
            self._require_later(opened, present)
        self._latest, self._whole = max(self._latest, opened), False

    def _take_beyond(self, open_time: datetime | None, context: Mapping[str, Row]) -> None:
        """The columns that are no prices: calendar and context."""
        for name, index in self._beyond:
            if name in CALENDAR:
                if open_time is None:
                    raise InputError(f"A feature reads {name}. Pass the open_time of the bar.")
                self._row[index] = calendar_column(name, np.array([epoch_microseconds(open_time)], dtype=np.int64))
                continue
            if name not in context:
                raise InputError(f"A feature reads {name}. Pass its value, as known at the bar's close, in `context`.")
            try:
                self._row[index] = context[name]
            except (ValueError, TypeError) as exc:
                raise InputError(
                    f"The context {name} must be one number, or {len(self.symbols)}, one for each symbol."
                ) from exc

    def _second_stage(self, open_time: datetime | None) -> None:
        stages, count = self._program.stages, len(self.symbols)
        places = np.arange(count + 1, dtype=np.int64)
        times = np.full(count, 0 if open_time is None else epoch_microseconds(open_time), dtype=np.int64)
        stages.carry(self._result, places, times, self._carried, 0)
        stages.compare(self._result, places[:-1], np.array([0, count], dtype=np.int64))

    def state(self) -> FeatureState:
        """A copy of what is remembered; stepping on does not change it."""
        slots = np.hstack([self._blocks.carried(), self._carried])
        return FeatureState(self.features.fingerprint, self.symbols, slots, self._blocks.history(), self._times.copy())

    def _load(self, state: FeatureState) -> None:
        count, program = len(self.symbols), self._program
        self._blocks = Blocks(program, state)
        self._carried = state.slots[:, program.slots :].copy()
        self._times = state.times.copy()
        self._latest = int(self._times.max())
        self._row = np.full((len(INPUTS), count), np.nan)
        wanted = zip(INPUTS, range(len(INPUTS)), program.raw, strict=True)
        self._beyond = tuple((name, index) for name, index, node in wanted if node >= 0 and index >= len(COLUMNS))
        self._present: Flags = np.ones(count, dtype=np.bool_)
        self._result: Floats = np.full((len(self.features.names), count), np.nan)
        self._given: Bound = self._bound([*self._row])
        # Without an average price its column is empty, and the kernels take (high + low + close) / 3.
        self._typical: Bound = self._bound([*self._row[:_VWAP], np.empty(0), *self._row[_VWAP + 1 :]])

    def _bound(self, columns: Sequence[Floats]) -> Bound:
        blocks = self._blocks
        return Bound(
            self._program, columns, self._result, at=blocks.offsets, mirror=blocks.mirror, bounds=blocks.layout,
            clean=blocks.clean, position=blocks.position, present=self._present, memory=blocks.memory, lists=blocks.lists,
            state=blocks.slots, history=_NO_HISTORY,
        )  # fmt: skip

    def _mark(self, open_time: datetime) -> None:
        moment = epoch_microseconds(open_time)
        if moment <= self._latest:
            self._require_later(moment, self._present)
        self._times[... if self._whole else self._present] = moment
        self._latest = max(self._latest, moment)

    def _require_later(self, opened: int, present: Flags) -> None:
        """The latest bar may be of a symbol that is absent now."""
        late = np.flatnonzero(present & (self._times >= opened))
        if len(late):
            raise InputError(
                f"A bar of {self.symbols[late[0]]!r} at {EPOCH + timedelta(microseconds=opened)} is not later than the last. "
                "Rebuild the state instead."
            )
