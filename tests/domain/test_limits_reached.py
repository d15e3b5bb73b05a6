"""What its limits did to a book, in words."""

from datetime import UTC, datetime

import msgspec
import pytest

from tidemill.domain.limits_reached import LevelReached, LimitsReached

FIRST, FLAT = datetime(2004, 10, 21, tzinfo=UTC), datetime(2004, 10, 22, 14, 30, tzinfo=UTC)


def level(name: str, limit: float, times: int = 1) -> LevelReached:
    return LevelReached(level=name, limit=limit, first=FIRST, drawdown=limit + 0.0004, times=times, slots=7)


@pytest.mark.parametrize(
    ("reached", "told", "shortly"),
    [
        (
            LimitsReached(slots=2_136, levels=(level("block", 0.01), level("flatten", 0.02)), held_back=2_103, flat_since=FLAT),
            "On 2004-10-21 the book was 2.04 % below its highest equity, so its limits closed it (flatten at 2 %). Nothing "
            "could be added over 2,103 of 2,136 bars, and it has held nothing since 2004-10-22 14:30: what holds nothing does "
            "not win it back, and in a backtest no operator lets it go on.",
            "flat since 2004-10-22 14:30",
        ),
        (
            LimitsReached(slots=2_136, levels=(level("reduce", 0.015, 3),), held_back=70),
            "On 2004-10-21 the book was 1.54 % below its highest equity, so its limits reduced it (reduce at 1.5 %), the first "
            "of 3 times. Nothing could be added over 70 of 2,136 bars.",
            "reduced 2004-10-21",
        ),
        (
            LimitsReached(slots=1, levels=(level("block", 0.01),), held_back=1),
            "On 2004-10-21 the book was 1.04 % below its highest equity, so its limits let nothing be added (block at 1 %). "
            "Nothing could be added over 1 of 1 bar.",
            "blocked 2004-10-21",
        ),
    ],
)
def test_the_severest_level_is_told_with_its_day_its_loss_and_what_followed(
    reached: LimitsReached, told: str, shortly: str
) -> None:
    assert [sentence.replace("\N{NO-BREAK SPACE}", " ") for sentence in reached.sentences()] == [told]
    assert reached.shortly() == shortly


def test_what_was_cut_and_cancelled_is_counted_in_one_sentence() -> None:
    cut = LimitsReached(slots=9, cut={"position": 856, "gross": 0, "net": 1}, collar=3)
    assert cut.sentences() == (
        "Its limits cut 856 targets to the position limit, 1 target to the net limit and cancelled 3 orders at the collar.",
    )
    assert LimitsReached(slots=9, collar=1).sentences() == ("Its limits cancelled 1 order at the collar.",)
    assert LimitsReached(slots=9, cut={"position": 0}).sentences() == ()
    assert cut.shortly() == ""


def test_it_is_kept_as_json_and_read_again() -> None:
    held = LimitsReached(slots=9, levels=(level("block", 0.01),), held_back=2, flat_since=FLAT, cut={"net": 1}, collar=1)
    assert msgspec.convert(msgspec.to_builtins(held), LimitsReached) == held
