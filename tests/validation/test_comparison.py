"""Two columns are compared bit for bit; only what is unknown is equal to anything else that is unknown."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.validation.comparison import bits_of, differences, first_difference

OTHER_NAN = np.array([0xFFF8_0000_0000_0001], dtype=np.uint64).view(np.float64)[0]
VALUES = st.lists(st.sampled_from([0.0, -0.0, 1.0, 1.0 + 2**-52, np.inf, -np.inf, np.nan, OTHER_NAN, 5e-324]), min_size=1)


def same(one: float, other: float) -> bool:
    return (one != one and other != other) or np.float64(one).tobytes() == np.float64(other).tobytes()


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(VALUES, VALUES, st.randoms(use_true_random=False))
def test_the_first_difference_is_the_first_pair_of_other_bits(left: list[float], right: list[float], random: object) -> None:
    count = random.randint(0, 20)  # type: ignore[attr-defined]
    rows = np.array([random.randrange(len(left)) for _ in range(count)], dtype=np.int64)  # type: ignore[attr-defined]
    others = np.array([random.randrange(len(right)) for _ in range(count)], dtype=np.int64)  # type: ignore[attr-defined]
    expected = [at for at in range(count) if not same(left[rows[at]], right[others[at]])]
    found = first_difference(bits_of(np.array(left)), bits_of(np.array(right)), rows, others)
    assert found == (expected[0] if expected else -1)
    assert np.flatnonzero(differences(bits_of(np.array(left)), bits_of(np.array(right)), rows, others)).tolist() == expected


def test_the_bits_of_an_array_leave_it_writable() -> None:
    values = np.array([1.0, 2.0])
    bits_of(values)
    values[0] = 3.0
    assert values[0] == 3.0
