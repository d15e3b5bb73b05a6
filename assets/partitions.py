"""Every partitions definition, once. Partitions are time buckets only; what belongs to one symbol lives in Postgres."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

import dagster as dg
from dagster._core.definitions.partitions.context import partition_loading_context

# Older bars are stored and used like all others; the web UI just has no square for their months.
FIRST_MONTH = "1990-01"


class Months(dg.MonthlyPartitionsDefinition):
    """Monthly partitions whose list is made once for each newest month: a run asks for it whenever a step reads all months."""

    def get_partition_keys(self, current_time: datetime | None = None, dynamic_partitions_store: Any = None) -> Sequence[str]:
        with partition_loading_context(current_time, dynamic_partitions_store):
            return self._until(self.get_last_partition_key())

    @cache  # noqa: B019  # the definitions live as long as their process
    def _until(self, newest: str | None) -> Sequence[str]:
        return tuple(super().get_partition_keys())


# `end_offset=1`: the running month exists. A range of months runs as one run.
months = Months(start_date=FIRST_MONTH, fmt="%Y-%m", end_offset=1)
one_run = dg.BackfillPolicy.single_run()
