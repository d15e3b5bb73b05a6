"""Panels with every number changed: what a causality proof puts in the place of bars that are not known yet.

A changed bar contradicts the real one: where the price rose it falls, and the other way round, by far more than any real bar
moves. So a value that depends on nothing but the direction of a later bar changes as well.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tidemill.features.frames import run_bounds

Floats = NDArray[np.float64]
PRICES = ("open", "high", "low", "close", "vwap")
SIZES = ("volume", "quote_volume")
_KEYS = ("symbol", "open_time", "known_at")
# Exponents of the factor by which a price or a size is moved away from the value before it.
_LEAST, _MOST = 0.3, 1.5


def changed(frame: pl.DataFrame, seed: int) -> pl.DataFrame:
    """`frame`, sorted by symbol and time, with every numeric cell changed; keys, times and texts stay.

    Prices of one row move by one factor, so that a bar stays a bar; sizes stay above zero; an unknown cell becomes a number.
    """
    generator = np.random.default_rng(seed)
    first = _first_of_symbol(frame)
    made = [_prices(frame, first, generator), _others(frame, first, generator)]
    return frame.with_columns(column for columns in made for column in columns)


def mixed(frame: pl.DataFrame, other: pl.DataFrame, take_other: NDArray[np.bool_]) -> pl.DataFrame:
    """Rows of `other` where flagged, of `frame` elsewhere. Both have the same rows and columns."""
    mask = pl.Series(take_other)
    return frame.with_columns(other[name].zip_with(mask, frame[name]) for name in frame.columns if name not in _KEYS)


def _first_of_symbol(frame: pl.DataFrame) -> NDArray[np.bool_]:
    if "symbol" not in frame.columns:
        only: NDArray[np.bool_] = np.arange(frame.height) == 0
        return only
    flags = np.zeros(frame.height, dtype=np.bool_)
    flags[run_bounds(frame["symbol"])[:-1]] = True
    return flags


def _prices(frame: pl.DataFrame, first: NDArray[np.bool_], generator: np.random.Generator) -> list[pl.Series]:
    names = [name for name in PRICES if name in frame.columns]
    if not names:
        return []
    known = frame.select(pl.coalesce(_finite(name) for name in ("close", *names) if name in names))
    reference = known.to_series().fill_null(1.0).to_numpy()
    factor = _away(reference, first, generator) / reference
    factor[~np.isfinite(factor) | (factor == 1.0)] = 2.0
    filled = {name: frame.select(_finite(name)).to_series() for name in names}
    return [(column.fill_null(pl.Series(reference)) * pl.Series(factor)).alias(name) for name, column in filled.items()]


def _finite(name: str) -> pl.Expr:
    value = pl.col(name).cast(pl.Float64)
    return pl.when(value.is_finite() & (value > 0)).then(value)


def _others(frame: pl.DataFrame, first: NDArray[np.bool_], generator: np.random.Generator) -> list[pl.Series]:
    columns = []
    for name, kind in frame.schema.items():
        if name in (*_KEYS, *PRICES):
            continue
        if kind == pl.Boolean:
            columns.append(~frame[name])
        elif kind.is_integer():
            columns.append(frame[name] + pl.Series(generator.integers(1, 3, frame.height), dtype=kind))
        elif kind.is_float():
            values = frame[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()
            new = _sizes(values, first, generator) if name in SIZES else _opposed(values, first, generator)
            columns.append(pl.Series(name, new, dtype=kind))
    return columns


def _away(values: Floats, first: NDArray[np.bool_], generator: np.random.Generator) -> Floats:
    """Positive values on the other side of the value before; the first of a symbol goes either way."""
    before = np.where(first, values, np.roll(values, 1))
    side = np.sign(values - before)
    side = np.where(side == 0.0, generator.choice([-1.0, 1.0], len(values)), side)
    moved: Floats = before * np.exp(-side * generator.uniform(_LEAST, _MOST, len(values)))
    return moved


def _sizes(values: Floats, first: NDArray[np.bool_], generator: np.random.Generator) -> Floats:
    usable = np.isfinite(values) & (values > 0.0)
    typical = float(np.median(values[usable])) if usable.any() else 1.0
    return _away(np.where(usable, values, typical), first, generator)


def _opposed(values: Floats, first: NDArray[np.bool_], generator: np.random.Generator) -> Floats:
    """Numbers of any sign: further than any real one, against the direction of the last change."""
    usable = np.isfinite(values)
    typical = float(np.median(np.abs(values[usable]))) if usable.any() else 1.0
    scale = float(np.std(values[usable])) if usable.any() else 0.0
    scale = scale if scale > 0.0 else typical or 1.0
    filled = np.where(usable, values, generator.normal(0.0, scale, len(values)))
    before = np.where(first, filled, np.roll(filled, 1))
    side = np.sign(filled - before)
    side = np.where(side == 0.0, generator.choice([-1.0, 1.0], len(values)), side)
    opposed: Floats = before - side * scale * generator.uniform(_LEAST, _MOST, len(values))
    return opposed
