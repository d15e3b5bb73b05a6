"""Predictions as they are stored: all of an experiment, and the newest of a symbol, which a dashboard asks for often."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import polars as pl

from tidemill.domain.market import valid_symbol
from tidemill.storage.cache_keys import cache_key
from tidemill.storage.merge import read_frame
from tidemill.storage.results import PREDICTIONS
from tidemill.study.scoring import predictions_of, require_predictions

if TYPE_CHECKING:
    from tidemill.storage.cache import Cache
    from tidemill.storage.postgres import Database
    from tidemill.study.study import Study

NEWEST = 50
# Books that share a model say the same twice.
_SHOWN = {name: kind for name, kind in PREDICTIONS.kinds.items() if name != "book"}
_NEWEST = f"""
SELECT DISTINCT {", ".join(_SHOWN)} FROM predictions
WHERE symbol = $1 AND engine = $2 ORDER BY open_time DESC, dataset, model_id LIMIT {NEWEST}
"""  # nosec B608 - column names of a constant table; the values are parameters


async def stored_predictions(study: Study, engine: str = "ensemble") -> pl.DataFrame:
    """Out-of-sample predictions of a book, all folds, sorted by symbol and time.

    UnknownNameError for a book that the experiment does not have, InputError when it has not been run.
    """
    return await asyncio.to_thread(_stored, study, engine)


def _stored(study: Study, engine: str) -> pl.DataFrame:
    require_predictions(study, engine)
    return predictions_of(study, engine)


async def recent_predictions(database: Database, cache: Cache, symbol: str, engine: str = "ensemble") -> pl.DataFrame:
    """The newest predictions of a symbol by one engine, over all datasets, newest first; without Redis slower, not broken."""
    valid_symbol(symbol)

    async def load() -> pl.DataFrame:
        return await read_frame(database, _SHOWN, _NEWEST, symbol, engine)

    return await cache.frame(cache_key(symbol, engine), load)
