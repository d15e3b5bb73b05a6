"""Bar intervals and the grid that they put on time."""

import re
from datetime import UTC, datetime, timedelta

import msgspec

from tidemill.domain.errors import InputError

_UNITS = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_PATTERN = re.compile(r"([1-9][0-9]{0,3})([mhdw])")
# Weeks start on Monday, as on every venue; the epoch was a Thursday.
_WEEK_ORIGIN = 4 * 86_400
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def epoch_microseconds(moment: datetime) -> int:
    """Microseconds since the epoch of a timezone-aware moment, exact."""
    since = moment - EPOCH
    return (86_400 * since.days + since.seconds) * 1_000_000 + since.microseconds


class Interval(msgspec.Struct, frozen=True, order=True):
    """Length of a bar in seconds; `str()` gives the canonical name (`5m`, `1h`, `1d`, `1w`)."""

    seconds: int

    @classmethod
    def parse(cls, text: str) -> "Interval":
        """`5m`, `1h`, `4h`, `1d`, `1w`. Raises InputError for anything else; months have no fixed length."""
        cleaned = text.strip()
        match = _PATTERN.fullmatch(cleaned if cleaned.endswith("M") else cleaned.lower())
        if match is None:
            raise InputError(f"{text!r} is not a bar interval. Write a number and one of m, h, d, w: 5m, 1h, 1d.")
        return cls(int(match[1]) * _UNITS[match[2]])

    @property
    def delta(self) -> timedelta:
        return timedelta(seconds=self.seconds)

    @property
    def microseconds(self) -> int:
        return self.seconds * 1_000_000

    @property
    def origin_microseconds(self) -> int:
        """The grid is `origin + k · interval` in epoch microseconds."""
        return _WEEK_ORIGIN * 1_000_000 if self.seconds % _UNITS["w"] == 0 else 0

    @property
    def step_microseconds(self) -> int:
        """On whatever grid a market's bars lie, `origin + k · step` holds for all of them: sessions begin at whole minutes, as
        at half past nine in New York, and bars within a day count from there.
        """
        return self.microseconds if self.seconds >= _UNITS["d"] else min(self.microseconds, 60_000_000)

    def floor(self, moment: datetime) -> datetime:
        """The open time of the bar that holds `moment` (timezone-aware)."""
        micros = epoch_microseconds(moment) - self.origin_microseconds
        return EPOCH + timedelta(microseconds=micros // self.microseconds * self.microseconds + self.origin_microseconds)

    def __str__(self) -> str:
        for unit in ("w", "d", "h", "m"):
            if self.seconds % _UNITS[unit] == 0:
                return f"{self.seconds // _UNITS[unit]}{unit}"
        return f"{self.seconds}s"


def moment(text: str | None, name: str) -> datetime | None:
    """An ISO date or time as UTC; InputError names the field."""
    if text is None:
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as exc:
        raise InputError(f"{name} is {text!r}; write a date such as 2024-01-31.") from exc
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
