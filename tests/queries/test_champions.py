"""Promotions, as the doors list them."""

from datetime import UTC, datetime

import pytest

from tidemill.domain.errors import UnknownNameError
from tidemill.domain.experiment import Experiment
from tidemill.queries.champions import promotion, promotions
from tidemill.storage.champions import Nominee, promote, undo
from tidemill.storage.postgres import Database


def _nominee(experiment: Experiment, dataset: str) -> Nominee:
    return Nominee(
        dataset=dataset,
        book="ridge",
        models={"ridge": "ridge-1"},
        experiment=experiment,
        trained_until=datetime(2024, 1, 1, tzinfo=UTC),
        reason="a test",
        evidence={},
    )


async def test_every_promotion_is_listed_undone_ones_too_the_newest_first(database: Database, experiment: Experiment) -> None:
    assert await promotions(database) == ()
    for dataset in ("one.1d.all", "two.1d.all"):
        await promote(database, _nominee(experiment, dataset), instead_of=None)
    await undo(database, "one.1d.all", "a mistake")
    assert [(one.dataset, one.undone_why) for one in await promotions(database)] == [
        ("two.1d.all", None),
        ("one.1d.all", "a mistake"),
    ]
    assert [one.dataset for one in await promotions(database, "one.1d.all")] == ["one.1d.all"]


async def test_a_promotion_is_found_by_its_number_and_one_in_force_by_its_dataset(
    database: Database, experiment: Experiment
) -> None:
    made = [await promote(database, _nominee(experiment, "one.1d.all"), instead_of=None)]
    made.append(await promote(database, _nominee(experiment, "one.1d.all"), instead_of=made[0].id))
    found = await promotions(database)
    assert promotion(found, "one.1d.all") == made[1]
    assert promotion(found, str(made[0].id)) == made[0]
    await undo(database, "one.1d.all", "a mistake")
    found = await promotions(database)
    assert promotion(found, "one.1d.all") == made[0]
    assert promotion(found, str(made[1].id)).undone_why == "a mistake"
    with pytest.raises(UnknownNameError, match=r"no champion or promotion named 'one\.1d'.* Did you mean one\.1d\.all\?"):
        promotion(found, "one.1d")
