"""`new_data`: a changed import folder, or a newly closed bar of a venue, leads to a run of what is stale.

In the import folder a file is a data set of its own, and so is a folder with all files in it. Its bars are daily unless the
name ends in an interval: `prices.csv` is daily, `binance_1h` hourly.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path

import dagster as dg
import msgspec
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from orchestration.run_request import experiment_config, run_tags
from sensors.experiments import experiments_in
from tidemill.config import Settings, load_settings
from tidemill.domain.errors import InputError, TidemillError
from tidemill.domain.experiment import DatasetSpec, Experiment
from tidemill.domain.intervals import Interval
from tidemill.experiments.files import experiment_for
from tidemill.experiments.tracked import fitting
from tidemill.storage.experiments import StoredExperiment
from tidemill.study.registry import Registry

SUFFIXES = (".csv", ".parquet")
# A file that was written to within this time may still be growing.
SETTLED = timedelta(seconds=5)
_WHOLE_BYTES = 64_000_000
_PIECE_BYTES = 1_000_000

AssetSelection = Callable[[Experiment], Sequence[dg.AssetKey]]
PartitionRange = Callable[[Experiment, Settings], tuple[str, str] | None]


class InboxFile(msgspec.Struct, frozen=True):
    """A file as the folder lists it. `modified` in nanoseconds since the epoch."""

    name: str
    size: int
    modified: int


class FileVersion(msgspec.Struct, frozen=True):
    """What was known of a file when it last led to a run, or was found to be unchanged."""

    size: int
    modified: int
    digest: str


class Tracked(msgspec.Struct, frozen=True):
    """An experiment on a venue's data that goes on: `since` is when it was last run."""

    experiment: Experiment
    since: datetime


class Request(msgspec.Struct, frozen=True):
    """A run to ask for. The same change always has the same `run_key`, so that Dagster runs it once."""

    run_key: str
    dataset: DatasetSpec
    experiment: Experiment | None = None


class Folder(msgspec.Struct, frozen=True):
    """The import folder as it is now; `digest` reads one of its files."""

    path: Path
    files: Sequence[InboxFile]
    digest: Callable[[InboxFile], str]


class Cursor(msgspec.Struct, frozen=True):
    """What the sensor remembers: files by name, and the last closed bar of each tracked experiment."""

    files: Mapping[str, FileVersion] = {}
    bars: Mapping[str, datetime] = {}


def decide(cursor: str | None, folder: Folder, tracked: Sequence[Tracked], now: datetime) -> tuple[list[Request], str]:
    """Which runs the changes since `cursor` ask for, and the cursor that remembers them.

    A file that vanished asks for nothing: its bars were imported.
    """
    before = msgspec.json.decode(cursor, type=Cursor) if cursor else Cursor()
    requests, seen = _changed_files(before.files, folder, now)
    closed_requests, bars = _closed_bars(before.bars, tracked, now)
    return [*requests, *closed_requests], msgspec.json.encode(Cursor(seen, bars)).decode()


def _changed_files(
    before: Mapping[str, FileVersion], folder: Folder, now: datetime
) -> tuple[list[Request], dict[str, FileVersion]]:
    seen = {file.name: now_seen for file in folder.files if (now_seen := _look(before.get(file.name), file, folder, now))}
    changed = sorted(name for name, state in seen.items() if name not in before or before[name].digest != state.digest)
    requests = []
    for dataset, names in groupby(changed, key=lambda name: name.partition("/")[0]):
        key = hashlib.sha256("\n".join(f"{name}={seen[name].digest}" for name in names).encode()).hexdigest()[:16]
        source = DatasetSpec(source=f"file:{folder.path / dataset}", interval=interval_of(dataset))
        requests.append(Request(f"file:{dataset}:{key}", source))
    return requests, seen


def _look(known: FileVersion | None, file: InboxFile, folder: Folder, now: datetime) -> FileVersion | None:
    """What is now known of `file`: read again only when its size or time changed, and only when it has settled."""
    if known is not None and (known.size, known.modified) == (file.size, file.modified):
        return known
    if now - datetime.fromtimestamp(file.modified / 1e9, UTC) < SETTLED:
        return known
    return FileVersion(file.size, file.modified, folder.digest(file))


def _closed_bars(
    before: Mapping[str, datetime], tracked: Sequence[Tracked], now: datetime
) -> tuple[list[Request], dict[str, datetime]]:
    """A bar has closed when the grid moved on since the experiment's last run or the last request, whichever is later."""
    requests, bars = [], {}
    for item in tracked:
        interval = Interval.parse(item.experiment.dataset.interval)
        closed = interval.floor(now)
        key = hashlib.sha256(msgspec.json.encode(item.experiment)).hexdigest()[:16]
        bars[key] = max(before.get(key, closed), interval.floor(item.since))
        if closed > bars[key]:
            bars[key] = closed
            requests.append(Request(f"bar:{key}:{closed:%Y-%m-%dT%H:%M}", item.experiment.dataset, item.experiment))
    return requests, bars


def interval_of(name: str) -> str:
    """The interval in which `name` ends (`binance_1h`, `eurusd.15m.csv`), else `1d`."""
    stem = name.removesuffix(".csv").removesuffix(".parquet")
    ending = stem.replace(".", "_").rpartition("_")[2]
    try:
        return str(Interval.parse(ending))
    except InputError:
        return "1d"


def open_folder(inbox: Path) -> Folder:
    """The data files of the import folder and of its folders, by name. Hidden ones and links are left out."""
    files = sorted(_walk(inbox), key=lambda file: file.name) if inbox.is_dir() else []
    return Folder(inbox, files, lambda file: digest_of(inbox, file))


def _walk(inbox: Path) -> Iterator[InboxFile]:
    for folder, folders, names in os.walk(inbox):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(folder, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith(".") and not path.is_symlink():
                status = path.stat()
                yield InboxFile(path.relative_to(inbox).as_posix(), status.st_size, status.st_mtime_ns)


def digest_of(inbox: Path, file: InboxFile) -> str:
    """SHA-256 of the content; of a file over 64 MB, of its size, first and last megabyte, since a tick must be short."""
    path = inbox / file.name
    with path.open("rb") as opened:
        if file.size <= _WHOLE_BYTES:
            return hashlib.file_digest(opened, "sha256").hexdigest()
        head = opened.read(_PIECE_BYTES)
        opened.seek(-_PIECE_BYTES, os.SEEK_END)
        return hashlib.sha256(f"{file.size}".encode() + head + opened.read()).hexdigest()


def tracked_experiments(rows: Sequence[StoredExperiment]) -> list[Tracked]:
    """Those that go on, each with its last run."""
    going = [row for row in rows if row.tracked_since is not None]
    return [Tracked(experiment, row.last_run_at) for row, experiment in fitting(going)]


class Scope(msgspec.Struct, frozen=True):
    """How definitions.py bounds a run of an experiment: its first and last month, and the assets that it makes."""

    partition_range: PartitionRange
    asset_selection: AssetSelection | None


def new_data_sensor(
    job: dg.JobDefinition | UnresolvedAssetJobDefinition,
    partition_range: PartitionRange,
    asset_selection: AssetSelection | None = None,
) -> dg.SensorDefinition:
    """The sensor for `job`. The two functions are those of definitions.py; without the second a run makes every asset."""
    scope = Scope(partition_range, asset_selection)

    @dg.sensor(
        name="new_data",
        job=job,
        minimum_interval_seconds=10,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Runs what is stale when a file in the import folder changed or a venue's bar closed.",
    )
    def new_data(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        settings = load_settings()
        tracked = tracked_experiments(experiments_in(settings))
        requests, cursor = decide(context.cursor, open_folder(settings.inbox), tracked, datetime.now(UTC))
        made = [run for request in requests if (run := _run_request(request, scope, settings, context))]
        return dg.SensorResult(run_requests=made, cursor=cursor, skip_reason=None if made else dg.SkipReason("No new data."))

    return new_data


def _run_request(
    request: Request, scope: Scope, settings: Settings, context: dg.SensorEvaluationContext
) -> dg.RunRequest | None:
    """The run; None, with a line in the tick's log, for data that cannot be run: one bad file must not stop the others."""
    try:
        experiment = request.experiment or experiment_for(request.dataset, registry=Registry.of(settings))
        months = scope.partition_range(experiment, settings)
        selected = scope.asset_selection(experiment) if scope.asset_selection else None
    except TidemillError as exc:
        context.log.warning(f"{request.run_key}: {exc}")
        return None
    return dg.RunRequest(
        run_key=request.run_key,
        run_config=experiment_config(experiment),
        tags=run_tags(experiment, months),
        asset_selection=selected,
    )
