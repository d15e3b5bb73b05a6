"""Every partitions definition, once. Partitions are time buckets only; what belongs to one symbol lives in Postgres."""

import dagster as dg

# `end_offset=1`: the running month exists. A range of months runs as one run.
months = dg.MonthlyPartitionsDefinition(start_date="1960-01", fmt="%Y-%m", end_offset=1)
one_run = dg.BackfillPolicy.single_run()
