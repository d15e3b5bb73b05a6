"""Sources that lost a great part of their bars: noted before they end, kept until they are back or it is confirmed."""

from datetime import datetime

import msgspec

from tidemill.domain.intervals import Interval
from tidemill.storage.endings import gone_bars
from tidemill.storage.postgres import Database

# A source that lost more than this share of its bars may be damaged (NUMBERS, Time).
GREAT_LOSS = 0.10

# The same loss, found again after a kill, is no further one. What is lost until somebody confirms is counted from the bars.
_NOTE = """
INSERT INTO source_losses AS known (venue, interval, lost, held, found_at) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (venue, interval) DO UPDATE
SET lost = excluded.lost, held = excluded.held, found_at = excluded.found_at, confirmed_at = NULL
WHERE known.confirmed_at IS NOT NULL
"""
_OPEN = "SELECT lost, held, found_at FROM source_losses WHERE venue = $1 AND interval = $2 AND confirmed_at IS NULL"
_FORGET = "DELETE FROM source_losses WHERE venue = $1 AND interval = $2 AND confirmed_at IS NULL"
_CONFIRM = """
UPDATE source_losses SET confirmed_at = now() WHERE venue = $1 AND interval = $2 AND confirmed_at IS NULL
"""


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """lost: bars that left the source, of the `held` that it had."""

    lost: int
    held: int
    found_at: datetime

    @property
    def great(self) -> bool:
        return self.lost > GREAT_LOSS * self.held


async def note_loss(database: Database, venue: str, interval: Interval, loss: Loss) -> None:
    """Keep a loss until its bars are back or it is confirmed."""
    await database.execute(_NOTE, venue, str(interval), loss.lost, loss.held, loss.found_at)


async def open_loss(database: Database, venue: str, interval: Interval) -> Loss | None:
    """The loss of a dataset that nobody confirmed, with all that was lost since; None when there is none."""
    row = await database.fetchrow(_OPEN, venue, str(interval))
    if row is None:
        return None
    gone = await gone_bars(database, venue, interval, since=row["found_at"])
    return Loss(lost=max(row["lost"], gone.bars if gone else 0), held=row["held"], found_at=row["found_at"])


async def forget_restored(database: Database, venue: str, interval: Interval) -> None:
    """Forget a loss whose bars are nearly all back. Bars of other times and symbols make up for none."""
    row = await database.fetchrow(_OPEN, venue, str(interval))
    if row is None:
        return
    gone = await gone_bars(database, venue, interval, since=row["found_at"])
    if gone is None or gone.bars <= GREAT_LOSS * row["held"]:
        await database.execute(_FORGET, venue, str(interval))


async def confirm_loss(database: Database, venue: str, interval: Interval) -> Loss | None:
    """Take what is left of a source for the whole; the loss that was confirmed, None when there was none."""
    loss = await open_loss(database, venue, interval)
    if loss is not None:
        await database.execute(_CONFIRM, venue, str(interval))
    return loss
