"""Homes and databases for trials: kept as they were before each step, put back before each trial."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import psycopg2

from tests.faults import running
from tests.faults.forked import PROJECT, Answer, Forked, Task
from tests.faults.killing import Kill, When, Write
from tidemill.embedded import Servers


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A home as a run left it, with the name of its database, and every figure in it."""

    home: Path
    database: str
    figures: dict[str, str]


class Trials:
    """One home and one database in which every trial takes place, since paths are part of what is stored."""

    def __init__(self, folder: Path, servers: Servers, *, context: bool = False) -> None:
        self._folder, self._dsn = folder, servers.postgres_dsn
        self._databases: list[str] = []
        self._clean = ""
        self.place = running.Place(
            home=str(folder / "home"),
            postgres=f"{self._dsn.reveal().rpartition('/')[0]}/{self._name('trial')}",
            redis=servers.redis_url.reveal(),
            panel=str(folder / "tiny"),
            context=context,
        )
        self.forked = Forked()

    def _name(self, suffix: str) -> str:
        return f"{self._folder.name}_{suffix}".replace("-", "_").lower()

    def administer(self, *statements: str) -> None:
        connection = psycopg2.connect(self._dsn.reveal())
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        connection.close()

    def _copy_database(self, name: str, template: str) -> None:
        copy = f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY"  # less than the other, as in tests/databases.py
        self.administer(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", copy)
        if name not in self._databases:
            self._databases.append(name)

    def begin(self) -> None:
        """A panel, an empty home and a database with the tables of the schema."""
        running.write_panel(Path(self.place.panel))
        Path(self.place.home).mkdir()
        self._copy_database(self._name("trial"), "template0")
        self.well(repair=True)  # opening a workspace makes the tables

    def do(self, **task: object) -> Answer:
        answer = self.forked.do(Task(place=self.place, **task))  # type: ignore[arg-type]  # fields of Task
        if answer.signal or any(write.table.startswith("postgres/") for write in answer.writes):
            self._clean = ""
        self.forked.warm(answer.loaded)
        return answer

    def well(self, **task: object) -> Answer:
        """`do` of what nothing disturbs."""
        answer = self.do(**task)
        assert (answer.signal, answer.error, answer.defect) == (0, "", ""), answer
        return answer

    def command(self, kill: Kill | None = None) -> subprocess.CompletedProcess[str]:
        """`tidemill run` of the experiment, killed at a write if one is named."""
        self._clean, file = "", self._folder / "tiny.yaml"
        file.write_bytes(msgspec.json.encode(self.place.experiment))  # JSON is YAML as well
        module = ["tidemill.cli.main"] if kill is None else ["tests.faults.killed_command", msgspec.json.encode(kill).decode()]
        return subprocess.run(
            [sys.executable, "-m", *module, "run", "--experiment", str(file)],
            env=os.environ | self.place.environment, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    def keep(self, name: str, figures: dict[str, str], *, database: str = "") -> Prepared:
        """The home and its database as they are now. database: an equal one that was kept before."""
        home = self._folder / "prepared" / name
        running.copy_home(Path(self.place.home), home)
        if not database:
            database = self._name(name.replace(" ", "_"))
            self._copy_database(database, self._name("trial"))
        self._clean = database
        return Prepared(home=home, database=database, figures=figures)

    def restore(self, prepared: Prepared) -> None:
        """Home and database as they were; a database that nothing was committed to since is left as it is."""
        running.copy_home(prepared.home, Path(self.place.home))
        if self._clean != prepared.database:
            self._copy_database(self._name("trial"), prepared.database)
        self._clean = prepared.database

    def still_clean(self, prepared: Prepared) -> None:
        """What was killed commits nothing."""
        self._clean = prepared.database

    def new_day(self, *, come: bool) -> None:
        """Move the next day's bars into the panel, or away again."""
        panel = Path(self.place.panel)
        outside, inside = running.next_day_file(panel), panel / "next_day.parquet"
        if come and outside.exists():
            outside.rename(inside)
        if not come and inside.exists():
            inside.rename(outside)

    def end(self) -> None:
        self.forked.close()
        self.administer(*(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)" for name in self._databases))
        shutil.rmtree(self._folder, ignore_errors=True)


class Point(msgspec.Struct, frozen=True):
    """A write of the undisturbed run: in which step."""

    step: str
    write: Write


class Staged(msgspec.Struct, frozen=True):
    """The undisturbed run, kept before each of its steps and at its end, with all its writes in order."""

    before: dict[str, Prepared]
    after: dict[str, Prepared]
    points: tuple[Point, ...]

    @property
    def end(self) -> Prepared:
        return self.after[running.ORDER[-1]]

    @property
    def in_place(self) -> list[Point]:
        """Files that were opened to be written where they stay."""
        return [point for point in self.points if point.write.table.endswith(" in place")]

    @property
    def committing(self) -> set[str]:
        """Steps that commit something."""
        return {point.step for point in self.points if point.write.table.startswith("postgres/")}

    def of(self, table: str) -> list[Point]:
        return [point for point in self.points if point.write.table == table]


def run_in_steps(trials: Trials, steps: Sequence[str] = running.ORDER) -> Staged:
    """Step by step, each in a process of its own. steps: the first ones of the graph."""
    before: dict[str, Prepared] = {}
    points: list[Point] = []
    held, database = trials.keep("start", {}), ""
    after: dict[str, Prepared] = {}
    for step in steps:
        before[step] = held
        answer = trials.well(steps=(step,), figures=True)
        points += [Point(step, write) for write in answer.writes]
        touched = any(write.table.startswith("postgres/") for write in answer.writes)
        if answer.writes:
            database = "" if touched else held.database
            held = trials.keep(f"after {step}", answer.figures, database=database)
        after[step] = held
    return Staged(before, after, tuple(points))


def killed(trials: Trials, staged: Staged, point: Point, when: When, *, whole: bool) -> list[str]:
    """What is wrong after a kill at a write and an undisturbed run; nothing where all is as it should be.

    whole: run to the end of the graph and compare there; otherwise to the end of the step that was killed.
    """
    trials.restore(staged.before[point.step])
    answer = trials.do(steps=(point.step,), kill=Kill(point.write, when))
    if answer.signal != signal.SIGKILL:
        return [f"was not killed: {answer}"]
    if point.step not in staged.committing:
        trials.still_clean(staged.before[point.step])
    steps = running.ORDER if whole else running.ORDER[: running.ORDER.index(point.step) + 1]
    expected = staged.end if whole else staged.after[point.step]
    return wrong(trials.do(steps=steps, figures=True, again=True), expected.figures)


def killed_next_day(trials: Trials, staged: Staged, kill: Kill, expected: dict[str, str]) -> list[str]:
    """The same for a run that adds a day to a finished home; the day's bars have come already."""
    trials.restore(staged.end)
    answer = trials.do(steps=running.ORDER, kill=kill)
    if answer.signal != signal.SIGKILL:
        return [f"was not killed: {answer}"]
    return wrong(trials.do(steps=running.ORDER, figures=True, again=True), expected)


def wrong(answer: Answer, expected: dict[str, str]) -> list[str]:
    """What a run that should have mended everything did not."""
    if answer.signal or answer.error or answer.defect:
        return [answer.error or trouble(answer)]
    found = running.differences(answer.figures, expected)
    return found + ([f"the run after it had work to do: {', '.join(answer.again)}"] if answer.again else [])


def trouble(answer: Answer) -> str:
    """How a child failed that said no sentence: its signal, or where and with what its traceback ends."""
    lines = [line.strip() for line in answer.defect.strip().splitlines()]
    where = next((line for line in reversed(lines) if line.startswith("File ")), "")
    return f"traceback: {lines[-1]} ({where})" if lines else f"signal {answer.signal}" if answer.signal else ""


def told(name: str, problems: Sequence[str], most: int = 4) -> str:
    more = len(problems) - most
    return f"{name}: " + "; ".join(problems[:most]) + (f"; and {more} more" if more > 0 else "")
