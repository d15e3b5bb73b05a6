"""The market-data steps of the graph: instruments, bars and gaps of the dataset that a run is bound to."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import polars as pl

from tidemill.config import Settings
from tidemill.domain.experiment import DatasetSpec, Experiment
from tidemill.domain.intervals import Interval, moment
from tidemill.domain.ports import BarSource, SpannedSource
from tidemill.market.files import FileSource
from tidemill.provenance import fingerprint, library_version
from tidemill.steps.market_data.ingest import copy_months, import_bars
from tidemill.storage.lake import Lake, Manifest
from tidemill.study import code as code_of
from tidemill.study.book import require_benchmark
from tidemill.study.freshness import StepReport, is_made_of, stored
from tidemill.study.losses import loss_notes
from tidemill.study.registry import Registry
from tidemill.study.restatements import restatement_notes
from tidemill.study.sources import bar_source, instruments_of, venue_of
from tidemill.study.study import Study, dataset_for, features_key
from tidemill.study.tables import BARS, FLAGS, IMPORTS


class ImportFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an import came to: see `ingest.ImportReport`. reasons: why → rows in quarantine. flags: flag → bars."""

    calendar: str
    rows: int
    inserted: int
    unchanged: int
    restated: int
    ended: int
    duplicates: int
    quarantined: int
    gaps: int
    missing_bars: int
    adjustments: int
    reasons: dict[str, int]
    flags: dict[str, int]


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of the last import: sentences about it, the code that read, and file → state of those it looked at.

    refused: why → rows in quarantine, of the last reading of the whole and of the new files since.
    """

    facts: ImportFacts
    notes: tuple[str, ...]
    code: str
    files: dict[str, str] = {}
    refused: dict[str, int] = {}


class BarFacts(msgspec.Struct, frozen=True, kw_only=True):
    dataset: str
    imported: ImportFacts


class GapFacts(msgspec.Struct, frozen=True, kw_only=True):
    missing_bars: int


def _file_states(spec: DatasetSpec) -> dict[str, str]:
    """File → size and time of change, of everything that a `file:` source would look at."""
    path = Path(spec.source.removeprefix("file:")).expanduser()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {str(file): f"{(stat := file.stat()).st_size}-{stat.st_mtime_ns}" for file in files if file.is_file()}


def _content(spec: DatasetSpec) -> str | None:
    """A cheap fingerprint of what the source holds now; None for a venue, which has to be asked."""
    if spec.source == "sample":
        return fingerprint(code_of.imports(), spec, library_version("bokeh_sampledata"))
    if spec.source.startswith("file:"):
        return fingerprint(code_of.imports(), spec, _file_states(spec))
    return None


def _newest_if_unchanged(experiment: Experiment, venue: str, settings: Settings) -> str | None:
    dataset, spec, lake = dataset_for(experiment.dataset, venue), experiment.dataset, Lake(settings.lake)
    before, content = lake.manifest(IMPORTS, dataset.bars_key, _import_name(spec)), _content(spec)
    if before is None or content is None or before.fingerprint != content:
        return None
    months, registry = set(lake.manifests(BARS, dataset.bars_key)), Registry.of(settings).with_files(experiment.modules)
    computed = set(lake.manifests("features", features_key(dataset, experiment, registry)))
    return max(months) if months and months <= computed else None


def _changed_source(study: Study, before: Imported | None) -> BarSource | None:
    """The source, limited to the files that are new since the last import, which keep to the calendars that are known.

    None when no file with this interval is new. A new file costs what it holds, however long the history beside it. All is read
    again when a file changed or is gone, since only the whole tells what left the source; when the code of the import changed;
    and when a file has an adjusted close: corporate actions show only in the whole series.
    """
    spec, settings = study.experiment.dataset, study.workspace.settings
    source = bar_source(spec, settings, study.dataset.venue)
    if before is None or not isinstance(source, FileSource) or before.code != code_of.imports() or source.adjusts():
        return source
    states, then = _file_states(spec), before.files
    chosen = source.files(study.dataset.interval)
    if not states.keys() >= then.keys() or any(then.get(str(file), states[str(file)]) != states[str(file)] for file in chosen):
        return source
    changed = [file for file in chosen if str(file) not in then]
    path = Path(spec.source.removeprefix("file:")).expanduser()
    if not changed:
        return None
    stored = instruments_of(study.workspace, study.dataset.venue)
    calendars = {symbol: instrument.calendar for symbol, instrument in stored.items()}
    return FileSource(path, settings, only=changed, calendar=calendars).kept_under(study.dataset.venue)


def sync_bars(study: Study) -> StepReport[BarFacts]:
    """Bring the bars of the dataset up to date with their source; a source whose content did not change is not read.

    UnknownNameError, once the bars are there, for a benchmark that is a symbol of which none are tested.
    """
    report = _synced(study)
    require_benchmark(study)
    return report


def _synced(study: Study) -> StepReport[BarFacts]:
    lake, key, name = study.lake, study.dataset.bars_key, _import_name(study.experiment.dataset)
    content, held = _content(study.experiment.dataset), lake.manifest(IMPORTS, key, name)
    # The mark of an import says nothing of the months: each is compared with its version in Postgres.
    mended = copy_months(study.workspace, study.dataset.venue, study.dataset.interval)
    study.forget()
    before = _kept(held)
    if not _have_flags(study, before):
        before = None  # they come from all of the source
    if before is not None and content is not None and is_made_of(held, content) and lake.manifests(BARS, key):
        return _bars_report(study, before, worked=mended > 0)
    now, changed = _imported(study, before, content)
    study.forget()  # actions and instruments may have changed where no bar has
    if content is not None:
        lake.write(IMPORTS, key, name, _NO_BARS, fingerprint=content, metadata=msgspec.to_builtins(now))
    return _bars_report(study, now, worked=changed or mended > 0)


_NO_BARS = pl.DataFrame(schema={"symbol": pl.String, "open_time": pl.Datetime("us", "UTC")})


def _imported(study: Study, before: Imported | None, content: str | None) -> tuple[Imported, bool]:
    """What is to be kept after a look at the source, and whether any bar changed. Of unread files the last import holds."""
    source = _changed_source(study, before)
    spec = study.experiment.dataset
    files = _file_states(spec) if spec.source.startswith("file:") else {}
    if source is None:
        assert before is not None  # nosec B101 - only an import that is known says that there is nothing new
        return msgspec.structs.replace(before, files=files), False
    made = _import(study, source, _resume_from(study, content))
    earlier = Counter(before.refused) if before is not None and not _whole(source) else Counter()
    refused, facts = dict(earlier + Counter(made.facts.reasons)), made.facts
    changed = bool(facts.inserted or facts.restated or facts.ended)
    return msgspec.structs.replace(made, files=files, refused=refused), changed


def _whole(source: BarSource) -> bool:
    """Whether a source is read as the whole of its dataset, not its new files alone."""
    return bool(getattr(source, "mirrors", True))


def last_import(study: Study) -> Imported | None:
    """What is kept of the imports of this dataset; None for a venue, which is asked anew each time."""
    return _kept(study.lake.manifest(IMPORTS, study.dataset.bars_key, _import_name(study.experiment.dataset)))


def _kept(held: Manifest | None) -> Imported | None:
    """What is kept of the last import; None where a home of before kept it in other words, so that all is read again."""
    try:
        return None if held is None else msgspec.convert(held.metadata, Imported)
    except msgspec.ValidationError:
        return None


def _have_flags(study: Study, before: Imported | None) -> bool:
    """Whether the flags are there that the last import found: they lie in a table of their own."""
    found = before is not None and bool(before.facts.flags)
    return not found or study.lake.manifest(FLAGS, study.dataset.bars_key, "all") is not None


def _import(study: Study, source: BarSource, start: datetime | None) -> Imported:
    report = import_bars(
        study.workspace,
        source,
        interval=study.dataset.interval,
        symbols=study.experiment.dataset.symbols,
        start=start,
        end=study.end,
    )
    facts = msgspec.convert(report, ImportFacts, from_attributes=True)
    return Imported(facts=facts, notes=report.notes, code=code_of.imports())


def _import_name(spec: DatasetSpec) -> str:
    return f"s-{fingerprint(spec)[:16]}"


def _resume_from(study: Study, content: str | None) -> datetime | None:
    """A venue is asked only for what came after the newest bar that all its symbols have; a file is read whole."""
    if content is not None:
        return study.start
    lake, key = study.lake, study.dataset.bars_key
    manifests = lake.manifests(BARS, key)
    if not manifests:
        return study.start
    newest = lake.scan(BARS, key, partitions=[max(manifests)]).group_by("symbol").agg(pl.col("open_time").max()).collect()
    wanted = set(study.experiment.dataset.symbols) or set(newest["symbol"])
    if not wanted <= set(newest["symbol"]) or (study.start is not None and study.start < _first(study)):
        return study.start
    last = newest.filter(pl.col("symbol").is_in(list(wanted)))["open_time"].min()
    return last + study.dataset.interval.delta if isinstance(last, datetime) else study.start


def _first(study: Study) -> datetime:
    starts = [manifest.start for manifest in study.lake.manifests(BARS, study.dataset.bars_key).values() if manifest.start]
    return min(starts, default=datetime.max.replace(tzinfo=UTC))


def _bars_report(study: Study, kept: Imported, *, worked: bool) -> StepReport[BarFacts]:
    key = study.dataset.bars_key
    return stored(
        study.lake.manifests(BARS, key),
        worked=worked,
        code_version=code_of.imports(),
        facts=BarFacts(dataset=key, imported=kept.facts),
        notes=(*loss_notes(study), *restatement_notes(study), *kept.notes),
    )


def sync_instruments(study: Study) -> StepReport[None]:
    """What can be traded in this dataset and what its venue allows."""
    known = instruments_of(study.workspace, study.dataset.venue)
    traded = set(study.workspace.call(study.workspace.store.symbols, study.dataset.venue, study.dataset.interval))
    found = {symbol: instrument for symbol, instrument in known.items() if symbol in traded}
    rows = tuple(
        (item.symbol, item.calendar, item.quote, item.can_short, item.borrow_bps, item.lot, item.tick, item.min_notional)
        for _, item in sorted(found.items())
    )
    return StepReport(
        worked=False,
        facts=None,
        rows=len(rows),
        symbols=len(rows),
        data_version=fingerprint(rows),
        code_version=code_of.imports(),
        columns=("symbol", "calendar", "quote", "can_short", "borrow_bps", "lot", "tick", "min_notional"),
        table=rows[:50],
    )


def list_gaps(study: Study) -> StepReport[GapFacts]:
    """Bars that should exist by the calendar of their symbol and do not."""
    gaps = study.workspace.call(study.workspace.store.read_gaps, study.dataset.venue, study.dataset.interval)
    worst = gaps.sort("missing", "symbol", descending=[True, False]).head(20)
    return StepReport(
        worked=False,
        rows=gaps.height,
        symbols=gaps["symbol"].n_unique(),
        data_version=fingerprint(gaps.select("symbol", "start", "end").rows()),
        code_version=code_of.imports(),
        facts=GapFacts(missing_bars=int(gaps["missing"].sum() or 0)),
        columns=("symbol", "since", "until", "missing_bars"),
        table=tuple((row["symbol"], str(row["start"]), str(row["end"]), row["missing"]) for row in worst.to_dicts()),
    )


def month_range(experiment: Experiment, settings: Settings) -> tuple[str, str]:
    """First and last month that a run of this experiment touches: what its source spans, within the dates asked for.

    Only the newest month when the source holds what it held at the last import and every month has its features.
    """
    spec = experiment.dataset
    start, end = moment(spec.start, "dataset.start"), moment(spec.end, "dataset.end")
    source = bar_source(spec, settings)
    newest = _newest_if_unchanged(experiment, venue_of(spec, settings), settings)
    if newest is not None:
        return newest, newest
    found = source.span(Interval.parse(spec.interval)) if isinstance(source, SpannedSource) else None
    now = datetime.now(UTC)
    first, last = found or (start or now, now)
    if start is not None:
        first = max(first, start)
    if end is not None:
        last = min(last, end)
    return f"{first:%Y-%m}", f"{max(first, last):%Y-%m}"
