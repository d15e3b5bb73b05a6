"""Models by name, and what one of them was made of."""

import asyncio

import pytest

from tidemill.config import Settings
from tidemill.domain.errors import IntegrityError, UnknownNameError
from tidemill.models.artifact import load
from tidemill.queries.models import StoredModel, model_details, stored_models
from tidemill.study.model_index import artifact_folder, models_in


async def newest(settings: Settings, engine: str) -> StoredModel:
    return next(one for one in await stored_models(settings) if one.engine == engine)


@pytest.mark.finished
async def test_every_model_of_an_index_is_listed_the_newest_first(settings: Settings) -> None:
    found = await stored_models(settings)
    assert {one.engine for one in found} == {"momentum", "ridge", "ensemble"}
    assert [one.test_start for one in found] == sorted((one.test_start for one in found), reverse=True)
    assert len({(one.engine, one.fold) for one in found}) == len(found)


async def test_a_new_home_has_no_model(settings: Settings) -> None:
    assert await stored_models(settings) == ()
    with pytest.raises(UnknownNameError, match="models list"):
        await model_details(settings, "../../etc")


@pytest.mark.finished
async def test_a_model_says_what_went_into_it(settings: Settings) -> None:
    ridge = await newest(settings, "ridge")
    found = await model_details(settings, ridge.model_id)
    assert found.hash == load(artifact_folder(models_in(settings), ridge.model_id)).hash
    assert (found.inputs.rows, found.weights) == (ridge.rows, {})
    assert found.lineage[0] == (0, ridge.model_id, found.hash)
    assert {(made.name, made.version) for made in found.lineage} >= set(found.inputs.data_versions.items())


@pytest.mark.finished
async def test_below_an_ensemble_stand_its_members(settings: Settings) -> None:
    ensemble, ridge = await newest(settings, "ensemble"), await newest(settings, "ridge")
    found, member = await asyncio.gather(*(model_details(settings, one.model_id) for one in (ensemble, ridge)))
    assert found.weights == {"momentum": 0.5, "ridge": 0.5}
    own = [made._replace(depth=made.depth - 1) for made in found.lineage if made.depth]
    at = own.index(member.lineage[0])
    assert own[at : at + len(member.lineage)] == list(member.lineage)


@pytest.mark.finished
async def test_a_damaged_model_is_named(settings: Settings) -> None:
    ridge = await newest(settings, "ridge")
    (artifact_folder(models_in(settings), ridge.model_id) / "weights.safetensors").write_bytes(b"\x80\x04cposix\nsystem\n")
    with pytest.raises(IntegrityError, match="refused"):
        await model_details(settings, ridge.model_id)


@pytest.mark.finished
async def test_two_at_once_answer_as_alone(settings: Settings) -> None:
    alone = await stored_models(settings)
    assert await asyncio.gather(stored_models(settings), stored_models(settings)) == [alone, alone]
