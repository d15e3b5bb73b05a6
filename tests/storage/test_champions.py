"""Promotion and its undoing in a real Postgres."""

import asyncio
from datetime import UTC, datetime

import pytest

from tidemill.domain.errors import StopError
from tidemill.domain.experiment import DatasetSpec, Experiment
from tidemill.storage import champions
from tidemill.storage.champions import Nominee
from tidemill.storage.postgres import Database


def nominee(models: dict[str, str], dataset: str = "file.1d.all") -> Nominee:
    return Nominee(
        dataset=dataset,
        book="ensemble",
        models=models,
        experiment=Experiment(name="one", dataset=DatasetSpec(source="sample")),
        trained_until=datetime(2024, 1, 31, tzinfo=UTC),
        reason="it earned more",
        evidence={"low": 0.001, "start": datetime(2024, 2, 1, tzinfo=UTC)},
    )


async def test_a_promotion_is_kept_whole(database: Database) -> None:
    made = await champions.promote(database, nominee({"ridge": "r1", "momentum": "m1"}), instead_of=None)
    held = await champions.current(database, "file.1d.all")
    assert held == made
    assert held is not None
    assert held.models == {"ridge": "r1", "momentum": "m1"}
    assert held.experiment.dataset.source == "sample"
    assert held.evidence["low"] == 0.001
    assert held.undone_at is None


async def test_undoing_brings_back_the_one_before_and_at_last_nobody(database: Database) -> None:
    first = await champions.promote(database, nominee({"ridge": "r1"}), instead_of=None)
    second = await champions.promote(database, nominee({"ridge": "r2"}), instead_of=first.id)
    undone, back = await champions.undo(database, "file.1d.all", "it lost in paper trading")
    assert (undone.id, back.id if back else None) == (second.id, first.id)
    undone, back = await champions.undo(database, "file.1d.all", "so did this one")
    assert (undone.id, back) == (first.id, None)
    with pytest.raises(StopError, match="no champion"):
        await champions.undo(database, "file.1d.all", "again")
    told = [(one.id, one.undone_why) for one in await champions.history(database, "file.1d.all")]
    assert told == [(second.id, "it lost in paper trading"), (first.id, "so did this one")]


async def test_evidence_about_a_champion_of_the_past_promotes_nobody(database: Database) -> None:
    first = await champions.promote(database, nominee({"ridge": "r1"}), instead_of=None)
    for outdated in (None, first.id + 1):
        with pytest.raises(StopError, match="changed meanwhile"):
            await champions.promote(database, nominee({"ridge": "r2"}), instead_of=outdated)
    assert await champions.current(database, "file.1d.all") == first


async def test_of_many_promotions_at_once_one_is_kept(database: Database) -> None:
    tries = [champions.promote(database, nominee({"ridge": f"r{number}"}), instead_of=None) for number in range(8)]
    found = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(one, champions.Champion) for one in found) == 1
    assert all(isinstance(one, StopError | champions.Champion) for one in found)
    assert len(await champions.history(database)) == 1


async def test_datasets_have_champions_of_their_own(database: Database) -> None:
    await champions.promote(database, nominee({"ridge": "r1"}, "a.1d.all"), instead_of=None)
    await champions.promote(database, nominee({"ridge": "r2"}, "b.1h.all"), instead_of=None)
    held = await champions.current(database, "a.1d.all")
    assert held is not None
    assert held.models == {"ridge": "r1"}
    assert len(await champions.history(database)) == 2
