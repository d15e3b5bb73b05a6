"""The Fear & Greed Index in a study: brought up to date from its source, and joined to bars as of the time it was known.

Nothing is asked unless the experiment names a source (`features.fear_greed`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import polars as pl
from msgspec import UNSET, UnsetType

from tidemill.domain.months import month_end
from tidemill.features.api import FeatureSet
from tidemill.market.fear_greed import API, COLUMNS, FearGreedSource, as_known, fear_greed_source, join_known, next_due
from tidemill.provenance import fingerprint, source_version
from tidemill.services import ServiceOptions
from tidemill.storage.fear_greed import read_fear_greed, write_fear_greed
from tidemill.storage.lake import Manifest
from tidemill.study.context import index_versions
from tidemill.study.freshness import StepReport, is_made_of, stored, unused
from tidemill.study.study import Study
from tidemill.study.tables import FEAR_GREED

_ALL = "all"
_SHOWN = 10


def reads_index(features: FeatureSet) -> bool:
    """Whether some feature needs the index."""
    return any(not feature.expression.inputs.isdisjoint(COLUMNS) for feature in features.features)


class IndexFacts(msgspec.Struct, frozen=True, kw_only=True):
    """later_versions: days whose value was changed afterwards. value: the newest that is known."""

    source: str
    days: int
    later_versions: int
    days_missing: int
    value: float | UnsetType = UNSET


def sync_fear_greed(study: Study) -> StepReport[IndexFacts | None]:
    """Bring the index up to date with the experiment's source.

    A file that did not change is not read; the API is not asked before a new value can be there.
    """
    spec = study.experiment.features.fear_greed
    if spec is None:
        return unused(_code(), "This experiment does not use the index: it names no features.fear_greed.")
    timeout = study.workspace.settings.http_timeout
    source = fear_greed_source(spec, ServiceOptions(timeout=timeout, deadline=3.0 * timeout))
    # Before it is read: what changes meanwhile is read in the next run.
    state, before = _state_of(spec), study.lake.manifest(FEAR_GREED, source.name, _ALL)
    known = before.rows if before is not None and is_made_of(before, state) else None
    versions = study.workspace.call(_fetch, study, source, datetime.now(UTC), known)
    made = study.lake.write(FEAR_GREED, source.name, _ALL, versions, fingerprint=state)
    return _report(spec, versions, made, worked=before is None or before.data_version != made.data_version)


async def _fetch(study: Study, source: FearGreedSource, now: datetime, known: int | None) -> pl.DataFrame:
    """Every version that is stored, after what is new in the source was stored.

    known: how many versions the source had given in the state in which it is; None where it changed since.
    """
    database, spec = study.workspace.database, study.experiment.features.fear_greed or ""
    held = await read_fear_greed(database, source.name)
    newest = held["stamp"].max()
    since = newest if isinstance(newest, datetime) else None
    try:
        if held.height == known and (spec != API or now < next_due(since)):
            return held.drop("source")
        await write_fear_greed(database, source.name, await source.values(since), received_at=now)
    finally:
        await source.close()
    return (await read_fear_greed(database, source.name)).drop("source")


def _state_of(spec: str) -> str:
    """What a file looks like now, with the code that reads it; of the API only the code."""
    if spec == API:
        return fingerprint(_code())
    path = Path(spec.removeprefix("file:")).expanduser()
    stat = path.stat()
    return fingerprint(_code(), str(path), stat.st_size, stat.st_mtime_ns)


def _code() -> str:
    return source_version("tidemill.market.fear_greed", "tidemill.storage.fear_greed")


def _report(spec: str, versions: pl.DataFrame, made: Manifest, *, worked: bool) -> StepReport[IndexFacts]:
    newest = versions.sort("stamp", "known_at").tail(_SHOWN).reverse()
    return stored(
        {_ALL: made},
        worked=worked,
        start=_moment(versions["stamp"].min()),
        end=_moment(versions["stamp"].max()),
        code_version=_code(),
        facts=_facts(spec, versions),
        columns=("day", "value", "known_at"),
        table=tuple((f"{stamp:%Y-%m-%d}", value, f"{at:%Y-%m-%d %H:%M}") for stamp, at, value in newest.rows()),
        notes=("A value is known one day after its stamp; bars get what was known at their close, for at most seven days.",),
    )


def _facts(spec: str, versions: pl.DataFrame) -> IndexFacts:
    known, days = as_known(versions), versions["stamp"].n_unique()
    return IndexFacts(
        source=spec,
        days=days,
        later_versions=versions.height - days,
        days_missing=_missing(versions),
        value=float(known["fear_greed"][-1]) if known.height else UNSET,
    )


def _moment(value: object) -> datetime | None:
    return value if isinstance(value, datetime) else None


def _missing(versions: pl.DataFrame) -> int:
    first, last = versions["stamp"].min(), versions["stamp"].max()
    if not isinstance(first, datetime) or not isinstance(last, datetime):
        return 0
    return (last - first).days + 1 - versions["stamp"].n_unique()


def index_is_kept(study: Study) -> bool:
    """Whether the source that the experiment names was read."""
    spec = study.experiment.features.fear_greed
    return spec is not None and study.lake.holds(FEAR_GREED, fear_greed_source(spec).name)


def known_index(study: Study) -> pl.DataFrame:
    """known_at, fear_greed, fear_greed_change_7 of the experiment's source. InputError where it was not fetched yet."""
    return study.once("known index", lambda: as_known(index_versions(study)))


def with_index(study: Study, bars: pl.DataFrame, features: FeatureSet) -> pl.DataFrame:
    """The bars, and beside them the index as known at each bar's close, if some feature reads it."""
    return join_known(bars, known_index(study), study.dataset.interval) if reads_index(features) else bars


def index_prints(study: Study, months: Iterable[str], features: FeatureSet) -> Mapping[str, str]:
    """Month → fingerprint of what its bars can know of the index and earlier months could not; empty where none reads it.

    months: in order of time. A bar that opens within a month closes less than an interval after it.
    """
    if not reads_index(features):
        return {}
    known, code, fingerprints = known_index(study), source_version("tidemill.market.fear_greed"), {}
    previous = datetime.min.replace(tzinfo=UTC)
    for month in months:
        end = month_end(month) + study.dataset.interval.delta
        fingerprints[month] = fingerprint(
            code, known.filter((pl.col("known_at") >= previous) & (pl.col("known_at") < end)).rows()
        )
        previous = end
    return fingerprints
