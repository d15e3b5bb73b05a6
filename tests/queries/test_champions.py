"""Promotions, as the doors list them."""

from datetime import UTC, datetime

from tidemill.domain.experiment import Experiment
from tidemill.queries.champions import promotions
from tidemill.storage.champions import Nominee, promote, undo
from tidemill.storage.postgres import Database


async def test_every_promotion_is_listed_undone_ones_too_the_newest_first(database: Database, experiment: Experiment) -> None:
    assert await promotions(database) == ()
    for dataset in ("one.1d.all", "two.1d.all"):
        nominee = Nominee(
            dataset=dataset,
            book="ridge",
            models={"ridge": "ridge-1"},
            experiment=experiment,
            trained_until=datetime(2024, 1, 1, tzinfo=UTC),
            reason="a test",
            evidence={},
        )
        await promote(database, nominee, instead_of=None)
    await undo(database, "one.1d.all", "a mistake")
    assert [(one.dataset, one.undone_why) for one in await promotions(database)] == [
        ("two.1d.all", None),
        ("one.1d.all", "a mistake"),
    ]
    assert [one.dataset for one in await promotions(database, "one.1d.all")] == ["one.1d.all"]
