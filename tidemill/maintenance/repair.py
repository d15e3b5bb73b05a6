"""Repair of the lake: what is damaged is made again from Postgres, or left for the next run to make."""

from __future__ import annotations

import msgspec

from tidemill.domain.intervals import Interval
from tidemill.domain.months import month_end, month_start
from tidemill.storage.lake_check import Damage, damaged
from tidemill.storage.trials import RETURNS
from tidemill.study.tables import BARS, FLAGS, IMPORTS
from tidemill.study.workspace import Workspace


class Repaired(msgspec.Struct, frozen=True, kw_only=True):
    """checked: partitions read. restored: months of bars written again from Postgres. removed: what the next run makes again.

    lost: what nothing else holds, the returns of counted trials; it is left as it is, and evaluating them again stores it.
    """

    checked: int
    restored: tuple[Damage, ...] = ()
    removed: tuple[Damage, ...] = ()
    lost: tuple[Damage, ...] = ()


def repair_lake(workspace: Workspace) -> Repaired:
    """Read the whole lake and mend what is damaged. Nothing that is whole is touched."""
    checked, found = damaged(workspace.lake)
    restored, removed, lost = [], [], []
    for one in found:
        if one.table == RETURNS:
            lost.append(one)
        elif one.table == BARS and _restored(workspace, one):
            restored.append(one)
        else:
            workspace.lake.drop(one.table, one.dataset, one.partition)
            if one.table in (BARS, FLAGS):
                workspace.lake.drop(IMPORTS, one.dataset)  # so the next run reads the source again
            removed.append(one)
    return Repaired(checked=checked, restored=tuple(restored), removed=tuple(removed), lost=tuple(lost))


def _restored(workspace: Workspace, one: Damage) -> bool:
    """Write a month of bars again as Postgres has it; False where Postgres has none of it."""
    venue, _, text = one.dataset.rpartition(".")
    interval, store = Interval.parse(text), workspace.store
    sizes = workspace.call(store.month_sizes, venue, interval)
    if one.partition not in sizes:
        return False
    start, end = month_start(one.partition), month_end(one.partition)
    rows = workspace.call(store.read, venue, interval, start=start, end=end)
    # A file of the same content would be kept as it lies there, damage and all.
    workspace.lake.drop(BARS, one.dataset, one.partition)
    workspace.lake.write(BARS, one.dataset, one.partition, rows, metadata={"version": sizes[one.partition][0]})
    return True
