"""Panels computed a part at a time have the bits of one computation."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.features.conftest import random_panel
from tidemill.domain.errors import InputError
from tidemill.features import partitions
from tidemill.features.api import FeatureSet, compute, feature_set
from tidemill.features.declaration import Feature
from tidemill.features.operators import close, cs_rank
from tidemill.features.partitions import by_symbol, by_time, write_parquet

SET = feature_set("alpha158", "rsi_14", "obv")


def same_bits(one: pl.DataFrame, other: pl.DataFrame) -> bool:
    mine, theirs = (
        np.ascontiguousarray(frame.drop("symbol", "open_time").to_numpy()).view(np.uint64) for frame in (one, other)
    )
    keys = one.select("symbol", "open_time").equals(other.select("symbol", "open_time"))
    return keys and np.array_equal(mine, theirs)


@pytest.mark.parametrize("every", ["1mo", "1y"])
@pytest.mark.parametrize("reuse", [False, True])
def test_stretches_of_time_in_turn_are_the_whole(every: str, reuse: bool) -> None:
    bars = random_panel(21, symbols=4, slots=500)
    whole, after = compute(bars, SET)
    parts, state = [], None
    for frame, state in by_time(bars, SET, every=every, reuse=reuse):  # noqa: B007 - the last state is looked at
        values = [pl.Series(column.name, column.to_numpy().copy()) for column in frame.select(SET.names).get_columns()]
        parts.append(frame.select("symbol", "open_time").with_columns(values))
    assert len(parts) == bars["open_time"].dt.truncate(every).n_unique()
    assert same_bits(pl.concat(parts).sort("symbol", "open_time"), whole)
    assert state is not None
    assert np.array_equal(after.slots.view(np.uint64), state.slots.view(np.uint64))


def test_stretches_go_on_from_a_state() -> None:
    bars = random_panel(22, symbols=3, slots=300)
    border = bars["open_time"].unique().sort()[120]
    early, late = bars.filter(pl.col("open_time") < border), bars.filter(pl.col("open_time") >= border)
    _, state = compute(early, SET)
    parts = pl.concat([frame for frame, _ in by_time(late, SET, state, every="1mo")]).sort("symbol", "open_time")
    assert same_bits(parts, compute(bars, SET)[0].filter(pl.col("open_time") >= border))


@pytest.mark.parametrize("most", [1, 40_000, 400_000, 10**9])
def test_a_file_written_some_symbols_at_a_time_is_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(partitions, "_BYTES_OF_A_PART", most)
    bars = random_panel(23, symbols=7, slots=200)
    target = tmp_path / "features.parquet"
    assert write_parquet(bars, SET, target) == bars.height
    assert same_bits(pl.read_parquet(target), compute(bars, SET)[0])


def test_no_bars_make_a_file_without_rows(tmp_path: Path) -> None:
    target = tmp_path / "features.parquet"
    assert write_parquet(random_panel(1, symbols=1, slots=5).clear(), SET, target) == 0
    assert pl.read_parquet(target).columns == ["symbol", "open_time", *SET.names]


def test_symbols_that_are_compared_cannot_be_taken_apart() -> None:
    ranked = FeatureSet((Feature("place", cs_rank(close)),))
    bars = random_panel(24, symbols=3, slots=40)
    with pytest.raises(InputError, match="compare symbols"):
        list(by_symbol(bars, ranked))
    parts = pl.concat([frame for frame, _ in by_time(bars, ranked, every="1mo")]).sort("symbol", "open_time")
    assert same_bits(parts, compute(bars, ranked)[0])


def test_a_bar_without_a_time_is_refused_and_not_left_out() -> None:
    bars = random_panel(3, symbols=2, slots=20)
    timeless = bars.with_columns(
        pl.when(pl.int_range(pl.len()) == 5).then(None).otherwise(pl.col("open_time")).alias("open_time")
    )
    with pytest.raises(InputError, match="no symbol or no open_time"):
        next(by_time(timeless, feature_set("sma_20")))
