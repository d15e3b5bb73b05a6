"""Raw rows in, bars and a quarantine out: every row is judged by the same rules, whatever source it came from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from tidemill.calendars import ALWAYS, Calendar, Followed, by_calendar, calendar_named
from tidemill.domain.errors import InputError
from tidemill.domain.intervals import Interval
from tidemill.domain.market import BAR_COLUMNS, PRICE_COLUMNS, QuarantineReason, valid_symbol
from tidemill.quality.flags import flag_bars

_TIME = pl.Datetime("us", "UTC")
_REQUIRED = ("symbol", "open_time", *PRICE_COLUMNS, "volume")
_NUMBERS = (*PRICE_COLUMNS, "volume", "quote_volume", "adjusted_close")
_VALUES = [*PRICE_COLUMNS, "volume", "quote_volume", "adjusted_close"]
_KEY = ["symbol", "open_time"]
# Position is the code of the reason; the first that holds is the one reported.
_ORDER = (
    QuarantineReason.UNREADABLE,
    QuarantineReason.NULL,
    QuarantineReason.BAD_SYMBOL,
    QuarantineReason.NON_FINITE,
    QuarantineReason.NON_POSITIVE_PRICE,
    QuarantineReason.NEGATIVE_VOLUME,
    QuarantineReason.OFF_GRID,
    QuarantineReason.CLOSED_DAY,
    QuarantineReason.FUTURE,
    QuarantineReason.HIGH_LOW,
    QuarantineReason.CONFLICTING_DUPLICATE,
)
_CODE = {reason: code for code, reason in enumerate(_ORDER, start=1)}
QUARANTINE_SCHEMA = pl.Schema(
    {
        "venue": pl.String(),
        "interval": pl.String(),
        "symbol": pl.String(),
        "open_time": _TIME,
        "reason": pl.String(),
        "detail": pl.String(),
        "source": pl.String(),
        "source_line": pl.Int64(),
    }
)


@dataclass(frozen=True, slots=True)
class Validated:
    """What became of raw rows: rows = good + quarantine + duplicates.

    good: BAR_COLUMNS, sorted by symbol and open_time. quarantine: QUARANTINE_SCHEMA. flags: FLAG_SCHEMA, of good bars and of
    those refused for HIGH_LOW. duplicates: equal rows that were dropped. adjusted: symbol, open_time, close, adjusted_close,
    known_at of the good bars where the source has an adjusted close, else None.
    """

    good: pl.DataFrame
    quarantine: pl.DataFrame
    flags: pl.DataFrame
    duplicates: int
    adjusted: pl.DataFrame | None = None

    def reasons(self) -> dict[str, int]:
        """Quarantined rows by reason, most frequent first."""
        counts = self.quarantine.group_by("reason").len().sort("len", "reason", descending=[True, False])
        return dict(counts.iter_rows())


def validate_bars(
    raw: pl.DataFrame, *, interval: Interval, calendar: Followed, now: datetime, source: str, venue: str = ""
) -> Validated:
    """Judge raw rows (columns of `ports.BarSource`, optionally `unreadable`: a text where a cell could not be read).

    Each bad row goes to the quarantine with its first reason, a detail and its source line. Rows with equal key and equal
    values are one bar; with equal key and other values none is kept, since nothing says which is right. calendar: that
    of all symbols, or of each. A bar that is not closed at `now` (timezone-aware) is FUTURE. Duplicates are looked for within
    one call; those in other chunks meet in the store. InputError when a column is missing.
    """
    frame = _prepared(raw)
    codes = frame.select(_code(frame, interval, calendar, now).alias("code"))["code"]
    refused = codes != 0
    bad = frame.filter(refused).with_columns(codes.filter(refused))
    clean = frame if not refused.any() else frame.filter(~refused)
    unique, conflicting = _unique(_sorted(clean))
    duplicates = clean.height - unique.height - conflicting.height
    bad = pl.concat(
        [bad, conflicting.with_columns(pl.lit(_CODE[QuarantineReason.CONFLICTING_DUPLICATE], pl.Int8).alias("code"))]
    )
    closed = unique.with_columns(known_at=pl.col("open_time") + pl.duration(microseconds=interval.microseconds))
    has_actions = "adjusted_close" in raw.columns
    return Validated(
        good=closed.select(BAR_COLUMNS),
        quarantine=_quarantine(bad, interval, calendar, now, source, venue),
        flags=_flagged(closed, bad, interval, has_actions=has_actions),
        duplicates=duplicates,
        adjusted=closed.select("symbol", "open_time", "close", "adjusted_close", "known_at") if has_actions else None,
    )


def _prepared(raw: pl.DataFrame) -> pl.DataFrame:
    missing = [column for column in _REQUIRED if column not in raw.columns]
    if missing:
        raise InputError(f"Bars lack the column {', '.join(missing)}. Found: {', '.join(raw.columns) or 'none'}.")
    absent = [column for column in (*_NUMBERS, "source_line", "unreadable") if column not in raw.columns]
    frame = raw.with_columns(pl.lit(None).alias(column) for column in absent)
    return frame.select(
        pl.col("symbol").cast(pl.String),
        _utc(raw.schema["open_time"]).alias("open_time"),
        *(pl.col(column).cast(pl.Float64) for column in _NUMBERS),
        pl.col("source_line").cast(pl.Int64),
        pl.col("unreadable").cast(pl.String),
    )


def _utc(dtype: pl.DataType) -> pl.Expr:
    time = pl.col("open_time")
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return time.dt.convert_time_zone("UTC").dt.cast_time_unit("us")
    if isinstance(dtype, pl.Datetime) or dtype in (pl.Date, pl.Null):
        return time.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    raise InputError(f"The column open_time must hold dates or times, not {dtype}.")


# --- the rules -------------------------------------------------------------------------------------------------------------


def _code(frame: pl.DataFrame, interval: Interval, calendar: Followed, now: datetime) -> pl.Expr:
    """0 for a good row, else the code of the first reason that holds."""
    numbers = [pl.col(column) for column in (*PRICE_COLUMNS, "volume")]
    prices = [pl.col(column) for column in PRICE_COLUMNS]
    rules = {
        QuarantineReason.UNREADABLE: _any_in(frame["unreadable"], pl.col("unreadable").is_not_null()),
        QuarantineReason.NULL: pl.any_horizontal(pl.col(c).is_null() for c in _REQUIRED),
        QuarantineReason.BAD_SYMBOL: pl.col("symbol").is_in(_bad_symbols(frame["symbol"])),
        QuarantineReason.NON_FINITE: ~pl.all_horizontal(number.is_finite() for number in numbers),
        QuarantineReason.NON_POSITIVE_PRICE: pl.any_horizontal(price <= 0 for price in prices),
        QuarantineReason.NEGATIVE_VOLUME: pl.col("volume") < 0,
        QuarantineReason.OFF_GRID: _by_calendar(frame, calendar, lambda own: own.off_grid(interval)),
        QuarantineReason.CLOSED_DAY: _by_calendar(frame, calendar, lambda own: _on_closed_day(frame, interval, own)),
        QuarantineReason.FUTURE: pl.col("open_time") > now - interval.delta,
        QuarantineReason.HIGH_LOW: (pl.col("high") < pl.max_horizontal("open", "close", "low"))
        | (pl.col("low") > pl.min_horizontal("open", "close")),
    }
    code = pl.lit(0, pl.Int8)
    for reason in reversed(rules):
        code = pl.when(rules[reason].fill_null(False)).then(pl.lit(_CODE[reason], pl.Int8)).otherwise(code)
    return code


def _any_in(column: pl.Series, rule: pl.Expr) -> pl.Expr:
    return rule if column.null_count() < column.len() else pl.lit(False)


def _bad_symbols(symbols: pl.Series) -> list[str]:
    bad = []
    for symbol in symbols.drop_nulls().unique().to_list():
        try:
            valid_symbol(symbol)
        except InputError:
            bad.append(symbol)
    return bad


def _by_calendar(frame: pl.DataFrame, calendar: Followed, rule: Callable[[Calendar], pl.Expr]) -> pl.Expr:
    """What each row's own calendar says."""
    groups = by_calendar(frame["symbol"].drop_nulls().unique(), calendar) if not isinstance(calendar, str) else {calendar: []}
    judged = pl.lit(False)
    for name, symbols in groups.items():
        own = rule(calendar_named(name))
        judged = own if len(groups) == 1 else pl.when(pl.col("symbol").is_in(symbols)).then(own).otherwise(judged)
    return judged


def _on_closed_day(frame: pl.DataFrame, interval: Interval, own: Calendar) -> pl.Expr:
    if own.never_closes or interval.seconds > 86_400:
        return pl.lit(False)
    day = own.day(interval)
    closed = own.closed_days(frame.select(day.unique().alias("day"))["day"])
    return day.is_in(closed.implode()) if closed.len() else pl.lit(False)


# --- duplicates ------------------------------------------------------------------------------------------------------------


def _sorted(frame: pl.DataFrame) -> pl.DataFrame:
    """By symbol and time, rows of one key in the order given; sources mostly deliver in order, and looking is cheap."""
    symbol, time = pl.col("symbol"), pl.col("open_time")
    before, earlier = symbol.shift(), time.shift()
    ordered = frame.select(((symbol > before) | ((symbol == before) & (time >= earlier))).all()).item()
    return frame if ordered else frame.sort(_KEY, maintain_order=True)


def _unique(frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(one row for each key whose rows agree, all rows of keys whose rows differ); `frame` is sorted by key."""
    same = (pl.col("symbol") == pl.col("symbol").shift()) & (pl.col("open_time") == pl.col("open_time").shift())
    repeated = frame.select(same.fill_null(False).alias("same"))["same"]
    if not repeated.any():
        return frame, frame.clear()
    keys = frame.filter(repeated).select(_KEY).unique()
    twins = frame.join(keys, on=_KEY, how="semi", maintain_order="left")
    differing = twins.group_by(_KEY).agg(pl.struct(_VALUES).n_unique().alias("versions")).filter(pl.col("versions") > 1)
    conflicting = twins.join(differing, on=_KEY, how="semi", maintain_order="left")
    kept = frame.filter(~repeated).join(differing, on=_KEY, how="anti", maintain_order="left")
    return kept, conflicting


# --- what is told about them -------------------------------------------------------------------------------------------------


def _flagged(closed: pl.DataFrame, bad: pl.DataFrame, interval: Interval, *, has_actions: bool) -> pl.DataFrame:
    """A wrong close often breaks high and low too; its neighbours still show that it was a spike."""
    broken = bad.filter(pl.col("code") == _CODE[QuarantineReason.HIGH_LOW]).drop("code")
    if not broken.height:
        return flag_bars(closed, has_actions=has_actions)
    known = broken.with_columns(known_at=pl.col("open_time") + pl.duration(microseconds=interval.microseconds))
    together = pl.concat([closed, known]).unique(_KEY, keep="first", maintain_order=True)
    return flag_bars(together.sort(_KEY), has_actions=has_actions)


def _quarantine(
    bad: pl.DataFrame, interval: Interval, calendar: Followed, now: datetime, source: str, venue: str
) -> pl.DataFrame:
    details = _details(interval, calendar, now)
    bad = bad.rechunk()  # polars 2.1 panics when it formats columns that are chunked differently
    detail = pl.lit("")
    for reason, text in details.items():
        detail = pl.when(pl.col("code") == _CODE[reason]).then(text).otherwise(detail)
    names = {code: reason.value for reason, code in _CODE.items()}
    return bad.select(
        pl.lit(venue).alias("venue"),
        pl.lit(str(interval)).alias("interval"),
        "symbol",
        "open_time",
        pl.col("code").replace_strict(names, return_dtype=pl.String).alias("reason"),
        detail.alias("detail"),
        pl.lit(source).alias("source"),
        "source_line",
    ).sort("source_line", "symbol", "open_time", nulls_last=True)


def _details(interval: Interval, calendar: Followed, now: datetime) -> dict[QuarantineReason, pl.Expr]:
    time = pl.col("open_time").dt.to_string("iso:strict").fill_null("no time")
    shown = pl.concat_str(
        [pl.format(name + " {}", pl.col(name).cast(pl.String).fill_null("null")) for name in (*PRICE_COLUMNS, "volume")],
        separator=", ",
    )
    return {
        QuarantineReason.UNREADABLE: pl.col("unreadable"),
        QuarantineReason.NULL: pl.concat_str(
            [pl.when(pl.col(name).is_null()).then(pl.lit(name)) for name in _REQUIRED], separator=", ", ignore_nulls=True
        )
        + " missing",
        QuarantineReason.BAD_SYMBOL: pl.lit("not a symbol"),
        QuarantineReason.NON_FINITE: shown,
        QuarantineReason.NON_POSITIVE_PRICE: shown,
        QuarantineReason.NEGATIVE_VOLUME: pl.format("volume {}", "volume"),
        QuarantineReason.OFF_GRID: pl.format("{} does not open a {} bar", time, pl.lit(str(interval))),
        QuarantineReason.CLOSED_DAY: pl.format("{} is not a session of {}", time, _name(calendar)),
        QuarantineReason.FUTURE: pl.format("{} is not closed at {}", time, pl.lit(now.isoformat(timespec="seconds"))),
        QuarantineReason.HIGH_LOW: shown,
        QuarantineReason.CONFLICTING_DUPLICATE: shown,
    }


def _name(calendar: Followed) -> pl.Expr:
    """The name of each row's calendar."""
    if isinstance(calendar, str):
        return pl.lit(calendar)
    return pl.col("symbol").replace_strict(dict(calendar), default=ALWAYS, return_dtype=pl.String)


def merge(parts: Sequence[Validated]) -> Validated:
    """What became of several chunks together. Duplicates across chunks are not looked for."""
    if not parts:
        raise InputError("There are no rows to validate. Give a source with at least one bar.")
    adjusted = [part.adjusted for part in parts if part.adjusted is not None]
    return Validated(
        good=pl.concat([part.good for part in parts]).sort(_KEY, maintain_order=True),
        quarantine=pl.concat([part.quarantine for part in parts]),
        flags=pl.concat([part.flags for part in parts]),
        duplicates=sum(part.duplicates for part in parts),
        adjusted=pl.concat(adjusted).sort(_KEY, maintain_order=True) if adjusted else None,
    )
