"""Stored files that are gone, cut off, empty or of which one bit flipped: the figures of an undisturbed home or a sentence that
names the damage and the command, never other numbers.
"""

from __future__ import annotations

import os
import random
import zlib
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults import running
from tests.faults.forked import Answer
from tests.faults.trials import Prepared, Trials, told, trouble, wrong

# Of a home: the tables of the lake, and what lies beside it. A test below finds what is missing here.
TABLES = (
    "cache.stamps", "lake/attribution", "lake/bars", "lake/drift", "lake/engine_shares", "lake/equity", "lake/fear_greed",
    "lake/feature_bounds", "lake/features", "lake/flags", "lake/imports", "lake/labels", "lake/metrics", "lake/news",
    "lake/news_imports", "lake/news_scores", "lake/positions", "lake/predictions",
    "lake/refusals", "lake/regime", "lake/regime_fits", "lake/risk",
    "lake/risk_skill", "lake/sentiment", "lake/sentiment_inputs", "lake/signals", "lake/trades", "lake/trials",
    "models/artifacts", "models/index", "reports", "state",
)  # fmt: skip
# One of each way to be stored and read: months with and without a copy in Postgres, one part for all time, one for each book,
# the ledger, models and their index, notes of what was done. The others are long.
FEW_TABLES = (
    "cache.stamps", "lake/bars", "lake/features", "lake/imports", "lake/news", "lake/signals", "lake/trials",
    "models/artifacts", "models/index", "reports", "state",
)  # fmt: skip
KINDS = ("gone", "cut to half", "empty", "one bit flipped")
REPAIR = "`tidemill data repair`"


class Finished(NamedTuple):
    """The undisturbed home, and every figure of it after the next day's bars came."""

    today: Prepared
    tomorrow: dict[str, str]


@pytest.fixture(scope="module")
def trials(trials_in_context: Trials) -> Trials:
    return trials_in_context


@pytest.fixture(scope="module")
def finished(trials: Trials) -> Finished:
    today = trials.keep("end", trials.well(steps=running.ORDER, figures=True).figures)
    trials.new_day(come=True)
    tomorrow = trials.well(steps=running.ORDER, figures=True).figures
    trials.new_day(come=False)
    trials.restore(today)
    return Finished(today, tomorrow)


def files_of(finished: Finished, table: str) -> list[str]:
    """Stored files of a table, relative to the home, in order."""
    home = finished.today.home
    files = [path.relative_to(home).as_posix() for path in sorted(home.rglob("*")) if path.is_file() and path.suffix != ".lock"]
    return [file for file in files if table in ("", running.table_of(file)) and not file.endswith(".lock")]


def damage(path: Path, kind: str, seed: str) -> None:
    """Its time of change stays, as it does when a disk lies. seed: decides which bit flips."""
    state, content = path.stat(), bytearray(path.read_bytes())
    path.unlink()
    if kind == "gone":
        return
    if kind == "one bit flipped":
        position = random.Random(seed).randrange(len(content) * 8)
        content[position // 8] ^= 1 << position % 8
    else:
        del content[len(content) // 2 if kind == "cut to half" else 0 :]
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def own(file: str, figures: dict[str, str]) -> set[str]:
    """The figures that are the content of a stored file and nothing else."""
    parts = file.split("/")
    if parts[0] == "lake":
        name = "/".join((parts[0], parts[1], parts[2].partition("=")[2], parts[3].partition("=")[2]))
        return {figure for figure in figures if figure == name or figure.startswith(f"{name}: ")}
    if parts[:2] == ["models", "artifacts"]:
        return {f"{name}: {parts[3]}" for name, value in figures.items() if value == parts[2]}
    if parts[:2] == ["models", "index"]:
        return {figure for figure in figures if figure.startswith(f"models/{Path(file).stem}/")}
    return {f"reports/{parts[-1]}"}


def unread(trials: Trials, file: str, damaged: bytes | None, answer: Answer, expected: dict[str, str]) -> dict[str, str]:
    """The figures with what a file ought to hold, where the run had no reason to look at it and it lies as it was damaged."""
    path = Path(trials.place.home) / file
    if (path.read_bytes() if path.is_file() else None) != damaged:
        return answer.figures
    names = own(file, expected | answer.figures)
    kept = {name: value for name, value in answer.figures.items() if name not in names}
    return kept | {name: expected[name] for name in names & expected.keys()}


def sound_or_told(trials: Trials, file: str, damaged: bytes | None, answer: Answer, expected: dict[str, str]) -> list[str]:
    """What is wrong with a run on a damaged home that nobody repaired."""
    if answer.signal or answer.defect:
        return [trouble(answer)]
    if answer.error:
        return [] if REPAIR in answer.error else [f"the command that repairs is not named: {answer.error}"]
    return running.differences(unread(trials, file, damaged, answer, expected), expected)


def after_damage(trials: Trials, finished: Finished, file: str, kind: str, *, tomorrow: bool = False) -> list[str]:
    """Damage a file of the finished home, run, repair, run; what is wrong."""
    expected = finished.tomorrow if tomorrow else finished.today.figures
    trials.restore(finished.today)
    path = Path(trials.place.home) / file
    damage(path, kind, _without_keys(file))
    damaged = path.read_bytes() if path.is_file() else None
    trials.new_day(come=tomorrow)
    first = trials.do(steps=running.ORDER, figures=True)
    run = [f"without repair: {problem}" for problem in sound_or_told(trials, file, damaged, first, expected)]
    second = trials.do(repair=True, steps=running.ORDER, figures=True, again=True)
    trials.new_day(come=False)
    if tomorrow and running.table_of(file) == "lake/trials":
        expected = without_own(file, expected)
    return run + [f"after repair: {problem}" for problem in wrong(second, expected)]


def without_own(file: str, expected: dict[str, str]) -> dict[str, str]:
    """Returns of a trial on yesterday's data are lost, as repair says, being another on today's; no more than that."""
    lost = own(file, expected)
    assert lost
    return {name: value for name, value in expected.items() if name not in lost}


def _without_keys(file: str) -> str:
    """The path without what depends on where the panel lies, so that the same bits flip in every run of a test.

    A key in the name of a folder has points, and no other name has.
    """
    return (
        "/".join(part for part in file.split("/")[:-1] if not part.startswith("dataset=") and "." not in part)
        + Path(file).suffix
    )


def _expect_no_other_numbers(trials: Trials, finished: Finished, chosen: list[tuple[str, str]], *, tomorrow: bool) -> None:
    failures = []
    for file, kind in chosen:
        if problems := after_damage(trials, finished, file, kind, tomorrow=tomorrow):
            failures.append(told(f"{file} {kind}", problems))
    assert not failures, f"{len(failures)} of {len(chosen)} damages did harm:\n" + "\n".join(failures)


def kinds_of_files(files: list[str]) -> dict[str, list[str]]:
    """Files by what they are: manifests, rows, weights, indices, notes."""
    found: dict[str, list[str]] = {}
    for file in files:
        name, ending = Path(file).name, Path(file).suffix
        found.setdefault(name if name == "manifest.json" else ending, []).append(file)
    return found


def few(files: list[str]) -> list[tuple[str, str]]:
    """One file of each kind with one damage, another for another kind."""
    return [
        (found[0], KINDS[(zlib.crc32(found[0].partition("dataset=")[0].encode()) + at) % len(KINDS)])
        for at, found in enumerate(kinds_of_files(files).values())
    ]


def many(files: list[str]) -> list[tuple[str, str]]:
    """Every damage of the first file of each kind; each other file is lost or has one bit flipped, in turn."""
    first = {found[0] for found in kinds_of_files(files).values()}
    every = [(file, kind) for file in files if file in first for kind in KINDS]
    return every + [(file, KINDS[-(at % 2)]) for at, file in enumerate(files) if file not in first]


def read_again(files: list[str]) -> list[tuple[str, str]]:
    """The first file of each kind is lost, in the last one a bit flipped."""
    return [pair for found in kinds_of_files(files).values() for pair in ((found[0], KINDS[0]), (found[-1], KINDS[-1]))]


def test_every_stored_file_belongs_to_a_table_named_here(finished: Finished) -> None:
    assert {running.table_of(file) for file in files_of(finished, "")} == set(TABLES)


@pytest.mark.parametrize(
    "table", [table if table in FEW_TABLES else pytest.param(table, marks=pytest.mark.long) for table in TABLES]
)
def test_a_damaged_file_never_leads_to_other_numbers(trials: Trials, finished: Finished, table: str) -> None:
    _expect_no_other_numbers(trials, finished, few(files_of(finished, table)), tomorrow=False)


@pytest.mark.long
@pytest.mark.parametrize("table", TABLES)
def test_no_damage_of_any_file_leads_to_other_numbers(trials: Trials, finished: Finished, table: str) -> None:
    _expect_no_other_numbers(trials, finished, many(files_of(finished, table)), tomorrow=False)


@pytest.mark.long
@pytest.mark.parametrize("table", TABLES)
def test_a_damaged_file_that_the_next_day_reads_never_leads_to_other_numbers(
    trials: Trials, finished: Finished, table: str
) -> None:
    _expect_no_other_numbers(trials, finished, read_again(files_of(finished, table)), tomorrow=True)
