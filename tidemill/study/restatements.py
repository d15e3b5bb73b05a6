"""Which stored bars were corrected after they were first received, and which left their source: told in a sentence each."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import polars as pl

from tidemill.domain.intervals import Interval
from tidemill.domain.naming import first_of
from tidemill.storage.endings import gone_bars
from tidemill.study.study import Study
from tidemill.study.tables import BARS

# In the manifest of a month of bars: what `restated_in` found in it.
RESTATED = "restated"


def restated_in(bars: pl.DataFrame, interval: Interval) -> dict[str, Any]:
    """Number, symbols, bounds and receipts of the bars of a month that are another version than the first; empty for none.

    bars: as stored, whose `known_at` is the receipt of a later version and the close of a first one.
    """
    later = bars.filter(pl.col("known_at") > pl.col("open_time") + interval.delta)
    if later.is_empty():
        return {}
    symbols = later["symbol"].unique().sort().to_list()
    bounds = {name: _texts(later[column]) for name, column in (("bars", "open_time"), ("received", "known_at"))}
    return {"count": later.height, "symbols": symbols, **bounds}


def _texts(times: pl.Series) -> list[str]:
    return [time.isoformat() for time in (times.min(), times.max()) if isinstance(time, datetime)]


def restatement_notes(study: Study, months: Iterable[str] | None = None) -> tuple[str, ...]:
    """One sentence where bars were corrected after they were first received; empty where none were. months: all if None."""
    manifests = study.lake.manifests(BARS, study.dataset.bars_key)
    found = [manifests[month].metadata.get(RESTATED) for month in (manifests if months is None else months)]
    told = [one for one in found if one]
    if not told:
        return ()
    count, symbols = sum(one["count"] for one in told), sorted({symbol for one in told for symbol in one["symbols"]})
    return (
        f"History was restated: {count:,} bar{'s' * (count != 1)} ({first_of(symbols)}), {_span(told, 'bars')}, received on "
        f"{_span(told, 'received')}. Everything is computed on corrected history, where a bar is known at its close; "
        "`tidemill data show --as-of` shows what was known at a time.",
    )


def withdrawal_notes(study: Study) -> tuple[str, ...]:
    """One sentence where bars left the source and did not come back; empty where none did."""
    symbols, of = study.experiment.dataset.symbols, (study.dataset.venue, study.dataset.interval)
    gone = study.workspace.call(gone_bars, study.workspace.database, *of, symbols)
    if gone is None:
        return ()
    bars, days = f"{gone.bars:,} bar{'s' * (gone.bars != 1)}", [f"{at:%Y-%m-%d}" for at in (gone.since, gone.until)]
    when = f"on {days[0]}" if days[0] == days[1] else f"between {days[0]} and {days[1]}"
    return (
        f"{bars} left the source {when} ({first_of(gone.symbols)}, {gone.first:%Y-%m-%d} to {gone.last:%Y-%m-%d}) and "
        f"{'are' if gone.bars != 1 else 'is'} in no result; `tidemill data show --as-of` shows what was known before.",
    )


def _span(told: list[dict[str, Any]], name: str) -> str:
    days = sorted(text[:10] for one in told for text in one[name])
    return days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"
