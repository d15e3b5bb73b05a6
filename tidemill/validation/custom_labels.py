"""Labels of a user's function: their values, the moment at which each is known, and the proof that the declared horizon holds.

Splits are purged by the moment at which a label is known. A function that reads further than it declares would carry the test
window into training, so it is run again on bars that end earlier: what it says to know by then must not change.
"""

from datetime import datetime

import polars as pl

from tidemill.domain.errors import InputError
from tidemill.validation.labels import LABEL_COLUMNS, Label, crosses, marks_so_far
from tidemill.validation.panel import require_columns, require_panel

_PRICES = ("high", "low", "close", "volume", "quote_volume")
# Where the bars are cut for the proof, as shares of the bar times.
_CUTS = (0.35, 0.6, 0.85)


def custom_labels(bars: pl.DataFrame, label: Label, *, suspected: pl.DataFrame | None = None) -> pl.DataFrame:
    """`symbol, open_time, label, label_end_at` of a user's label, one row for each bar and in its order.

    bars: adjusted, sorted by symbol and open_time. `label_end_at` is the open time of the symbol's bar t + 1 + horizon; where
    there is none yet, or the value is null, NaN or infinite, both are null. Raises InputError when the function fails, and
    when it reads beyond its horizon.
    """
    require_panel(bars, "bars frame")
    made = _labels(bars, label)
    times = bars["open_time"].unique().sort()
    for share in _CUTS:
        if len(times) > label.horizon + 2:
            _prove(bars, label, made, times[int(share * (len(times) - 1))])
    return made if suspected is None else _within(made, marks_so_far(bars, suspected), label.horizon)


def _within(made: pl.DataFrame, marks: pl.Series, horizon: int) -> pl.DataFrame:
    """The labels that cross no mark; the others are null."""
    whole = ~crosses(horizon)
    kept = (pl.when(whole).then(pl.col(name)).alias(name) for name in ("label", "label_end_at"))
    return made.with_columns(marks).with_columns(kept).select(LABEL_COLUMNS)


def _labels(bars: pl.DataFrame, label: Label) -> pl.DataFrame:
    answer = label.run(bars)
    names = [name for name in answer.columns if name not in ("symbol", "open_time")]
    column = "label" if "label" in names else names[-1] if len(names) == 1 else label.name
    require_columns(answer, (column,), f"answer of the label {label.name}")
    if not answer.schema[column].is_numeric() and answer.schema[column] not in (pl.Boolean, pl.Null):
        raise InputError(f"The label {label.name} does not return numbers. Return one number for each bar.")
    end = pl.col("open_time").shift(-1 - label.horizon).over("symbol")
    value = pl.col("label").is_finite() & end.is_not_null()
    return (
        bars.select("symbol", "open_time")
        .with_columns(answer[column].cast(pl.Float64).alias("label"))
        .with_columns(pl.when(value).then(pl.col("label")).alias("label"), pl.when(value).then(end).alias("label_end_at"))
        .select(LABEL_COLUMNS)
    )


def _prove(bars: pl.DataFrame, label: Label, made: pl.DataFrame, cut: datetime) -> None:
    """InputError unless every label that is known at `cut` is the same when nothing later is there.

    At a moment only the open of the bar that begins then is known, so the rest of those bars is taken away.
    """
    blank = [pl.when(pl.col("open_time") < cut).then(pl.col(name)).alias(name) for name in _PRICES if name in bars.columns]
    seen = bars.filter(pl.col("open_time") <= cut).with_columns(blank)
    again = _labels(seen, label)
    known = made.filter(pl.col("label_end_at") <= cut)
    compared = known.join(again, on=("symbol", "open_time"), how="left", suffix="_again")
    changed = compared.filter(pl.col("label").ne_missing(pl.col("label_again")))
    if changed.height:
        row = changed.row(0, named=True)
        raise InputError(
            f"The label {label.name} of {row['symbol']} at {row['open_time']:%Y-%m-%d %H:%M} reads beyond its horizon of "
            f"{label.horizon} bars: it changes with bars after {cut:%Y-%m-%d %H:%M}. Declare a longer horizon."
        )
