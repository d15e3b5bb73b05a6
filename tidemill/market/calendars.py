"""Which calendar each symbol of a set of bars follows, told by its open times."""

from collections import Counter
from datetime import date

import numpy as np
import polars as pl

from tidemill.calendars import ALWAYS, XNYS, calendar_named
from tidemill.domain.intervals import Interval

_DAY = 86_400
_NEW_YORK = "America/New_York"
# A stock file may hold a stray weekend row, which validation then refuses; a venue that never closes has 2 in 7.
_WEEKEND_SHARE = 0.10
# Bars outside 04:00-20:00 in New York: none in stock data, a third of a day on a venue that never closes.
_NIGHT_SHARE = 0.05
_HOLIDAY_SHARE = 0.5
# So many hours in which it has a bar tell a symbol's calendar: of hourly bars six weeks, of daily ones four years.
_HOURS = 1_000
# Days of its own without which a symbol says nothing for itself.
_ENOUGH_DAYS = 20


def infer_calendar(bars: pl.DataFrame, interval: Interval) -> str:
    """The calendar of bars of one kind: XNYS where the open times prove it, else 24/7, under which no day is closed.

    bars: frame with `open_time`. XNYS needs evidence: a weekend inside the range without bars, no trade on most New York
    holidays in the range, and, for intraday bars, none at night. Too short a range proves nothing and gives 24/7.
    """
    times = bars.select(pl.col("open_time").drop_nulls())
    days = times.select(calendar_named(XNYS).day(interval).alias("day"))["day"].unique().sort()
    span = _span(days)
    if interval.seconds > _DAY or not (span.dt.weekday() == 7).any() or _share(days.dt.weekday() >= 6) > _WEEKEND_SHARE:
        return ALWAYS
    if interval.seconds < _DAY and _share(times.select(_at_night())["open_time"]) > _NIGHT_SHARE:
        return ALWAYS
    holidays = _holidays(span)
    worked = days.is_in(holidays.implode()).sum()
    return ALWAYS if holidays.len() and worked > _HOLIDAY_SHARE * holidays.len() else XNYS


def infer_calendars(bars: pl.DataFrame, interval: Interval, otherwise: str | None = None) -> dict[str, str]:
    """Symbol → calendar, told by its own bars. What they leave open (too few, or no holiday among them) the bars of its kind
    tell: of all symbols that trade at weekends or at night, or of all that do not. Where no symbol with bars enough has another
    calendar than all bars together, that one is everybody's.

    bars: symbol, open_time. otherwise: what is known of the source, instead of what all bars together tell.
    """
    symbols = bars["symbol"].unique().drop_nulls().sort().to_list()
    whole = otherwise or infer_calendar(bars, interval)
    if interval.seconds > _DAY or (otherwise is None and len(symbols) < 2):
        return dict.fromkeys(symbols, whole)
    told = _evidence(bars, interval)
    if set(told.filter("enough").select(pl.when("proves").then("calendar"))["calendar"]) <= {whole}:
        return dict.fromkeys(symbols, whole)
    kinds = {restless: _pooled(bars, own, interval) for (restless,), own in told.group_by("restless")}
    supposed = pl.col("restless").replace_strict(kinds, return_dtype=pl.String)
    told = told.with_columns(pl.when("proves").then("calendar").otherwise(supposed).alias("calendar"))
    if set(told.filter("enough")["calendar"]) <= {whole}:
        return dict.fromkeys(symbols, whole)
    return dict.fromkeys(symbols, whole) | dict(told.select("symbol", "calendar").iter_rows())


def _pooled(bars: pl.DataFrame, kind: pl.DataFrame, interval: Interval) -> str:
    return infer_calendar(bars.filter(pl.col("symbol").is_in(kind["symbol"].implode())), interval)


def _evidence(bars: pl.DataFrame, interval: Interval) -> pl.DataFrame:
    """One row for each symbol with a time: symbol, calendar, restless (trades at weekends or at night), enough (bars to say
    something), proves (they leave nothing open).
    """
    day, night = pl.col("day"), _at_night() if interval.seconds < _DAY else pl.lit(False)
    times = bars.select("symbol", "open_time").drop_nulls().with_columns(calendar_named(XNYS).day(interval).alias("day"))
    span = _span(times["day"])
    holidays, sundays = _holidays(span), span.filter(span.dt.weekday() == 7)
    holiday = day.is_in(holidays.implode())
    found = times.group_by("symbol").agg(
        day.n_unique().alias("days"),
        day.min().alias("first"),
        day.max().alias("last"),
        ((day.dt.weekday() >= 6).mean() > _WEEKEND_SHARE).alias("weekend"),
        (night.mean() > _NIGHT_SHARE).alias("night"),
        day.filter(holiday).n_unique().alias("worked"),
    )
    found = found.with_columns(_between(found, sundays, "sundays"), _between(found, holidays, "holidays"))
    restless, lived = pl.col("weekend") | pl.col("night"), pl.col("holidays") > 0
    works = lived & (pl.col("worked") > _HOLIDAY_SHARE * pl.col("holidays"))
    fits, enough = ~restless & ~works & (pl.col("sundays") > 0), pl.col("days") >= _ENOUGH_DAYS
    return found.select(
        "symbol",
        pl.when(fits).then(pl.lit(XNYS)).otherwise(pl.lit(ALWAYS)).alias("calendar"),
        restless.alias("restless"),
        enough.alias("enough"),
        (enough & (restless | lived)).alias("proves"),
    )


def _at_night() -> pl.Expr:
    return ~pl.col("open_time").dt.convert_time_zone(_NEW_YORK).dt.hour().is_between(4, 20)


def _share(flags: pl.Series) -> float:
    share = flags.mean()
    return share if isinstance(share, float) else 0.0


def _span(days: pl.Series) -> pl.Series:
    """All days from the first to the last."""
    first, last = days.min(), days.max()
    if not isinstance(first, date) or not isinstance(last, date):
        return days.clear()
    return pl.date_range(first, last, "1d", eager=True)


def _holidays(span: pl.Series) -> pl.Series:
    return calendar_named(XNYS).closed_days(span.filter(span.dt.weekday() <= 5))


def _between(found: pl.DataFrame, days: pl.Series, name: str) -> pl.Series:
    """How many of `days`, which ascend, lie in each symbol's range."""
    first, last = (found[end].to_numpy().astype("datetime64[D]") for end in ("first", "last"))
    known = days.to_numpy().astype("datetime64[D]")
    return pl.Series(name, np.searchsorted(known, last, side="right") - np.searchsorted(known, first))


class FirstBars:
    """The first bars of each symbol of a source that is read in chunks: as many as tell its calendar, however long it is."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._parts: list[pl.DataFrame] = []

    def add(self, chunk: pl.DataFrame) -> None:
        """chunk: symbol, open_time."""
        full = [symbol for symbol, count in self._counts.items() if count >= _HOURS]
        fresh = chunk.filter(~pl.col("symbol").is_in(full)) if full else chunk
        hours = fresh.drop_nulls().with_columns(pl.col("open_time").dt.truncate("1h"))
        again = (pl.col("symbol") == pl.col("symbol").shift()) & (pl.col("open_time") == pl.col("open_time").shift())
        first = hours.filter(~again.fill_null(False))
        self._counts.update(dict(first["symbol"].value_counts().iter_rows()))
        self._parts.append(first)

    def calendars(self, interval: Interval, otherwise: str | None = None) -> dict[str, str]:
        """As `infer_calendars`."""
        return infer_calendars(pl.concat(self._parts), interval, otherwise) if self._parts else {}
