"""Whatever is damaged of what a run has stored is named with its command or made again; it never gives other numbers."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import msgspec
import polars as pl
import pytest

from tests.databases import new_database
from tests.study.panels import START, before_day, small_experiment
from tests.study.running import STEPS
from tidemill.config import Settings
from tidemill.domain.errors import IntegrityError
from tidemill.domain.experiment import Experiment, RiskSpec
from tidemill.embedded import Servers
from tidemill.maintenance.repair import damage_at_a_glance, repair
from tidemill.models.artifact import load, read_manifest
from tidemill.quality.suites import SuiteName
from tidemill.queries.results import result_of
from tidemill.steps.checks.suites import judge_suite
from tidemill.steps.models.risk import forecast_risk, train_risk
from tidemill.storage.champions import Nominee, promote
from tidemill.storage.content import content_version
from tidemill.storage.made_from import harmed
from tidemill.study.checkpoints import resume
from tidemill.study.model_index import index_in
from tidemill.study.places import stored_experiment
from tidemill.study.sources import study_of
from tidemill.study.workspace import Workspace, open_workspace


class Home(NamedTuple):
    """A finished run: where it lies, and every number that it led to."""

    workspace: Workspace
    experiment: Experiment
    path: Path
    right: dict[str, Any]


@pytest.fixture(scope="module")
def made(
    servers: Servers, migrated: str, panel: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Home, Path]]:
    """A finished home, and a copy of all of it but the database."""
    place = tmp_path_factory.mktemp("damaged")
    (place / "panel").mkdir()
    before_day(panel, 328).write_parquet(place / "panel" / "base.parquet")
    settings = Settings(home=place / "home", redis_url=servers.redis_url, connections=4)
    with (
        new_database(servers.postgres_dsn, migrated) as dsn,
        open_workspace(msgspec.structs.replace(settings, postgres_dsn=dsn)) as workspace,
    ):
        experiment = small_experiment(place / "panel", risk=RiskSpec())
        right = run(workspace, experiment)
        shutil.copytree(settings.home, place / "copy", ignore=shutil.ignore_patterns("cache.stamps"))
        yield Home(workspace, experiment, settings.home, right), place / "copy"


@pytest.fixture
def home(made: tuple[Home, Path]) -> Home:
    """The finished home as it was."""
    found, copy = made
    for folder in copy.iterdir():
        if folder.is_dir():
            shutil.rmtree(found.path / folder.name, ignore_errors=True)
            shutil.copytree(folder, found.path / folder.name)
    return found


def again(home: Home) -> dict[str, Any]:
    return run(home.workspace, home.experiment)


def run(workspace: Workspace, experiment: Experiment) -> dict[str, Any]:
    """All steps, and every number that they lead to."""
    study = study_of(workspace, experiment)
    for step in (*list(STEPS.values())[:5], train_risk, forecast_risk, *list(STEPS.values())[5:]):
        step(study)
    judged = {}
    for suite in get_args(SuiteName):
        found = judge_suite(study, suite, f"a/{suite}").results
        judged[suite] = sorted(found, key=lambda one: one.id)  # those from Postgres come by name
    result = workspace.call(result_of, workspace.settings, experiment)
    tables = {
        f"{table} {dataset} {name}": content_version(workspace.lake.scan_partition(manifest).collect())
        for table in workspace.lake.tables()
        for dataset in workspace.lake.datasets(table)
        for name, manifest in workspace.lake.manifests(table, dataset).items()
    }
    return {"judged": judged, "result": result, **tables}


def stored(home: Path) -> dict[str, list[Path]]:
    """Every stored file, by its kind."""
    patterns = {
        "rows": "lake/*/*/*/*.parquet",
        "manifests": "lake/*/*/*/manifest.json",
        "indexes": "models/index/*.json",
        "weights": "models/artifacts/*/w*",
        "model manifests": "models/artifacts/*/manifest.json",
        "states": "state/*/*.state",
        "judged": "judged/*.json",
        "report": "reports/*/*",
    }
    return {kind: sorted(home.glob(pattern)) for kind, pattern in patterns.items()}


def read(workspace: Workspace, path: Path) -> Any:
    """What a reader gets from a stored file."""
    lake, parts = workspace.lake, path.parts
    if "lake" in parts:
        table, dataset, partition = parts[-4], parts[-3].partition("=")[2], parts[-2].partition("=")[2]
        manifest = lake.manifest(table, dataset, partition)
        if path.suffix == ".json" or manifest is None:
            return manifest
        return content_version(lake.scan_partition(manifest).collect())
    if path.suffix == ".state":
        month, print_ = path.name[:7], path.stem[8:]
        state = resume(path.parent, [month, "next"], 1, {month: print_})[1]
        return state.to_bytes() if state is not None else None
    readers = {"index": index_in, "reports": stored_experiment}
    if path.parent.name in readers:
        return readers[path.parent.name](path)
    artifact = load(path.parent)
    return artifact.hash, artifact.manifest, read_manifest(path.parent)


def damages(whole: bytes, seed: int, flips: int) -> Iterator[bytes | None]:
    chance = random.Random(seed)
    yield from (None, b"", whole[: chance.randrange(len(whole))])
    for _ in range(flips):
        yield flipped(whole, chance.randrange(8 * len(whole)))


def flipped(whole: bytes, bit: int) -> bytes:
    changed = bytearray(whole)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def spoil(path: Path, content: bytes | None) -> None:
    """Other content, at a time that no file system can take for the time before."""
    if content is None:
        path.unlink()
        return
    at = path.stat().st_mtime_ns if path.exists() else 0
    path.write_bytes(content)
    os.utime(path, ns=(at + 1, at + 1))


def test_no_reader_gets_anything_else_from_a_damaged_file(home: Home) -> None:
    tried = 0
    for kind in ("rows", "manifests", "indexes", "weights", "model manifests", "states"):
        files = stored(home.path)[kind]
        assert files, kind
        for number, path in enumerate(files):
            whole, right = path.read_bytes(), read(home.workspace, path)
            assert right is not None
            for content in damages(whole, number, flips=4):
                spoil(path, content)
                try:
                    found = read(home.workspace, path)
                except (IntegrityError, FileNotFoundError):
                    found = None
                assert found is None, f"{path}: {found} was read"
                spoil(path, whole)
                tried += 1
            assert read(home.workspace, path) == right
    assert tried > 500


@pytest.mark.parametrize("way", ["gone", "empty", "cut off", "flipped"])
def test_notes_of_what_was_done_cost_time_and_nothing_else(home: Home, way: str) -> None:
    files = [path for kind in ("judged", "states", "report") for path in stored(home.path)[kind]]
    for number, path in enumerate(files):
        made = dict(zip(("gone", "empty", "cut off", "flipped"), damages(path.read_bytes(), number, flips=1), strict=True))
        spoil(path, made[way])
    assert again(home) == home.right
    assert [harmed(note) for note in home.path.glob("reports/*/made-from.txt")] == [[]]


def outcome(home: Home) -> str | None:
    """What a run says that stops; None when it comes to the same numbers."""
    try:
        found = again(home)
    except IntegrityError as exc:
        return str(exc)
    assert found == home.right
    return None


@pytest.mark.parametrize("kind", ["rows", "manifests", "indexes", "weights", "model manifests"])
def test_a_run_on_a_damaged_home_stops_with_the_command_or_gives_the_same(home: Home, kind: str) -> None:
    for number, path in enumerate(random.Random(1).sample(stored(home.path)[kind], 4)):
        whole = path.read_bytes()
        spoil(path, flipped(whole, random.Random(number).randrange(8 * len(whole))))
        said = outcome(home)
        assert said is None or "`tidemill data repair`" in said
        spoil(path, whole)


@pytest.mark.parametrize("way", ["empty", "cut off", "flipped"])
def test_repair_finds_every_damage_of_models_and_the_next_run_gives_the_same(home: Home, way: str) -> None:
    spoiled = set()
    for kind in ("indexes", "weights", "model manifests"):
        for number, path in enumerate(stored(home.path)[kind][::2]):
            made = dict(zip(("gone", "empty", "cut off", "flipped"), damages(path.read_bytes(), number, flips=1), strict=True))
            spoil(path, made[way])
            spoiled.add(str((path if kind == "indexes" else path.parent).relative_to(home.path)))
    done = repair(home.workspace)
    assert spoiled <= {one.path for one in done.files}
    assert {one.outcome for one in done.files} <= {"restored", "removed"}
    assert repair(home.workspace).files == ()
    assert damage_at_a_glance(home.workspace.settings) == []
    assert again(home) == home.right


def test_a_model_whose_folder_is_gone_comes_back_with_the_weights_that_it_had(home: Home) -> None:
    folder = next(path for path in sorted((home.path / "models" / "artifacts").glob("ridge-*")))
    right = load(folder)
    shutil.rmtree(folder)
    done = repair(home.workspace)
    assert [(Path(one.path).name, one.outcome) for one in done.files] == [(folder.name, "restored")]
    assert (load(folder).hash, load(folder).inputs) == (right.hash, right.inputs)


def test_a_damaged_model_that_only_a_champion_names_is_lost_and_left(home: Home) -> None:
    folder = home.path / "models" / "artifacts" / "ridge-000000000000"
    folder.mkdir()
    (folder / "manifest.json").write_text("{")
    name(home, folder.name)
    assert [(Path(one.path).name, one.outcome) for one in repair(home.workspace).files] == [(folder.name, "lost")]
    assert folder.is_dir()
    home.workspace.call(home.workspace.database.execute, "DELETE FROM champions")
    assert [(Path(one.path).name, one.outcome) for one in repair(home.workspace).files] == [(folder.name, "removed")]
    assert not folder.exists()


def name(home: Home, model: str) -> None:
    """A champion is of this model."""
    nominee = Nominee(
        dataset="d", book="b", models={"ridge": model}, experiment=home.experiment, trained_until=START, reason="r", evidence={}
    )
    home.workspace.call(lambda: promote(home.workspace.database, nominee, instead_of=None))


def test_a_home_of_before_checksums_is_read_without_work_and_gets_them_from_repair(home: Home) -> None:
    for path in (*stored(home.path)["manifests"], *stored(home.path)["indexes"], *stored(home.path)["model manifests"]):
        first, _, content = path.read_bytes().partition(b"\n")
        assert first.startswith(b'{"sha256"')
        old = msgspec.json.decode(content)
        old.pop("checksums", None)
        path.write_bytes(msgspec.json.encode(old))
    assert again(home) == home.right
    assert damage_at_a_glance(home.workspace.settings) == []
    assert repair(home.workspace).files == ()
    for path in (*stored(home.path)["manifests"], *stored(home.path)["indexes"], *stored(home.path)["model manifests"]):
        assert path.read_bytes().startswith(b'{"sha256"'), path
    assert again(home) == home.right


def test_the_damage_is_told_before_anything_reads_it(home: Home) -> None:
    assert damage_at_a_glance(home.workspace.settings) == []
    for kind in ("rows", "manifests", "indexes", "weights", "model manifests", "states", "judged", "report"):
        path = stored(home.path)[kind][0]
        whole = path.read_bytes()
        spoil(path, whole[:-1])
        assert len(damage_at_a_glance(home.workspace.settings)) == 1, kind
        spoil(path, whole)
    assert damage_at_a_glance(home.workspace.settings) == []


def test_what_an_earlier_version_was_writing_when_it_died_goes(home: Home) -> None:
    models = home.path / "models" / "artifacts"
    model = next(models.glob("ridge-*"))
    aside = models / f".{model.name}.old.x1"
    aside.mkdir()
    model.rename(aside / "old")
    (models / ".ridge-1.x2").mkdir()
    (home.path / "models" / "index" / "a.partial").write_text("{")
    assert repair(home.workspace).files == ()
    assert model.is_dir()
    assert not [path for path in home.path.rglob("*") if path.suffix == ".partial" or path.name.startswith((".ridge", ".tmp-"))]


def test_a_damaged_home_is_no_defect(home: Home) -> None:
    """The error that a person sees is ours, whatever was cut off."""
    for kind, files in stored(home.path).items():
        path = files[0]
        whole = path.read_bytes()
        spoil(path, whole[: len(whole) // 2])
        assert outcome(home) is None or kind in ("rows", "manifests", "indexes", "weights", "model manifests")
        spoil(path, whole)
