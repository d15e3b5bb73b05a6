"""Random panels of bars: late listings, halts, missing cells, zero volume, flat stretches."""

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

DAY = 86_400_000_000
COLUMNS = ["open", "high", "low", "close", "volume"]


def bars_of(symbol: str, slots: NDArray[np.int64], columns: dict[str, NDArray[np.float64]]) -> pl.DataFrame:
    times = pl.Series("open_time", slots.astype(np.int64) * DAY).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame({"symbol": pl.Series([symbol] * len(slots), dtype=pl.String), "open_time": times, **columns})


def random_bars(
    rng: np.random.Generator, length: int, missing: float = 0.0, idle: float = 0.0, level: float = 100.0
) -> dict[str, NDArray[np.float64]]:
    close = level * np.exp(np.cumsum(rng.normal(0, 0.02, length)))
    if length > 20 and idle:
        close[length // 3 : length // 3 + 12] = close[length // 3]
    opened = close * np.exp(rng.normal(0, 0.005, length))
    high = np.maximum(opened, close) * (1 + rng.random(length) * 0.01 * (rng.random(length) > idle))
    low = np.minimum(opened, close) * (1 - rng.random(length) * 0.01 * (rng.random(length) > idle))
    volume = np.where(rng.random(length) < idle, 0.0, np.round(rng.lognormal(8, 1, length)))
    columns = dict(zip(COLUMNS, (opened, high, low, close, volume), strict=True))
    for column in columns.values():
        column[rng.random(length) < missing] = np.nan
    return columns


def random_panel(
    seed: int, symbols: int = 5, slots: int = 150, missing: float = 0.02, absent: float = 0.1, idle: float = 0.05
) -> pl.DataFrame:
    """Symbols S0, S1 …, of which the later ones are listed later; some slots of each are absent."""
    rng = np.random.default_rng(seed)
    frames = []
    for index in range(symbols):
        listed = 0 if index == 0 else int(rng.integers(0, slots))
        own = np.flatnonzero((np.arange(slots) >= listed) & (rng.random(slots) >= absent))
        frames.append(bars_of(f"S{index}", own, random_bars(rng, len(own), missing, idle, level=10.0 ** rng.integers(-5, 6))))
    return pl.concat(frames)


@pytest.fixture(scope="session")
def clean_panel() -> pl.DataFrame:
    return random_panel(11, symbols=4, slots=900, missing=0.0, absent=0.1, idle=0.0)
