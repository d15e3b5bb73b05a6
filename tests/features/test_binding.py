"""What the kernels are given: addresses of arrays, checked once."""

import numpy as np
import polars as pl
import pytest

from tests.features.conftest import random_panel
from tidemill.features.api import compute, feature_set
from tidemill.features.batch import compute_frame


def test_a_result_in_another_order_or_type_is_refused_before_a_kernel_writes_to_it() -> None:
    bars, features = random_panel(3, symbols=2, slots=20), feature_set("alpha30")
    shape = len(features.names), len(bars)
    for result in (np.empty(shape, order="F"), np.empty(shape, dtype=np.float32), np.empty((shape[0], 2 * shape[1]))[:, ::2]):
        with pytest.raises(ValueError, match="wrong type or memory order"):
            compute_frame(bars, features, None, result)


def test_columns_in_several_pieces_and_of_other_types_are_read_as_one() -> None:
    bars = random_panel(4, symbols=1, slots=90, missing=0.0)
    whole, _ = compute(bars, feature_set("alpha30"))
    pieces = pl.concat([bars[:30], bars[30:]], rechunk=False)
    assert pieces["close"].n_chunks() == 2
    assert compute(pieces, feature_set("alpha30"))[0].equals(whole, null_equal=True)
    counted = bars.with_columns(pl.col("volume").round(0))
    whole, _ = compute(counted, feature_set("alpha30"))
    assert compute(counted.with_columns(pl.col("volume").cast(pl.Int64)), feature_set("alpha30"))[0].equals(whole)
