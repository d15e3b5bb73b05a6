"""Where a dataset comes from: its source, its venue, what its instruments may do and what is flagged in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl

from tidemill.config import Settings
from tidemill.domain.errors import InputError
from tidemill.domain.experiment import DatasetSpec, Experiment
from tidemill.domain.intervals import Interval
from tidemill.domain.market import Instrument
from tidemill.domain.ports import BarSource
from tidemill.market.files import FileSource
from tidemill.market.news_files import NewsFile
from tidemill.market.sources import SAMPLE, SOURCES, open_source
from tidemill.provenance import fingerprint
from tidemill.quality.flags import Flag
from tidemill.storage.lake import Lake
from tidemill.storage.sources import claim, owner
from tidemill.study.study import Study
from tidemill.study.tables import BARS, FLAGS, IMPORTS
from tidemill.study.workspace import Workspace


def bar_source(spec: DatasetSpec, settings: Settings, venue: str | None = None) -> BarSource:
    """The source of a data set. venue: the name under which this home keeps the bars of a file."""
    source = open_source(spec.source, settings)
    return source.kept_under(venue) if venue is not None and isinstance(source, FileSource) else source


def claimed_venue(workspace: Workspace, source: BarSource) -> str:
    """Under which name the bars of a source are kept in this home.

    A file or folder has the name that it has on disk while no other file owns that, in which case a short hash of its path is
    added. The first to come owns a name; where a home holds bars under it already, one of the files that they came from.
    """
    if not isinstance(source, FileSource) or not source.mirrors:
        return source.venue
    path, free = source.path, lambda: _may_own(workspace.lake, source)
    return source.venue if _owns(workspace, source.venue, path, free) else _other_name(source)


def claimed_news(workspace: Workspace, source: NewsFile) -> str:
    """Under which name the items of a news file are kept in this home: as of bars, the first of two of one name owns it."""
    path = source.path.resolve()
    return source.name if _owns(workspace, f"news/{source.name}", path) else f"{source.name}-{_short(path)}"


def _owns(workspace: Workspace, name: str, path: Path, free: Callable[[], bool] = lambda: True) -> bool:
    """Whether a name is this path's: it claims one that nobody has, where it is `free`."""
    held = workspace.call(owner, workspace.database, name)
    if held is None and free():
        held = workspace.call(claim, workspace.database, name, str(path))
    return held == str(path)


def _short(path: Path) -> str:
    return fingerprint(str(path))[:6]


def claimed(workspace: Workspace, spec: DatasetSpec) -> str:
    """Under which name the bars of a data set are kept in this home."""
    source = bar_source(spec, workspace.settings)
    workspace.call(source.close)
    return claimed_venue(workspace, source)


def study_of(workspace: Workspace, experiment: Experiment) -> Study:
    """The study of an experiment, under the name that its data is kept by here."""
    return Study(workspace, experiment, claimed(workspace, experiment.dataset))


def name_import(workspace: Workspace, venue: str) -> None:
    """A name that was given to an import is no file's own: one that is called so gets another, and the two do not mix.

    InputError for a name that a file owns already, since what a mirrored file does not have would end at its next run, and for
    the sample, which is the same everywhere.
    """
    if venue == SAMPLE:
        raise InputError(f"{venue} is the name of the built-in bars, to which no others can be added. Choose another --venue.")
    held = workspace.call(claim, workspace.database, venue, "")
    if held:
        raise InputError(f"The name {venue} belongs to the source file:{held}. Choose another --venue.")


def venue_of(spec: DatasetSpec, settings: Settings) -> str:
    """The name under which the last import of a data set kept its bars, from the lake alone: no server is asked."""
    source = bar_source(spec, settings)
    if not isinstance(source, FileSource):
        return source.venue
    other = _other_name(source)
    return other if Lake(settings.lake).manifests(BARS, f"{other}.{Interval.parse(spec.interval)}") else source.venue


def _other_name(source: FileSource) -> str:
    return f"{source.venue}-{_short(source.path)}"


def _may_own(lake: Lake, source: FileSource) -> bool:
    """Whether a name that nobody claimed may be this file's: not where a home of before has it from other files, or a venue."""
    known = _known_files(lake, source.venue)
    if not known:
        return source.venue not in SOURCES
    own = {str(file) for file in source.all_files}
    return any(file in own or (not file.startswith("/") and any(one.endswith(f"/{file}") for one in own)) for file in known)


def _known_files(lake: Lake, venue: str) -> set[str]:
    """Files from which bars were imported under a name, as they were written then: relative ones too."""
    found = [name for name in lake.datasets(IMPORTS) if name.rpartition(".")[0] == venue]
    manifests = [manifest for name in found for manifest in lake.manifests(IMPORTS, name).values()]
    return {file for manifest in manifests for file in manifest.metadata.get("files", {})}


def instruments_of(workspace: Workspace, venue: str) -> dict[str, Instrument]:
    found = workspace.call(workspace.store.read_instruments, venue)
    return {instrument.symbol: instrument for instrument in found}


def flags_of(study: Study) -> pl.DataFrame:
    """Quality flags of the dataset: symbol, open_time, flag, flagged_at, detail; empty where there are none."""
    if "all" not in study.lake.manifests(FLAGS, study.dataset.bars_key):
        return pl.DataFrame(schema={"symbol": pl.String, "open_time": pl.Datetime("us", "UTC"), "flag": pl.String})
    return study.lake.scan(FLAGS, study.dataset.bars_key).collect()


def suspected_actions(study: Study) -> pl.DataFrame:
    """symbol, open_time of the first bar after each move that may be an unrecorded action (NUMBERS, Fills and accounts)."""
    return study.once("suspected", lambda: _suspected(study))  # every refit of a proof asks


def _suspected(study: Study) -> pl.DataFrame:
    found = flags_of(study).filter(pl.col("flag") == Flag.SUSPECTED_ACTION)
    return found.select("symbol", "open_time").unique().sort("symbol", "open_time")
