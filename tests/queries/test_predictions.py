"""Predictions of an experiment from the lake, and the newest of a symbol through the cache."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.queries.conftest import Meanwhile
from tidemill.config import Settings
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.experiment import Experiment
from tidemill.queries.predictions import NEWEST, recent_predictions, stored_predictions
from tidemill.storage.cache import Cache
from tidemill.storage.lake import Lake
from tidemill.storage.postgres import Database
from tidemill.study.scoring import predictions_of
from tidemill.study.sources import study_of
from tidemill.study.workspace import Workspace


@pytest.fixture
async def cache(settings: Settings) -> AsyncIterator[Cache]:
    opened = Cache.of(settings, settings.redis_url)
    yield opened
    await opened.close()


@pytest.mark.finished
async def test_predictions_are_those_that_the_run_kept(workspace: Workspace, experiment: Experiment) -> None:
    study = study_of(workspace, experiment)
    ridge, ensemble = await asyncio.gather(stored_predictions(study, "ridge"), stored_predictions(study))
    assert ridge.equals(predictions_of(study, "ridge"))
    assert ensemble.equals(predictions_of(study, "ensemble"))
    with pytest.raises(UnknownNameError, match="momentum"):
        await stored_predictions(study, "oracle")


@pytest.mark.finished
async def test_the_loop_goes_on_while_they_are_read(workspace: Workspace, experiment: Experiment, meanwhile: Meanwhile) -> None:
    study = study_of(workspace, experiment)
    assert (await meanwhile(stored_predictions(study, "ridge"), Lake, "manifests")).height > 0


async def test_before_a_run_there_are_none(workspace: Workspace, experiment: Experiment) -> None:
    with pytest.raises(InputError, match="tidemill run"):
        await stored_predictions(study_of(workspace, experiment))


@pytest.mark.finished
async def test_the_newest_of_a_symbol_are_those_of_postgres(
    workspace: Workspace, experiment: Experiment, database: Database, cache: Cache
) -> None:
    stored = await stored_predictions(study_of(workspace, experiment), "ridge")
    newest = stored.filter(symbol="AAA").sort("open_time", descending=True).head(NEWEST)
    first, second = await asyncio.gather(*(recent_predictions(database, cache, "AAA", "ridge") for _ in range(2)))
    assert first.equals(second)
    assert first["prediction"].to_list() == newest["prediction"].to_list()
