"""News in a study: brought up to date from its source, bad rows quarantined, copied to the lake month by month.

Nothing is asked unless the experiment names a source (`news`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from tidemill.domain.errors import RetryError
from tidemill.domain.experiment import NewsSpec
from tidemill.domain.months import month_end, month_start
from tidemill.market.news import NewsSource, RejectedNews, items_frame, judged
from tidemill.provenance import fingerprint, source_version
from tidemill.storage.lake import Manifest
from tidemill.storage.news import news_months, read_news, write_news
from tidemill.study.context import NO_NEWS, news_key, news_source
from tidemill.study.freshness import StepReport, is_made_of, stored, unused
from tidemill.study.study import Study
from tidemill.study.tables import NEWS, NEWS_IMPORTS

_STATE = "state"
_ITEMS = "items"  # of it: how many lay in Postgres, month by month
_INTERVAL = "news"
_SHOWN = 20


class NewsImport(msgspec.Struct, frozen=True, kw_only=True):
    """What a look at the source came to: rows = inserted + duplicates + quarantined. reasons: why → rows in quarantine.

    without_receipt: items whose time of publication stands in for the time at which they were known.
    """

    rows: int = 0
    inserted: int = 0
    quarantined: int = 0
    reasons: dict[str, int] = {}
    duplicates: int = 0
    without_receipt: int = 0


class NewsFacts(msgspec.Struct, frozen=True, kw_only=True):
    source: str
    imported: NewsImport


def sync_news(study: Study) -> StepReport[NewsFacts | None]:
    """Bring the news up to date with the experiment's source; a file that did not change is not read.

    A feed that does not answer is said in the notes, and what is stored counts: news is known when it is received, so coming
    later changes nothing of the past. It is an error when nothing is stored.
    """
    spec = study.experiment.news
    if spec is None:
        return unused(_code(), NO_NEWS)
    source = news_source(study, spec)
    try:
        imported, notes = _import(study, spec, source)
    finally:
        study.workspace.call(source.close)
    changed = _copy_to_lake(study, source.name)
    return _report(study, NewsFacts(source=source.name, imported=imported), notes, worked=changed > 0)


def news_are_kept(study: Study) -> bool:
    """Whether the experiment's source was read, however little it held."""
    return study.lake.holds(NEWS_IMPORTS, news_key(study))


def _code() -> str:
    return source_version("tidemill.steps.market_data.news")


def _import(study: Study, spec: NewsSpec, source: NewsSource) -> tuple[NewsImport, list[str]]:
    """What the last look at the source came to, and sentences about it."""
    before = study.lake.manifest(NEWS_IMPORTS, source.name, _STATE)
    state = _state_of(spec)
    if before is not None and state is not None and is_made_of(before, state) and _all_stored(study, before):
        return _kept(before), []
    try:
        imported = study.workspace.call(_read, study, source, datetime.now(UTC))
    except RetryError as exc:
        if before is None:
            raise
        return _kept(before), [f"The source was not read: {exc} What was stored before counts."]
    metadata = {**msgspec.structs.asdict(imported), _ITEMS: _stored(study, source.name)}
    study.lake.write(NEWS_IMPORTS, source.name, _STATE, pl.DataFrame(), fingerprint=state or "", metadata=metadata)
    return imported, []


def _stored(study: Study, name: str) -> dict[str, int]:
    """Month → items of a source in Postgres."""
    return study.workspace.call(news_months, study.workspace.database, name)


def _all_stored(study: Study, held: Manifest) -> bool:
    """Whether Postgres holds what it held after the last look: a restored or another database may not."""
    return _stored(study, held.dataset) == held.metadata.get(_ITEMS)


def _kept(held: Manifest) -> NewsImport:
    """What is kept of the last look; a home of before named one of its figures in words."""
    unknown = held.metadata.get("without a receipt", 0)
    return msgspec.convert({"without_receipt": unknown, **held.metadata}, NewsImport)


def _state_of(spec: NewsSpec) -> str | None:
    """What a file looks like now, with the code that reads it; None for a feed, which has to be asked."""
    if not spec.source.startswith("file:"):
        return None
    stat = Path(spec.source.removeprefix("file:")).expanduser().stat()
    return fingerprint(_code(), stat.st_size, stat.st_mtime_ns)


async def _read(study: Study, source: NewsSource, now: datetime) -> NewsImport:
    """Judge and store batch after batch; how many rows came to what."""
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    async for rows, receipt in source.batches():
        items, rejected = judged(rows, source.name, now=now, receipt=receipt)
        written = await write_news(study.workspace.database, items_frame(items))
        if rejected:
            await study.workspace.store.write_quarantine(_quarantine(source, rejected))
        counts.update(rows=len(rows), inserted=written.inserted, quarantined=len(rejected))
        counts.update(duplicates=len(rows) - len(rejected) - written.inserted)
        counts.update(without_receipt=sum(not item.vintage_known for item in items))
        reasons.update(str(row.reason) for row in rejected)
    return NewsImport(**counts, reasons=dict(reasons))


def _quarantine(source: NewsSource, rejected: Sequence[RejectedNews]) -> pl.DataFrame:
    schema = {"symbol": pl.String, "reason": pl.String, "detail": pl.String, "source_line": pl.Int64}
    rows = [(row.symbol, str(row.reason), row.detail, row.line) for row in rejected]
    return pl.DataFrame(rows, schema=schema, orient="row").select(
        pl.lit(source.name).alias("venue"),
        pl.lit(_INTERVAL).alias("interval"),
        "symbol",
        pl.lit(None, pl.Datetime("us", "UTC")).alias("open_time"),
        "reason",
        "detail",
        pl.lit(source.origin).alias("source"),
        "source_line",
    )


def _copy_to_lake(study: Study, name: str) -> int:
    """Months whose items in Postgres are more than those in the lake are written again; returns how many."""
    counts = _stored(study, name)
    held = study.lake.manifests(NEWS, name)
    stale = [month for month, count in sorted(counts.items()) if month not in held or held[month].rows != count]
    for month in stale:
        start, end = month_start(month), month_end(month)
        frame = study.workspace.call(read_news, study.workspace.database, name, start=start, end=end)
        study.lake.write(NEWS, name, month, frame)
    for gone in held.keys() - counts.keys():
        study.lake.drop(NEWS, name, gone)
    return len(stale)


def _report(study: Study, facts: NewsFacts, notes: list[str], *, worked: bool) -> StepReport[NewsFacts]:
    manifests = study.lake.manifests(NEWS, facts.source)
    empty = () if any(manifest.rows for manifest in manifests.values()) else ("The source holds no news.",)
    return stored(
        manifests,
        worked=worked,
        start=month_start(min(manifests)) if manifests else None,
        end=month_end(max(manifests)) if manifests else None,
        code_version=_code(),
        facts=facts,
        columns=("known_at", "symbols", "headline"),
        table=_newest(study, facts.source, max(manifests)) if manifests else (),
        notes=(*notes, *vintage_notes(study), *empty),
    )


def vintage_notes(study: Study) -> list[str]:
    """A sentence where the time at which some of the news was known is only assumed; empty otherwise."""
    held = study.lake.manifest(NEWS_IMPORTS, news_key(study), _STATE) if study.experiment.news is not None else None
    unknown = _kept(held).without_receipt if held is not None else 0
    if not unknown:
        return []
    return [
        f"{unknown:,} news items came without a receipt: their time of publication stands in for the time at which they were "
        "known, so results on them may be better than anybody could have had."
    ]


def _newest(study: Study, name: str, month: str) -> tuple[tuple[Any, ...], ...]:
    frame = study.lake.scan(NEWS, name, partitions=[month]).select("known_at", "symbols", "headline").collect()
    latest = frame.sort("known_at", descending=True).head(_SHOWN)
    return tuple((f"{at:%Y-%m-%d %H:%M}", symbols[:40], headline[:100]) for at, symbols, headline in latest.iter_rows())
