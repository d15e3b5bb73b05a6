"""What is not a number is None."""

import numpy as np
import pytest

from tidemill.domain.numbers import finite


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.float64("nan")])
def test_what_no_table_can_hold_is_none(value: float) -> None:
    assert finite(value) is None


@pytest.mark.parametrize("value", [0.0, -1.5, 1e308, np.float64(2.5), np.float32(0.5), 3])
def test_a_number_stays_and_is_a_plain_float(value: float) -> None:
    assert finite(value) == value
    assert type(finite(value)) is float
