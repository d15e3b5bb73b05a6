"""The trial ledger: every evaluation of a configuration on data, once.

A trial is config hash × data version × label × universe. Its row lies in Postgres (`trials`), its net returns in the lake
(table `trials`: trial_id, time, return). `record_trials` is the one way in, for one trial or thousands. A rerun counts once and
keeps the time at which it was first counted; when its returns differ (the code has changed), the newer ones replace the older.

What was evaluated outside of it cannot be counted: results without a trial id are marked as uncounted where they are shown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl

from tidemill.domain.errors import InputError
from tidemill.metrics.returns import Floats
from tidemill.provenance import fingerprint
from tidemill.storage.merge import Merged, Table, copy_merge, read_frame
from tidemill.validation.sharpe import moments

if TYPE_CHECKING:
    from tidemill.storage.lake import Lake
    from tidemill.storage.postgres import Database

RETURNS = "trials"
_TEXTS = ("trial_id", "experiment", "engine", "config_hash", "data_version", "label", "universe", "returns_ref")
TRIALS = Table(
    "trials",
    {
        **dict.fromkeys(_TEXTS, "text"),
        "metrics": "jsonb",
        "family": "text",
        "kind": "text",
        "config": "jsonb",
        "start_time": "timestamptz",
        "end_time": "timestamptz",
        "observations": "int8",
        "periods_per_year": "float8",
        "sharpe": "float8",
        "skew": "float8",
        "kurtosis": "float8",
        "returns_digest": "text",
    },
    key=("trial_id",),
)
_READ_KINDS = {**TRIALS.kinds, "counted_at": "timestamptz"}
_TEXTUAL = frozenset({"metrics", "config"})
_READ = f"""
SELECT {", ".join(f"{name}::text AS {name}" if name in _TEXTUAL else name for name in _READ_KINDS)} FROM trials
WHERE ($1::text IS NULL OR family = $1) AND ($2::text IS NULL OR experiment = $2)
  AND ($3::text[] IS NULL OR trial_id = ANY ($3))
ORDER BY counted_at, trial_id
"""  # nosec B608 - names of columns from this module's constants
_KNOWN = "SELECT trial_id, returns_digest, returns_ref FROM trials WHERE trial_id = ANY ($1)"
_VERSION = """
SELECT count(*) || '-' || coalesce(md5(string_agg(trial_id || returns_digest, ',' ORDER BY trial_id)), '') FROM trials
WHERE family = $1
"""
_SINCE = "SELECT since, forgotten, reason FROM trial_ledger ORDER BY since DESC LIMIT 1"
_FORGET = "WITH gone AS (DELETE FROM trials RETURNING 1) SELECT count(*) FROM gone"
_RESET = "INSERT INTO trial_ledger (forgotten, reason) VALUES ($1, $2) RETURNING since, forgotten, reason"


class TrialBatch(msgspec.Struct, frozen=True, kw_only=True):
    """Configurations evaluated on one version of data, for one label and universe, over common times.

    engines, configs: one for each trial; a config is everything that decides the result besides data, label and universe, as
    a person wants to see it (numbers, texts, lists, dictionaries). kind: what made it (run, backtest, sweep, search,
    cross_validation). family: trials that compete for the same selection, by convention venue and interval: `binance.1h`.
    times: UTC, ascending, microseconds. returns: [times, trials], simple net returns, NaN where a trial has none.
    metrics: further figures of each trial, by name; empty, or one for each.
    """

    experiment: str
    kind: str
    family: str
    universe: str
    data_version: str
    label: str
    engines: Sequence[str]
    configs: Sequence[Mapping[str, Any]]
    times: pl.Series
    returns: Floats
    periods_per_year: float
    metrics: Sequence[Mapping[str, Any]] = ()


class Recorded(msgspec.Struct, frozen=True):
    """Ids in the order of the batch, and how many of them were new, changed and known already."""

    trial_ids: tuple[str, ...]
    merged: Merged


class LedgerSince(msgspec.Struct, frozen=True):
    """Since when the ledger counts; `forgotten`: trials that the last reset removed, and why."""

    since: datetime
    forgotten: int
    reason: str


def config_hash(engine: str, config: Mapping[str, Any]) -> str:
    """16 hex digits of one configuration; the order of its keys does not matter."""
    return fingerprint(engine, config)[:16]


def trial_id(config: str, data_version: str, label: str, universe: str) -> str:
    """16 hex digits of config hash × data version × label × universe."""
    return fingerprint(config, data_version, label, universe)[:16]


async def record_trials(database: Database, lake: Lake, batch: TrialBatch) -> Recorded:
    """Count the trials of a batch. The returns are stored before the rows, so that a counted trial always has its series.

    Configurations that a batch holds twice count once (their first returns); a known one whose series is gone gets it again.
    Raises InputError when the shapes do not agree.
    """
    _check(batch)
    hashes = [config_hash(engine, config) for engine, config in zip(batch.engines, batch.configs, strict=True)]
    ids = [trial_id(config, batch.data_version, batch.label, batch.universe) for config in hashes]
    if not ids:
        return Recorded((), Merged())
    first = list({name: at for at, name in reversed(list(enumerate(ids)))}.values())[::-1]
    digests = _digests(batch)
    rows = await database.fetch(_KNOWN, [ids[at] for at in first])
    known = {row["trial_id"]: (row["returns_digest"], row["returns_ref"]) for row in rows}
    held = {ref for _, ref in known.values() if is_stored(lake, batch.family, ref)}
    changed = [at for at in first if known.get(ids[at], ("", ""))[0] != digests[at] or known[ids[at]][1] not in held]
    reference = _store(lake, batch, [ids[at] for at in changed], changed, [digests[at] for at in changed])
    new = set(changed)
    references = {at: reference if at in new else known[ids[at]][1] for at in first}
    merged = await copy_merge(database, TRIALS, _rows(batch, first, ids, hashes, digests, references))
    return Recorded(tuple(ids), merged)


async def read_trials(
    database: Database, *, family: str | None = None, experiment: str | None = None, trial_ids: Sequence[str] | None = None
) -> pl.DataFrame:
    """The columns of TRIALS and `counted_at`, in the order in which they were counted."""
    return await read_frame(database, _READ_KINDS, _READ, family, experiment, None if trial_ids is None else list(trial_ids))


async def family_version(database: Database, family: str) -> str:
    """Depends on which trials a family has and on their returns: equal means that nothing has to be computed again."""
    return str(await database.fetchval(_VERSION, family))


async def ledger_since(database: Database) -> LedgerSince:
    row = await database.fetchrow(_SINCE)
    return LedgerSince(row["since"], int(row["forgotten"]), row["reason"])


async def reset_ledger(database: Database, reason: str) -> LedgerSince:
    """Forget all trials; the ledger says from then on since when it counts and how many it forgot."""
    async with database.transaction() as connection:
        removed = await connection.fetchval(_FORGET)
        row = await connection.fetchrow(_RESET, int(removed), reason)
    return LedgerSince(row["since"], int(row["forgotten"]), row["reason"])


def read_returns(lake: Lake, trials: pl.DataFrame) -> pl.DataFrame:
    """trial_id, time, return of the given rows of `read_trials`, by trial and time; no rows for a series that is gone."""
    frames = []
    for (family, reference), group in trials.group_by("family", "returns_ref", maintain_order=True):
        manifest = lake.manifest(RETURNS, str(family), str(reference)) if reference else None
        if manifest is not None:
            frames.append(lake.scan_partition(manifest).filter(pl.col("trial_id").is_in(group["trial_id"].to_list())))
    empty = pl.DataFrame(schema={"trial_id": pl.String, "time": pl.Datetime("us", "UTC"), "return": pl.Float64})
    return pl.concat(pl.collect_all(frames)).sort("trial_id", "time") if frames else empty


async def return_series(database: Database) -> list[tuple[str, str, int]]:
    """family, reference and number of trials of every series of returns that the ledger names; none before its tables are."""
    if await database.fetchval("SELECT to_regclass('trials')::text") is None:
        return []
    rows = await database.fetch("SELECT family, returns_ref, count(*) FROM trials WHERE observations > 0 GROUP BY 1, 2")
    return [(row[0], row[1], row[2]) for row in rows]


def is_stored(lake: Lake, family: str, reference: str) -> bool:
    """Whether the series of returns that trials refer to is there."""
    return bool(reference) and lake.manifest(RETURNS, family, reference) is not None


def _check(batch: TrialBatch) -> None:
    count = len(batch.engines)
    if batch.returns.ndim != 2 or batch.returns.shape != (len(batch.times), count) or len(batch.configs) != count:
        raise InputError(
            f"A batch of {count} trials over {len(batch.times)} times holds {len(batch.configs)} configurations and returns of "
            f"shape {batch.returns.shape}. Give one configuration and one column of returns for each."
        )
    if batch.metrics and len(batch.metrics) != count:
        raise InputError(f"A batch of {count} trials holds metrics of {len(batch.metrics)}. Give them for each or for none.")
    if batch.times.dtype != pl.Datetime("us", "UTC"):
        raise InputError(f"The times of a batch of trials are {batch.times.dtype}; give UTC times in microseconds.")


def _digests(batch: TrialBatch) -> list[str]:
    """One digest for each trial, of its times and returns."""
    times = hashlib.blake2b(batch.times.to_physical().to_numpy().astype("<i8").tobytes(), digest_size=16).digest()
    columns = np.ascontiguousarray(np.where(np.isfinite(batch.returns), batch.returns, np.nan).T.astype("<f8"))
    return [hashlib.blake2b(column.tobytes(), digest_size=16, key=times).hexdigest() for column in columns]


def _store(lake: Lake, batch: TrialBatch, ids: Sequence[str], columns: Sequence[int], digests: Sequence[str]) -> str:
    """Write the series of these columns as one partition; its name, by content."""
    if not ids:
        return ""
    name = fingerprint(ids, digests)[:24]
    length = len(batch.times)
    frame = pl.DataFrame(
        {
            "trial_id": pl.Series(ids, dtype=pl.String).gather(np.repeat(np.arange(len(ids), dtype=np.uint32), length)),
            "time": batch.times.gather(np.tile(np.arange(length, dtype=np.uint32), len(ids))),
            "return": pl.Series(batch.returns.T[list(columns)].ravel(), dtype=pl.Float64),
        }
    )
    lake.write(RETURNS, batch.family, name, frame.filter(pl.col("return").is_finite()))
    return name


def _rows(
    batch: TrialBatch,
    chosen: Sequence[int],
    ids: Sequence[str],
    hashes: Sequence[str],
    digests: Sequence[str],
    references: Mapping[int, str],
) -> pl.DataFrame:
    returns = batch.returns[:, list(chosen)]
    found = moments(returns)
    starts, ends = _spans(batch.times, returns)
    metrics = batch.metrics or [{}] * len(ids)
    return pl.DataFrame(
        {
            "trial_id": [ids[at] for at in chosen],
            "engine": [batch.engines[at] for at in chosen],
            "config_hash": [hashes[at] for at in chosen],
            "returns_ref": [references[at] for at in chosen],
            "metrics": [_text(metrics[at]) for at in chosen],
            "config": [_text(batch.configs[at]) for at in chosen],
            "start_time": starts,
            "end_time": ends,
            "observations": found.observations,
            "sharpe": found.sharpe,
            "skew": found.skew,
            "kurtosis": found.kurtosis,
            "returns_digest": [digests[at] for at in chosen],
        }
    ).with_columns(
        pl.col("sharpe", "skew", "kurtosis").fill_nan(None),
        *(pl.lit(getattr(batch, name)).alias(name) for name in ("experiment", "data_version", "label", "universe", "family")),
        pl.lit(batch.kind).alias("kind"),
        pl.lit(batch.periods_per_year, pl.Float64).alias("periods_per_year"),
    )


def _spans(times: pl.Series, returns: Floats) -> tuple[pl.Series, pl.Series]:
    """First and last time of each column's returns; null for a column without any."""
    finite = np.isfinite(returns)
    none = pl.Series(~finite.any(axis=0))
    if not len(times):
        return (pl.Series([None] * returns.shape[1], dtype=times.dtype),) * 2
    edges = (finite.argmax(axis=0), len(times) - 1 - finite[::-1].argmax(axis=0))
    start, end = (times.gather(edge.astype(np.uint32)).set(none, None) for edge in edges)
    return start, end


def _text(value: Mapping[str, Any]) -> str:
    return msgspec.json.encode(value, order="deterministic", enc_hook=str).decode()
