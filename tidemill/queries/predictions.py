"""The newest predictions of a symbol, through the cache: what a dashboard asks for again and again."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from tidemill.domain.market import valid_symbol
from tidemill.storage.cache_keys import cache_key
from tidemill.storage.merge import read_frame
from tidemill.storage.results import PREDICTIONS
from tidemill.study.workspace import Workspace

NEWEST = 50
# Books that share a model say the same twice.
_SHOWN = {name: kind for name, kind in PREDICTIONS.kinds.items() if name != "book"}
_NEWEST = f"""
SELECT DISTINCT {", ".join(_SHOWN)} FROM predictions
WHERE symbol = $1 AND engine = $2 ORDER BY open_time DESC, dataset, model_id LIMIT {NEWEST}
"""  # nosec B608 - column names of a constant table; the values are parameters


def recent_predictions(workspace: Workspace, symbol: str, engine: str = "ensemble") -> pl.DataFrame:
    """The newest predictions of a symbol by one engine, over all datasets, newest first; without Redis slower, not broken."""
    valid_symbol(symbol)

    async def load() -> pl.DataFrame:
        return await read_frame(workspace.database, _SHOWN, _NEWEST, symbol, engine)

    return workspace.call(workspace.cache.frame, cache_key(symbol, engine), load)


def forget_predictions(workspace: Workspace, symbols: Iterable[str], engine: str) -> None:
    """After predictions were committed: nobody on this host is given older ones."""
    workspace.cache.invalidate(*(cache_key(symbol, engine) for symbol in symbols))
