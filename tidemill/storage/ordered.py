"""Rows in the order in which panels are kept: by symbol, and by open_time within each."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

_KEYS = ("symbol", "open_time")
_CODE = "__code"


def by_symbol(frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` sorted by symbol, and by open_time where it has that column; rows that are equal in both keep their order.

    Symbols are sorted as numbers, and times only where those of a symbol are not in order already, as they are in what is read
    month after month: a third of the time of sorting by both.
    """
    import polars as pl  # a study names this module, and commands that read nothing import studies

    keys = [name for name in _KEYS if name in frame.columns]
    if frame.height < 2 or any(frame[name].null_count() for name in keys):
        return frame.sort(keys, maintain_order=True)
    names = pl.Enum(frame["symbol"].unique().sort())
    code = frame["symbol"].cast(names).to_physical().alias(_CODE)
    made = frame.with_columns(code).sort(_CODE, maintain_order=True)
    within = pl.col(_CODE) == pl.col(_CODE).shift()
    if "open_time" in keys and made.select((within & (pl.col("open_time") < pl.col("open_time").shift())).any()).item():
        return frame.sort(keys, maintain_order=True)
    return made.drop(_CODE)
