"""Compiling ahead of the first bar: set-up calls this, so that a session's first step compiles nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

_SYMBOLS, _FEATURES, _ROWS = ("WARM", "WARMER"), ("ROC5", "STD10"), 60


def warm() -> None:
    """Compile the links of the chain, one by one and together (half a minute; a second when they are there)."""
    import numpy as np

    from tidemill.calendars import NEVER
    from tidemill.domain.experiment import PredictionGuard
    from tidemill.domain.intervals import EPOCH, Interval
    from tidemill.features.api import feature_set
    from tidemill.matching.rules import MatchingRules, venue_row
    from tidemill.models.ensemble import ENGINE as ENSEMBLE
    from tidemill.models.registry import SHIPPED_ENGINES
    from tidemill.models.ridge import ENGINE as RIDGE
    from tidemill.quality.validity import feature_bounds
    from tidemill.risk.drawdown import DrawdownPolicy
    from tidemill.risk.limits import UNLEVERED
    from tidemill.strategies.base import Universe
    from tidemill.strategies.quantile import STRATEGY
    from tidemill.trading.account import Terms
    from tidemill.trading.arriving import BarsOfSlot
    from tidemill.trading.chain import Chain, Deciding, Links
    from tidemill.trading.ordering import Desk

    rows = _training()
    model = RIDGE.fit(rows, features=_FEATURES, params={}, seed=1)
    both = ENSEMBLE.fit(rows.head(0), features=("a", "b"), params={}, seed=1)
    deciding = Deciding({"a": model, "b": model}, both, feature_bounds(rows, _FEATURES), {"a": None, "b": None})
    true = np.ones(len(_SYMBOLS), np.bool_)
    terms = Terms(venue_row(_SYMBOLS, {}), MatchingRules(), UNLEVERED, DrawdownPolicy(), False, False, True, 20)
    desk = Desk(terms, 1.0, np.full(len(_SYMBOLS), NEVER))
    bars = BarsOfSlot(EPOCH, 0, np.ones((6, len(_SYMBOLS))), true, true)
    for fused in (False, True):
        links = Links(
            Interval.parse("1d"), feature_set(*_FEATURES), 1.0, PredictionGuard(), STRATEGY, STRATEGY.parse({}), None, None,
            SHIPPED_ENGINES, fused,
        )  # fmt: skip
        Chain(links, Universe(_SYMBOLS, true), deciding, desk=desk).step(bars)


def _training() -> pl.DataFrame:
    """Rows of which a linear engine can be fitted."""
    import numpy as np
    import polars as pl

    from tidemill.domain.intervals import EPOCH

    times = pl.Series([EPOCH + timedelta(days=at) for at in range(_ROWS)]).cast(pl.Datetime("us", "UTC"))
    frame = pl.DataFrame({"symbol": np.repeat(_SYMBOLS, _ROWS), "open_time": pl.concat([times, times])})
    values = np.random.default_rng(1).normal(size=(len(_FEATURES) + 1, frame.height))
    columns = (pl.Series(name, own) for name, own in zip((*_FEATURES, "label"), values, strict=True))
    return frame.with_columns(*columns, label_end_at=pl.col("open_time") + timedelta(days=2))
