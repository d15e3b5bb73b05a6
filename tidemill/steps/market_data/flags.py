"""Quality flags of a dataset: what is suspicious about the bars that it holds.

They are of what is stored, so that bars which came one by one are judged as those that came together; and of rows that were
refused and show a spike between their neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import polars as pl

from tidemill.domain.intervals import Interval
from tidemill.quality.flags import FLAG_SCHEMA, Flag, flag_bars
from tidemill.study.tables import BARS, FLAGS
from tidemill.study.workspace import Workspace

_KEYS = ("symbol", "open_time")
_FLAG_KEYS = (*_KEYS, "flag")
_NONE = pl.DataFrame(schema=FLAG_SCHEMA)


class JudgedBars(NamedTuple):
    """What an import gave. refused: flags of its rows, those that were refused among them. tells_actions: it tells splits and
    dividends, so that none needs to be suspected. whole: it held all rows of its symbols; everything: of all symbols.
    """

    symbols: frozenset[str]
    refused: Sequence[pl.DataFrame]
    tells_actions: bool
    whole: bool
    everything: bool


def write_flags(
    workspace: Workspace, venue: str, interval: Interval, groups: Iterable[list[str]], given: JudgedBars
) -> dict[str, int]:
    """Flags of the dataset after an import; flag → bars. groups: its symbols, as many at a time as memory takes."""
    lake, key = workspace.lake, f"{venue}.{interval}"
    held = "all" in lake.manifests(FLAGS, key)
    before = lake.scan(FLAGS, key).select(FLAG_SCHEMA.names()).collect() if held and not given.everything else _NONE
    mine = pl.col("symbol").is_in(given.symbols)
    own = [_of_stored(workspace, venue, interval, symbols, given.tells_actions) for symbols in groups]
    spikes = pl.concat([_NONE, *given.refused, *([] if given.whole else [before.filter(mine)])])
    found = [_without_bar(workspace, key, spikes), *own, before.filter(~mine)]
    flags = pl.concat(found).unique(_FLAG_KEYS, keep="last").sort(_FLAG_KEYS)
    if flags.height or held:
        lake.write(FLAGS, key, "all", flags)
    return dict(flags.group_by("flag").len().sort("flag").iter_rows())


def _of_stored(
    workspace: Workspace, venue: str, interval: Interval, symbols: Sequence[str], tells_actions: bool
) -> pl.DataFrame:
    """Of the stored bars of these symbols. What is known of corporate actions needs not be suspected."""
    columns = ("symbol", "open_time", "open", "close", "volume")
    scan = workspace.lake.scan(BARS, f"{venue}.{interval}").filter(pl.col("symbol").is_in(symbols)).select(columns)
    bars = scan.sort(_KEYS).collect().with_columns(known_at=pl.col("open_time") + interval.delta)
    found = flag_bars(bars, has_actions=tells_actions)
    told = workspace.call(workspace.store.read_adjustments, venue, list(symbols))
    known = found.filter(flag=Flag.SUSPECTED_ACTION.value)
    known = known.join(told, left_on=_KEYS, right_on=("symbol", "ex_time"), how="semi")
    return found.join(known, on=_FLAG_KEYS, how="anti")


def _without_bar(workspace: Workspace, key: str, flags: pl.DataFrame) -> pl.DataFrame:
    """Spikes of rows that are not stored, since they were refused."""
    spikes = flags.filter(flag=Flag.SPIKE.value)
    if spikes.is_empty():
        return spikes
    there = workspace.lake.scan(BARS, key).select(_KEYS).join(spikes.select(_KEYS).lazy(), on=_KEYS, how="semi").collect()
    return spikes.join(there, on=_KEYS, how="anti")
