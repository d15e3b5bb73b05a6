"""The lexicon: what a person reads in a headline is what its score says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.domain.errors import UnknownNameError
from tidemill.models.text.lexicon import Lexicon
from tidemill.models.text.registry import text_classifier

LEXICON = Lexicon()


def score(text: str) -> float:
    return float(LEXICON.score([text])[0])


@pytest.mark.parametrize(
    "text",
    [
        "Apple beats estimates and raises its guidance",
        "Regulator approves the drug; shares soar",
        "Firm narrows its loss",
        "Bank settles the fraud probe",
        "The company does not expect losses",
        "It never fails to impress",
    ],
)
def test_good_news_scores_above_zero(text: str) -> None:
    assert score(text) > 0.3


@pytest.mark.parametrize(
    "text",
    [
        "Tesla misses estimates as deliveries fall",
        "Profit warning: shares plunge",
        "Sales didn’t grow",
        "No growth in sales",
        "Shares drop despite record profit",
        "Company files for BANKRUPTCY after fraud",
    ],
)
def test_bad_news_scores_below_zero(text: str) -> None:
    assert score(text) < -0.3


@pytest.mark.parametrize(
    "text", ["Annual meeting on Tuesday", "Earnings call scheduled", "Several executives on the highway", "Topic of the day"]
)
def test_what_points_nowhere_scores_zero(text: str) -> None:
    assert score(text) == 0.0


def test_the_score_is_the_balance_of_words_over_their_number_and_one() -> None:
    assert score("gain") == 0.5
    assert score("gain and growth") == pytest.approx(2 / 3)
    assert score("gain and loss") == 0.0
    assert score("gain, gain, loss and fraud and theft") == pytest.approx(-1 / 6)


def test_a_negator_reaches_three_words_and_not_into_the_next_sentence() -> None:
    assert score("not a real gain") == -0.5
    assert score("not in any year a gain") == 0.5
    assert score("It is not. Gain") == 0.5
    assert score("did not rise but gained") == 0.0


def test_two_negators_cancel() -> None:
    assert score("not without gain") == 0.5


@pytest.mark.parametrize("text", ["", "   ", "123 456 %", "株価"])
def test_a_text_without_a_word_has_no_score(text: str) -> None:
    assert np.isnan(score(text))


@given(st.lists(st.text(max_size=80), max_size=8))
def test_any_text_scores_within_the_bounds_and_alone_as_among_others(texts: list[str]) -> None:
    scores = LEXICON.score(texts)
    assert all(np.isnan(value) or -1.0 < value < 1.0 for value in scores)
    assert np.array_equal(scores, [score(text) for text in texts], equal_nan=True)


def test_an_unknown_classifier_is_refused_with_the_choices() -> None:
    assert text_classifier("lexicon").fingerprint == LEXICON.fingerprint
    for name in ("finbert", "model:", ""):
        with pytest.raises(UnknownNameError, match="lexicon"):
            text_classifier(name)
