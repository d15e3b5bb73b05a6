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
    if interval.seconds > _DAY:
        return ALWAYS
    told = _evidence(bars.select("open_time").with_columns(pl.lit("").alias("symbol")), interval)
    return XNYS if told.height and told["fits"][0] else ALWAYS


def infer_calendars(bars: pl.DataFrame, interval: Interval, otherwise: str | None = None) -> dict[str, str]:
    """Symbol → calendar, told by its own bars. What they leave open (too few, or no holiday among them) the bars of its kind
    tell: of all symbols that trade at weekends or at night, or of all that do not. Where no symbol with bars enough has another
    calendar than all bars together, that one is everybody's.

    bars: symbol, open_time. otherwise: what is known of the source, instead of what all bars together tell.
    """
    symbols = bars["symbol"].drop_nulls().unique().sort().to_list()
    whole = otherwise or infer_calendar(bars, interval)
    if interval.seconds > _DAY or (otherwise is None and len(symbols) < 2):
        return dict.fromkeys(symbols, whole)
    told = _evidence(bars, interval)
    kinds = {restless: _pooled(bars, own, interval) for (restless,), own in told.group_by("restless")}
    supposed = pl.col("restless").replace_strict(kinds, return_dtype=pl.String)
    told = told.with_columns(pl.when("proves").then("calendar").otherwise(supposed).alias("calendar"))
    if set(told.filter("enough")["calendar"]) <= {whole}:
        return dict.fromkeys(symbols, whole)
    return dict.fromkeys(symbols, whole) | dict(told.select("symbol", "calendar").iter_rows())


def _pooled(bars: pl.DataFrame, kind: pl.DataFrame, interval: Interval) -> str:
    return infer_calendar(bars.join(kind, on="symbol", how="semi"), interval)


def _evidence(bars: pl.DataFrame, interval: Interval) -> pl.DataFrame:
    """One row for each symbol with a time: symbol, fits (XNYS), calendar, restless (trades at weekends or at night), enough
    (bars to say something), proves (they leave nothing open).
    """
    times = bars.select("symbol", "open_time").drop_nulls()
    days = times.select("symbol", calendar_named(XNYS).day(interval).alias("day")).unique()
    weekend = pl.col("day").dt.weekday() >= 6
    found = days.group_by("symbol").agg(
        pl.len().alias("days"), pl.col("day").min().alias("first"), pl.col("day").max().alias("last"),
        weekend.mean().alias("weekend"),
    )  # fmt: skip
    found = _beside_closed_days(found, days).join(_nights(times, interval), on="symbol", how="left")
    restless = (pl.col("weekend") > _WEEKEND_SHARE) | (pl.col("night").fill_null(0.0) > _NIGHT_SHARE)
    works = (pl.col("holidays") > 0) & (pl.col("worked").fill_null(0) > _HOLIDAY_SHARE * pl.col("holidays"))
    fits, enough = ~restless & ~works & (pl.col("sundays") > 0), pl.col("days") >= _ENOUGH_DAYS
    return found.select(
        "symbol",
        fits.alias("fits"),
        pl.when(fits).then(pl.lit(XNYS)).otherwise(pl.lit(ALWAYS)).alias("calendar"),
        restless.alias("restless"),
        enough.alias("enough"),
        (enough & (restless | (pl.col("holidays") > 0))).alias("proves"),
    )


def _beside_closed_days(found: pl.DataFrame, days: pl.DataFrame) -> pl.DataFrame:
    """`found` with sundays and holidays in each symbol's range, and on how many of the holidays it traded (null: on none)."""
    first, last = days["day"].min(), days["day"].max()
    if not isinstance(first, date) or not isinstance(last, date):
        return found.with_columns(sundays=0, holidays=0, worked=None)
    span = pl.date_range(first, last, "1d", eager=True)
    sundays = span.filter(span.dt.weekday() == 7)
    holidays = calendar_named(XNYS).closed_days(span.filter(span.dt.weekday() <= 5))
    worked = days.filter(pl.col("day").is_in(holidays.implode())).group_by("symbol").len("worked")
    return found.with_columns(_between(found, sundays, "sundays"), _between(found, holidays, "holidays")).join(
        worked, on="symbol", how="left"
    )


def _between(found: pl.DataFrame, days: pl.Series, name: str) -> pl.Series:
    """How many of `days`, which ascend, lie in each symbol's range."""
    first, last = (found[end].to_numpy().astype("datetime64[D]") for end in ("first", "last"))
    known = days.to_numpy().astype("datetime64[D]")
    return pl.Series(name, np.searchsorted(known, last, side="right") - np.searchsorted(known, first))


def _nights(times: pl.DataFrame, interval: Interval) -> pl.DataFrame:
    """symbol, night: the share of its bars that opens at night in New York; none of daily bars."""
    if interval.seconds >= _DAY:
        return times.clear().select("symbol", pl.lit(0.0).alias("night"))
    hour = pl.col("open_time").dt.convert_time_zone(_NEW_YORK).dt.hour()
    return times.group_by("symbol").agg((~hour.is_between(4, 20)).mean().alias("night"))


class FirstBars:
    """The first bars of each symbol of a source that is read in chunks: as many as tell its calendar, however long it is."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._parts: list[pl.DataFrame] = []

    def add(self, chunk: pl.DataFrame) -> None:
        """chunk: symbol, open_time."""
        full = [symbol for symbol, count in self._counts.items() if count >= _HOURS]
        fresh = chunk.filter(~pl.col("symbol").is_in(full)) if full else chunk
        hours = fresh.drop_nulls().with_columns(pl.col("open_time").dt.truncate("1h")).unique(maintain_order=True)
        first = hours.group_by("symbol", maintain_order=True).head(_HOURS)
        self._counts.update(dict(first.group_by("symbol").len().iter_rows()))
        self._parts.append(first)

    def calendars(self, interval: Interval, otherwise: str | None = None) -> dict[str, str]:
        """As `infer_calendars`."""
        return infer_calendars(pl.concat(self._parts), interval, otherwise) if self._parts else {}
