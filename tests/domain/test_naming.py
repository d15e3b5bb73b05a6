"""Names in a sentence."""

import pytest

from tidemill.domain.naming import first_of, listed


@pytest.mark.parametrize(
    ("names", "told"),
    [([], ""), (["A"], "A"), (list("ABCDE"), "A, B, C, D, E"), (list("ABCDEF"), "A, B, C, D, E and 1 more")],
)
def test_a_sentence_names_a_few_and_says_how_many_there_are_beside(names: list[str], told: str) -> None:
    assert first_of(names) == told


def test_how_many_are_named_can_be_said() -> None:
    assert first_of(["A", "B", "C"], 1) == "A and 2 more"


@pytest.mark.parametrize(("names", "told"), [([], ""), (["A"], "A"), (["A", "B"], "A and B"), (list("ABC"), "A, B and C")])
def test_all_names_are_listed_as_in_a_sentence(names: list[str], told: str) -> None:
    assert listed(names) == told
