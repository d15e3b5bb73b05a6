"""Every partitions definition, once. Partitions are time buckets only; what belongs to one symbol lives in Postgres."""

import dagster as dg

# Older bars are stored and used like all others; the web UI just has no square for their months.
FIRST_MONTH = "1990-01"
# `end_offset=1`: the running month exists. A range of months runs as one run.
months = dg.MonthlyPartitionsDefinition(start_date=FIRST_MONTH, fmt="%Y-%m", end_offset=1)
one_run = dg.BackfillPolicy.single_run()
