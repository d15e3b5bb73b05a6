"""Tables that the expectation suites look at.

Missing columns become null ones, so that their absence is reported, not raised.
"""

from collections.abc import Mapping

import polars as pl

from tidemill.quality.frames import profile, repeated_keys

_TIME = pl.Datetime("us", "UTC")
_BARS = {
    "symbol": pl.String(),
    "open_time": _TIME,
    "open": pl.Float64(),
    "high": pl.Float64(),
    "low": pl.Float64(),
    "close": pl.Float64(),
    "volume": pl.Float64(),
    "known_at": _TIME,
}
_PREDICTIONS = {
    "engine": pl.String(),
    "symbol": pl.String(),
    "open_time": _TIME,
    "prediction": pl.Float64(),
    "model_id": pl.String(),
    "known_at": _TIME,
}


def bars_view(bars: pl.DataFrame) -> pl.DataFrame:
    """Bars with `below_high` (high minus the highest other price), `above_low` and `move` (return since the close before)."""
    frame = _completed(bars, _BARS).sort("symbol", "open_time")
    before = pl.when(pl.col("symbol") == pl.col("symbol").shift()).then(pl.col("close").shift())
    return frame.with_columns(
        below_high=pl.col("high") - pl.max_horizontal("open", "low", "close"),
        above_low=pl.min_horizontal("open", "high", "close") - pl.col("low"),
        move=pl.when(before > 0).then(pl.col("close") / before - 1),
    )


def features_view(features: pl.DataFrame) -> pl.DataFrame:
    """One row a feature: its profile, and `repeated_keys` of the whole frame."""
    keys = ("symbol", "open_time")
    frame = features.with_columns(pl.lit(None).alias(name) for name in keys if name not in features.columns)
    return profile(frame).with_columns(pl.lit(repeated_keys(frame, keys), pl.Int64).alias("repeated_keys"))


def predictions_view(predictions: pl.DataFrame) -> pl.DataFrame:
    """Predictions with `infinite` (0 or 1) and `spread`, the range over the symbols of a bar, where it has two or more."""
    frame = _completed(predictions, _PREDICTIONS)
    value = pl.col("prediction").fill_nan(None)
    group = ["engine", "open_time"]
    spread = pl.when(value.count().over(group) > 1).then((value.max() - value.min()).over(group))
    return frame.with_columns(pl.col("prediction").is_infinite().cast(pl.Int64).alias("infinite"), spread.alias("spread"))


def _completed(frame: pl.DataFrame, columns: Mapping[str, pl.DataType]) -> pl.DataFrame:
    absent = [pl.lit(None).alias(name) for name in columns if name not in frame.columns]
    return frame.with_columns(absent).select(pl.col(name).cast(dtype) for name, dtype in columns.items())
