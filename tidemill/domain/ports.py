"""Protocols that outer layers implement. One narrow seam per outside system."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

from tidemill.domain.experiment import Experiment
from tidemill.domain.intervals import Interval
from tidemill.domain.market import Instrument

if TYPE_CHECKING:
    import polars as pl


class BarSource(Protocol):
    """Where bars come from: the sample, a file, a venue's public REST candles.

    `bars` yields frames as they arrive, in any order and not yet validated, with the columns `symbol, open_time, open, high,
    low, close, volume`, optionally `quote_volume`, `adjusted_close` and `source_line` (1-based line or row in the source). A
    bar that was still open at the time of the answer is never yielded. Raises UnknownNameError for a symbol that the source
    does not have, UnavailableError or RateLimitedError when the other side does not answer.
    """

    @property
    def venue(self) -> str:
        """Slug under which the bars are kept."""
        ...

    async def instruments(self, symbols: Sequence[str]) -> list[Instrument]:
        """The instruments of `symbols`; all there are when empty."""
        ...

    def bars(
        self, symbols: Sequence[str], interval: Interval, start: datetime | None, end: datetime | None
    ) -> AsyncIterator[pl.DataFrame]:
        """Raw bars with start ≤ open_time < end."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class SpannedSource(Protocol):
    """A source that knows, without being asked over a network, which range of time it covers."""

    def span(self, interval: Interval) -> tuple[datetime, datetime] | None:
        """First and last open time of its bars; None when it has none."""
        ...


class RunOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the main job came to. `steps` holds (asset key, seconds, worked) in order of execution; `worked` is False when the
    inputs were unchanged.

    checks: (asset key:check, seconds, passed).
    """

    succeeded: bool
    run_id: str
    steps: tuple[tuple[str, float, bool], ...] = ()
    checks: tuple[tuple[str, float, bool], ...] = ()
    failure: str = ""


class Orchestrator(Protocol):
    """What `tidemill run`, `up` and `dagster` need of the orchestrator; the entry point `tidemill.orchestrator` names it."""

    def run(self, experiment: Experiment, *, home: Path) -> RunOutcome:
        """Materialize the main job for one experiment, in this process, as a run that the web UI shows."""
        ...

    def up(self, *, open_browser: bool = False, as_json: bool = False) -> int:
        """Start every service, print the addresses (as one JSON object if asked), wait for ctrl-C, stop all of it. Returns the
        exit code.
        """
        ...

    def command(self, arguments: Sequence[str]) -> int:
        """Any `dagster …` command in the environment of this home. Returns its exit code."""
        ...
