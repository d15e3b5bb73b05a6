"""What a comparison came to, in words: what is said of files that were read, and of figures that are too good."""

from datetime import UTC, datetime

import numpy as np
import pytest
from msgspec.structs import replace

from tidemill.metrics.bootstrap import mean_interval
from tidemill.steps.models.comparison import BookFigures, Challenge, doubt_of, lower_bound

FIGURES = BookFigures(
    engines=("ridge",),
    models={"ridge": "ridge-1"},
    weights={},
    rank_ic=0.05,
    sharpe=1.0,
    total_return=0.02,
    max_drawdown=-0.01,
    costs=10.0,
    trades=4,
    predictions_rejected=0,
)
FILE = ("answers.csv (engine mine)",)


@pytest.mark.parametrize(
    ("rank_ic", "sharpe", "symbols", "reads", "told"),
    [
        (0.05, 1.0, 500, (), ""),
        (0.16, 1.0, 500, (), "A rank IC of 0.16 is too good to be taken as it is."),
        (0.16, 1.0, 6, (), ""),
        (0.16, 1.0, 6, FILE, "A rank IC of 0.16 is too good to be taken as it is."),
        (0.05, 4.0, 500, (), ""),
        (0.05, 4.0, 500, FILE, "A Sharpe ratio of 4.00 is too good to be taken as it is."),
        (None, None, float("nan"), FILE, ""),
        (-0.5, -4.0, 500, FILE, ""),
    ],
)
def test_figures_that_no_market_pays_are_doubted(
    rank_ic: float | None, sharpe: float | None, symbols: float, reads: tuple[str, ...], told: str
) -> None:
    assert doubt_of(replace(FIGURES, rank_ic=rank_ic, sharpe=sharpe, reads=reads), symbols) == told


def outcome(**changes: object) -> Challenge:
    day = datetime(2024, 1, 1, tzinfo=UTC)
    made = Challenge(
        start=day,
        end=day,
        bars=63,
        challenger=FIGURES,
        champion=None,
        advantage=0.002,
        low=0.001,
        confidence=0.9,
        models={},
        trained_until=day,
        walked=63,
    )
    return replace(made, **changes)


def test_each_outcome_is_one_sentence_after_the_other() -> None:
    told = "+0.200% a bar over cash after costs, lower bound +0.100% at 90%"
    doubt = "A rank IC of 0.40 is too good to be taken as it is."
    assert outcome().sentence() == f"Promoted: {told}."
    assert outcome(low=-0.001).sentence().endswith("; it must lie above zero.")
    assert outcome(departure="It differs.").sentence() == "Not promoted: It differs."
    refused = outcome(refusals=("Not checked.", "Not proven."), departure="")
    assert refused.sentence() == "Not promoted: Not checked. Not proven."
    asked = outcome(doubt=doubt, challenger=replace(FIGURES, reads=FILE))
    assert asked.sentence() == (
        f"Not promoted: {told}. {doubt} Look for a leak first; where there is none, `tidemill champions promote --accept` "
        "promotes it as it is. It reads answers.csv (engine mine), which nothing here can prove to have been known then."
    )
    accepted = replace(asked, accepted=True).sentence()
    assert accepted.startswith(f"Promoted: {told}. {doubt} That was accepted. It reads answers.csv")


@pytest.mark.parametrize("confidence", [0.501, 0.51, 0.9])
def test_a_lower_bound_lies_below_the_estimate_at_any_confidence(confidence: float) -> None:
    series = [np.random.default_rng(seed).normal(0.001, 0.01, 60) for seed in range(30)]
    lows = [lower_bound(one, confidence) for one in series]
    assert all(low is not None and low <= one.mean() for low, one in zip(lows, series, strict=True))
    raw = [mean_interval(one, level=2.0 * confidence - 1.0).low for one in series]
    assert any(low > one.mean() for low, one in zip(raw, series, strict=True)) is (confidence < 0.9)


def test_too_few_bars_or_a_difference_that_is_the_same_on_each_have_no_lower_bound() -> None:
    assert lower_bound(np.zeros(60), 0.9) is None
    assert lower_bound(np.array([0.1, 0.2]), 0.9) is None


def test_nothing_wins_that_was_not_walked() -> None:
    assert outcome().wins
    assert not outcome(walked=0).wins
    assert not outcome(departure="It differs.").wins
    assert not outcome(doubt="Too good.").wins
    assert outcome(doubt="Too good.", accepted=True).wins
    assert not outcome(doubt="Too good.", accepted=True, low=-0.001).wins
