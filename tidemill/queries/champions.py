"""Which models trade, since when and on what evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidemill.storage.champions import Champion, history

if TYPE_CHECKING:
    from tidemill.storage.postgres import Database


async def promotions(database: Database, dataset: str | None = None) -> tuple[Champion, ...]:
    """Every promotion, in one dataset or in all, undone ones included, the newest first."""
    return tuple(await history(database, dataset))
