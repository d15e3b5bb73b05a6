"""Made-up training data with a signal of known strength."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

START = datetime(2020, 1, 1, tzinfo=UTC)
MOMENTUM = ("ROC60", "ROC5", "STD20")
FEATURES = (*MOMENTUM, "x0", "x1", "x2", "x3")


def panel(symbols: int, bars: int, *, skill: float = 0.0, planted: str = "x0", seed: int = 3) -> pl.DataFrame:
    """`symbol, open_time, FEATURES, label, label_end_at`; the label correlates with `planted` at `skill`, with nothing else."""
    chance = np.random.default_rng(seed)
    rows = symbols * bars
    columns = {name: chance.standard_normal(rows) for name in FEATURES}
    label = skill * columns[planted] + np.sqrt(1.0 - skill**2) * chance.standard_normal(rows)
    columns |= {name: np.exp(0.1 * columns[name]) for name in MOMENTUM}
    times = [START + timedelta(days=day) for day in range(bars)] * symbols
    frame = pl.DataFrame(
        {
            "symbol": np.repeat([f"S{number:03d}" for number in range(symbols)], bars),
            "open_time": pl.Series(times, dtype=pl.Datetime("us", "UTC")),
            **columns,
            "label": 0.02 * label,
        }
    )
    return frame.with_columns((pl.col("open_time") + timedelta(days=3)).alias("label_end_at"))


def day(number: int) -> datetime:
    return START + timedelta(days=number)


def before(frame: pl.DataFrame, number: int) -> pl.DataFrame:
    return frame.filter(pl.col("open_time") < day(number))


def information_coefficient(predictions: pl.DataFrame, frame: pl.DataFrame) -> float:
    """Mean over bar times of the correlation of prediction and label."""
    joined = predictions.join(frame.select("symbol", "open_time", "label"), on=("symbol", "open_time"))
    values = joined.group_by("open_time").agg(pl.corr("prediction", "label").alias("value"))["value"].fill_nan(None)
    mean = values.mean()
    assert isinstance(mean, float)
    return mean
