"""The weights of a strategy over a panel of daily bars, without its notes."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import polars as pl

from tests.backtest.panels import DAY
from tidemill.domain.market import Instrument
from tidemill.strategies.registry import SHIPPED_STRATEGIES, Strategies, weigh


def target_weights(
    name: str,
    inputs: pl.DataFrame,
    params: Mapping[str, Any],
    instruments: Mapping[str, Instrument],
    bars: pl.DataFrame | None = None,
    known: Strategies = SHIPPED_STRATEGIES,
    there: pl.DataFrame | None = None,
    anchor: datetime | None = None,
) -> pl.DataFrame:
    return weigh(name, inputs, params, instruments, DAY, bars=bars, there=there, anchor=anchor, known=known).weights
