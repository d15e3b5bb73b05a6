"""Signals in Postgres, where others read them: of each experiment its own."""

from __future__ import annotations

import polars as pl

from tidemill.experiments.tracked import goes_on
from tidemill.storage.experiments import stored_experiments
from tidemill.storage.results import keep_signals, write_signals
from tidemill.study.study import Study
from tidemill.study.tables import SIGNALS

# In a book's manifest: decider → version of what it asks for; and experiment → the same of what is in Postgres.
ASKED, SERVED = "asked", "served"


def serve_signals(study: Study, experiment: str) -> None:
    """Postgres holds what the deciders of an experiment ask for, by its id: of every book while it is tracked, else of the one
    that it would trade.

    A book's manifest says what is served of it. So what was made for another experiment of the same content is served here too,
    and of a new day only the newest decider's.
    """
    database, call = study.workspace.database, study.workspace.call
    manifests = study.lake.manifests(SIGNALS, study.key)
    chosen = manifests if _is_tracked(study, experiment) else {study.experiment.promotion.book}
    asked: list[str] = []
    for book, held in sorted(manifests.items()):
        served, wanted = held.metadata.get(SERVED, {}), held.metadata[ASKED]
        if book not in chosen:  # its rows go below, and with them what says that they are there
            if experiment in served:
                others = {name: parts for name, parts in served.items() if name != experiment}
                study.lake.annotate(held, {**held.metadata, SERVED: others})
            continue
        asked += wanted
        if served.get(experiment) == wanted:
            continue
        known = served.get(experiment, {})
        rows = study.lake.scan(SIGNALS, study.key, partitions=[book]).collect()
        changed = [decider for decider, version in wanted.items() if known.get(decider) != version]
        call(write_signals, database, experiment, changed, _served(rows, experiment, book, changed))
        study.lake.annotate(held, {**held.metadata, SERVED: {**served, experiment: wanted}})
    call(keep_signals, database, experiment, asked)


def _served(rows: pl.DataFrame, experiment: str, book: str, deciders: list[str]) -> pl.DataFrame:
    labels = {"experiment": experiment, "book": book, "account": "", "mode": "backtest"}
    own = rows.filter(pl.col("decider").is_in(deciders)).drop_nulls("weight")
    return own.with_columns(pl.lit(text).alias(name) for name, text in labels.items())


def _is_tracked(study: Study, experiment: str) -> bool:
    rows = {row.id: row for row in study.workspace.call(stored_experiments, study.workspace.database)}
    return rows[experiment].tracked_since is not None if experiment in rows else goes_on(study.experiment)
