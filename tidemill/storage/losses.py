"""Sources that lost a great part of their bars: noted before the bars end, kept until the loss is made good or confirmed."""

from datetime import datetime

import msgspec

from tidemill.domain.intervals import Interval
from tidemill.storage.postgres import Database

# A source that lost more than this share of its bars may be damaged (NUMBERS, Time).
GREAT_LOSS = 0.10

# What is lost again before the first loss is confirmed adds to it; the same loss, found again after a kill, does not.
_NOTE = """
INSERT INTO source_losses AS known (venue, interval, lost, held, total, found_at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (venue, interval) DO UPDATE SET
    lost = CASE WHEN known.confirmed_at IS NULL THEN least(known.held, known.total - excluded.total + excluded.lost)
                ELSE excluded.lost END,
    held = CASE WHEN known.confirmed_at IS NULL THEN known.held ELSE excluded.held END,
    total = CASE WHEN known.confirmed_at IS NULL THEN known.total ELSE excluded.total END,
    found_at = CASE WHEN known.confirmed_at IS NULL THEN known.found_at ELSE excluded.found_at END,
    confirmed_at = NULL
"""
_MADE_GOOD = """
DELETE FROM source_losses
WHERE venue = $1 AND interval = $2 AND confirmed_at IS NULL AND $3 >= total - $4::float8 * held
"""
_OPEN = "SELECT lost, held, total, found_at FROM source_losses WHERE venue = $1 AND interval = $2 AND confirmed_at IS NULL"
_CONFIRM = """
UPDATE source_losses SET confirmed_at = now() WHERE venue = $1 AND interval = $2 AND confirmed_at IS NULL
RETURNING lost, held, total, found_at
"""


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """lost: bars that left the source, of the `held` that it had. total: bars of the whole dataset before."""

    lost: int
    held: int
    total: int
    found_at: datetime

    @property
    def great(self) -> bool:
        return self.lost > GREAT_LOSS * self.held


async def note_loss(database: Database, venue: str, interval: Interval, loss: Loss) -> None:
    """Keep a loss until it is made good or confirmed."""
    await database.execute(_NOTE, venue, str(interval), loss.lost, loss.held, loss.total, loss.found_at)


async def made_good(database: Database, venue: str, interval: Interval, bars: int) -> None:
    """Forget the loss of a dataset that has nearly all of its bars again. bars: those that it has now."""
    await database.execute(_MADE_GOOD, venue, str(interval), bars, GREAT_LOSS)


async def open_loss(database: Database, venue: str, interval: Interval) -> Loss | None:
    """The loss of a dataset that nobody confirmed; None when there is none."""
    row = await database.fetchrow(_OPEN, venue, str(interval))
    return None if row is None else Loss(**row)


async def confirm_loss(database: Database, venue: str, interval: Interval) -> Loss | None:
    """Take what is left of a source for the whole; the loss that was confirmed, None when there was none."""
    row = await database.fetchrow(_CONFIRM, venue, str(interval))
    return None if row is None else Loss(**row)
