"""Moments on the axis of the epoch."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from tidemill.domain.intervals import EPOCH, epoch_microseconds


@pytest.mark.parametrize("count", [0, 1, -1, 1_700_000_000_123_457, 253_402_300_799_999_999, -1_234_567_890_123_457])
def test_a_moment_is_counted_to_the_microsecond(count: int) -> None:
    assert epoch_microseconds(EPOCH + timedelta(microseconds=count)) == count


def test_one_moment_has_one_count_in_every_time_zone() -> None:
    moment = datetime(2024, 3, 1, 12, tzinfo=UTC)
    assert epoch_microseconds(moment.astimezone(timezone(timedelta(hours=9)))) == epoch_microseconds(moment)
