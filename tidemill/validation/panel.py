"""What every frame of (symbol, open_time, …) must be before it is labelled, split or learnt from."""

from collections.abc import Iterable

import polars as pl

from tidemill.domain.errors import InputError
from tidemill.domain.naming import first_of

TIME = pl.Datetime("us", "UTC")


def require_columns(frame: pl.DataFrame, columns: Iterable[str], what: str) -> None:
    """InputError naming the columns of `columns` that `frame` lacks; `what` says what the frame is."""
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise InputError(f"The {what} lacks the column(s) {first_of(missing, 8)}. Add them, or ask for other columns.")


def require_panel(frame: pl.DataFrame, what: str) -> None:
    """InputError unless `frame` holds UTC times in microseconds, sorted by (symbol, open_time) without duplicates."""
    require_columns(frame, ("symbol", "open_time"), what)
    if frame.schema["open_time"] != TIME:
        raise InputError(f"The column open_time of the {what} is {frame.schema['open_time']}; give UTC times in microseconds.")
    if frame["symbol"].null_count() or frame["open_time"].null_count():
        raise InputError(f"The {what} holds rows without a symbol or open_time. Remove them.")
    same = pl.col("symbol") == pl.col("symbol").shift(1)
    disordered = (same & (pl.col("open_time") <= pl.col("open_time").shift(1))).any()
    groups = (~same).fill_null(value=True).sum()
    bad, runs = frame.select(disordered.alias("bad"), groups.alias("runs")).row(0)
    if bad or (frame.height and runs != frame["symbol"].n_unique()):
        raise InputError(
            f"The {what} is not sorted by symbol and open_time, or holds a bar twice. Sort it and remove duplicates."
        )
