"""Which models trade, since when and on what evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tidemill.domain.errors import UnknownNameError
from tidemill.storage.champions import Champion, history

if TYPE_CHECKING:
    from tidemill.storage.postgres import Database


async def promotions(database: Database, dataset: str | None = None) -> tuple[Champion, ...]:
    """Every promotion, in one dataset or in all, undone ones included, the newest first."""
    return tuple(await history(database, dataset))


def promotion(found: Sequence[Champion], name: str) -> Champion:
    """The promotion of this number, or the one in force of the dataset of this name. found: the newest first."""
    meant = [one for one in found if str(one.id) == name or (one.dataset == name and one.undone_at is None)]
    if meant:
        return meant[0]
    datasets = dict.fromkeys(one.dataset for one in found if one.undone_at is None)
    raise UnknownNameError("champion or promotion", name, datasets, "`tidemill champions list` shows every promotion.")
