"""Predicates over feature and prediction frames in plain polars, for the live path and as what the suites look at.

Each accepts empty and all-NaN frames: a share of nothing is NaN, a count is 0.
"""

from collections.abc import Sequence

import polars as pl

_PROFILE = pl.Schema(
    {
        "feature": pl.String(),
        "rows": pl.Int64(),
        "finite_share": pl.Float64(),
        "last_finite_share": pl.Float64(),
        "infinite": pl.Int64(),
        "deviation": pl.Float64(),
        "largest": pl.Float64(),
    }
)


def value_columns(frame: pl.DataFrame) -> tuple[str, ...]:
    """The feature columns of a feature frame: everything numeric but its key."""
    keys = {"symbol", "open_time", "known_at"}
    return tuple(name for name, dtype in frame.schema.items() if name not in keys and (dtype.is_numeric() or dtype == pl.Null))


def finite_share(frame: pl.DataFrame, column: str) -> float:
    """Share of rows, 0 to 1, in which `column` is neither null, NaN nor infinite; NaN without rows."""
    if not frame.height:
        return float("nan")
    return float(frame.select(_is_finite(column).mean()).item())


def repeated_keys(frame: pl.DataFrame, keys: Sequence[str]) -> int:
    """Rows beyond the first of each key."""
    return frame.height - frame.select(keys).unique().height


def profile(frame: pl.DataFrame, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """One row for each of `columns` (default: the value columns), in their order.

    feature; rows; finite_share; last_finite_share: that of the rows at the last open_time; infinite: a count; deviation and
    largest: standard deviation and greatest magnitude of the finite values, null where there are too few.
    """
    names = value_columns(frame) if columns is None else tuple(columns)
    if not names:
        return pl.DataFrame(schema=_PROFILE)
    last = frame.filter(pl.col("open_time") == pl.col("open_time").max())
    measured = frame.select(pl.struct(_measures(name)).alias(name) for name in names).row(0) if frame.height else None
    rows = []
    for position, name in enumerate(names):
        found = measured[position] if measured else {"finite_share": None, "infinite": 0, "deviation": None, "largest": None}
        share = finite_share(last, name) if last.height else None
        rows.append({"feature": name, "rows": frame.height, "last_finite_share": share, **found})
    return pl.DataFrame(rows, schema=_PROFILE)


def _is_finite(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.Float64).is_finite().fill_null(False)


def _measures(column: str) -> list[pl.Expr]:
    value = pl.col(column).cast(pl.Float64)
    finite = value.filter(value.is_finite())
    return [
        _is_finite(column).mean().alias("finite_share"),
        value.is_infinite().sum().cast(pl.Int64).alias("infinite"),
        finite.std().alias("deviation"),
        finite.abs().max().alias("largest"),
    ]
