"""Names and frozen types of market data: symbols, datasets, instruments, columns of the frames that travel."""

import re
from datetime import datetime
from enum import StrEnum

import msgspec

from tidemill.domain.errors import InputError
from tidemill.domain.intervals import Interval

# Columns of a bars frame, sorted by (symbol, open_time). Times are polars Datetime("us", "UTC"); prices are raw (not
# adjusted), in the quote currency; volume is in base units; quote_volume may be null.
BAR_COLUMNS = ("symbol", "open_time", "open", "high", "low", "close", "volume", "quote_volume", "known_at")
PRICE_COLUMNS = ("open", "high", "low", "close")

# A symbol becomes a key, a file name and a URL segment: no slash, no leading dot, no control characters.
_SYMBOL = re.compile(r"[A-Za-z0-9^][A-Za-z0-9._^=-]{0,31}")
_SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def valid_symbol(text: str) -> str:
    """`text` unchanged if it can be a symbol, else InputError."""
    if _SYMBOL.fullmatch(text) is None or ".." in text:
        raise InputError(
            f"{text[:40]!r} is not a symbol. Use up to 32 letters, digits and the characters . _ ^ = - , "
            "starting with a letter or digit."
        )
    return text


def slug(text: str) -> str:
    """A name fit for a folder and a database key, made from any text. InputError if nothing usable is left."""
    made = re.sub(r"[^a-z0-9_-]+", "_", text.lower()).strip("_-")[:63]
    if _SLUG.fullmatch(made) is None:
        raise InputError(f"No name can be derived from {text!r}. Use letters and digits.")
    return made


class Dataset(msgspec.Struct, frozen=True):
    """What one run is bound to: a source of bars, their interval and the symbols. Cross-sections never mix datasets."""

    venue: str
    interval: Interval
    universe: str = "all"

    @property
    def bars_key(self) -> str:
        """Key of what does not depend on the universe: bars, instruments, gaps."""
        return f"{self.venue}.{self.interval}"

    @property
    def key(self) -> str:
        """Key of what is derived: features, predictions, results."""
        return f"{self.venue}.{self.interval}.{self.universe}"


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """What can be traded, and what the venue allows (NUMBERS, Fills and accounts). Binds backtest and live alike."""

    venue: str
    symbol: str
    calendar: str  # a name that `tidemill.calendars` knows
    calendar_inferred: bool = False  # told by the bars, and by nobody
    base: str = ""
    quote: str = "USD"
    can_short: bool = False
    borrow_bps: float = 0.0  # a year, on the notional held short
    lot: float = 0.0  # 0: any fraction
    tick: float = 0.0  # 0: any price
    min_notional: float = 0.0
    listed_at: datetime | None = None
    delisted_at: datetime | None = None


class AdjustmentKind(StrEnum):
    SPLIT = "split"  # value: new shares for one old
    DIVIDEND = "dividend"  # value: cash for one share held before the ex time, in raw price units


class QuarantineReason(StrEnum):
    """Why an imported row did not become a bar."""

    NULL = "null"
    NON_FINITE = "non_finite"
    NON_POSITIVE_PRICE = "non_positive_price"
    NEGATIVE_VOLUME = "negative_volume"
    HIGH_LOW = "high_low"  # high below, or low above, one of the other prices
    CONFLICTING_DUPLICATE = "conflicting_duplicate"
    OFF_GRID = "off_grid"
    CLOSED_DAY = "closed_day"
    FUTURE = "future"
    BAD_SYMBOL = "bad_symbol"
    UNREADABLE = "unreadable"  # a cell that is not a number or a time
