"""What was tried: the ledger of trials, and trials side by side."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.numbers import finite
from tidemill.metrics.bootstrap import NOT_DEFINED, sharpe_interval
from tidemill.metrics.returns import Floats
from tidemill.storage.trials import LedgerSince, ledger_since, read_returns, read_trials
from tidemill.study.counting import TrialSelection, select_trials

if TYPE_CHECKING:
    from tidemill.storage.lake import Lake
    from tidemill.storage.postgres import Database


class ComparedTrial(msgspec.Struct, frozen=True, kw_only=True):
    """One trial beside others. Sharpe ratios are annualised; None where a figure is not defined. returns_lost: its series is
    gone, and with it what is made of that.
    """

    trial: str
    experiment: str
    engine: str
    kind: str
    label: str
    universe: str
    data_version: str
    observations: int
    config: dict[str, Any]
    start: datetime | None
    end: datetime | None
    sharpe: float | None
    sharpe_low: float | None
    sharpe_high: float | None
    deflated_sharpe: float | None
    deflated_sharpe_clustered: float | None
    pbo_when_best: float | None
    returns_lost: bool


class TrialComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Trials side by side. Sharpe ratios are annualised.

    counted, clusters: trials on that source in all, and how many of them differ. pbo: among the compared ones over the times
    that they have in common, None where it is not defined; pbo_trials, pbo_blocks: how many took part, and into how many blocks
    the time was cut. since: when the ledger began to count.
    """

    family: str
    since: datetime
    counted: int
    clusters: int
    expected_maximum_sharpe: float
    expected_maximum_sharpe_clustered: float
    pbo: float | None
    pbo_trials: int | None
    pbo_blocks: int | None
    rows: tuple[ComparedTrial, ...]


async def list_trials(database: Database, *, experiment: str | None = None, family: str | None = None) -> pl.DataFrame:
    """Trials in the order in which they were counted: trial, counted_at, experiment, engine, kind, …, Sharpe ratio a year."""
    found = await read_trials(database, experiment=experiment, family=family)
    yearly = pl.col("sharpe") * pl.col("periods_per_year").sqrt()
    return found.select(
        pl.col("trial_id").alias("trial"),
        *("counted_at", "experiment", "engine", "kind", "family", "universe", "label", "data_version", "config"),
        *("start_time", "end_time", "observations"),
        yearly.alias("sharpe"),
        "metrics",
    )


async def since(database: Database) -> LedgerSince:
    """Since when the ledger counts."""
    return await ledger_since(database)


async def compare_trials(
    database: Database, lake: Lake, trial_ids: Sequence[str] = (), *, experiment: str | None = None
) -> TrialComparison:
    """Trials by id, or all of an experiment. InputError unless they are of one source, UnknownNameError for unknown ones."""
    if bool(trial_ids) == (experiment is not None):
        raise InputError("Name trials by their ids, or one experiment with --experiment.")
    wanted = list(dict.fromkeys(trial_ids)) if trial_ids else None
    chosen = await read_trials(database, experiment=experiment, trial_ids=wanted)
    _require_found(chosen, wanted, experiment)
    families = chosen["family"].unique().sort().to_list()
    if len(families) > 1:
        raise InputError(
            f"These trials are of different sources ({', '.join(families)}) and do not compete. Give the ids of one source."
        )
    counted, begun = await read_trials(database, family=families[0]), await ledger_since(database)
    return await asyncio.to_thread(_compared, lake, chosen, counted, begun)


def _compared(lake: Lake, chosen: pl.DataFrame, counted: pl.DataFrame, begun: LedgerSince) -> TrialComparison:
    found = select_trials(lake, counted, chosen["trial_id"].to_list(), alone=True)
    selection, overfitting = found.selection, found.selection.overfitting
    year = math.sqrt(chosen["periods_per_year"][-1] or 1.0)
    return TrialComparison(
        family=chosen["family"][0],
        since=begun.since,
        counted=selection.trials,
        clusters=selection.clusters,
        expected_maximum_sharpe=selection.expected_maximum * year,
        expected_maximum_sharpe_clustered=selection.expected_maximum_clustered * year,
        pbo=overfitting.pbo if overfitting else None,
        pbo_trials=overfitting.trials if overfitting else None,
        pbo_blocks=overfitting.blocks if overfitting else None,
        rows=_rows(lake, chosen, found),
    )


def _require_found(chosen: pl.DataFrame, wanted: Sequence[str] | None, experiment: str | None) -> None:
    missing = sorted(set(wanted or ()) - set(chosen["trial_id"]))
    if missing:
        raise UnknownNameError("trial", missing[0], hint="`tidemill trials list` shows all.")
    if chosen.is_empty():
        raise UnknownNameError("experiment in the ledger", str(experiment), hint="`tidemill trials list` shows all trials.")


def _rows(lake: Lake, chosen: pl.DataFrame, found: TrialSelection) -> tuple[ComparedTrial, ...]:
    series = {str(key[0]): own["return"].to_numpy() for key, own in read_returns(lake, chosen).group_by("trial_id")}
    return tuple(_row(row, series.get(row["trial_id"])) for row in found.trials.to_dicts())


def _row(row: Mapping[str, Any], returns: Floats | None) -> ComparedTrial:
    periods = row["periods_per_year"] or 1.0
    interval = sharpe_interval(returns, periods) if returns is not None else NOT_DEFINED
    same = ("experiment", "engine", "kind", "label", "universe", "data_version", "observations")
    judged = ("deflated_sharpe", "deflated_sharpe_clustered", "pbo_when_best")
    return ComparedTrial(
        trial=row["trial_id"],
        config=msgspec.json.decode(row["config"]),
        start=row["start_time"],
        end=row["end_time"],
        sharpe=None if row["sharpe"] is None else row["sharpe"] * math.sqrt(periods),
        sharpe_low=finite(interval.low),
        sharpe_high=finite(interval.high),
        returns_lost=returns is None and bool(row["observations"]),
        **{name: row[name] for name in (*same, *judged)},
    )
