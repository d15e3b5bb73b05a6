"""A run that is killed at any of its writes: the next run ends where an undisturbed one does, to the digit."""

from __future__ import annotations

import signal
from collections.abc import Sequence

import pytest

from tests.faults import running
from tests.faults.killing import Kill, When, Write
from tests.faults.trials import Point, Staged, Trials, killed, killed_next_day, run_in_steps, told

# Everything that the run of the tiny experiment writes to; a test below finds what is missing here.
TABLES = (
    "cache.stamps", "lake/attribution", "lake/bars", "lake/drift", "lake/engine_shares", "lake/equity", "lake/feature_bounds",
    "lake/features",
    "lake/flags", "lake/imports", "lake/labels", "lake/metrics", "lake/positions", "lake/predictions", "lake/refusals",
    "lake/regime", "lake/regime_fits", "lake/risk",
    "lake/risk_skill", "lake/signals", "lake/trades", "lake/trials", "models/artifacts",
    "models/index", "postgres/bars", "postgres/deciders",
    "postgres/equity", "postgres/experiments", "postgres/gaps", "postgres/instruments",
    "postgres/models", "postgres/predictions", "postgres/quarantine", "postgres/signals",
    "postgres/sources", "postgres/trials",
    "reports", "state",
)  # fmt: skip
MOST_WRITES = 120
# The same of what is read beside bars, in the steps from the bars to the features of another experiment.
CONTEXT_TABLES = (
    "lake/fear_greed", "lake/features", "lake/news", "lake/news_imports", "lake/news_scores", "lake/sentiment",
    "lake/sentiment_inputs", "postgres/fear_greed", "postgres/news", "state",
)  # fmt: skip
# Kills of `tidemill run` itself, which costs too much to be killed everywhere.
COMMAND_KILLS: tuple[tuple[str, int, When], ...] = (
    ("lake/labels", 2, "after"),
    ("models/index", 2, "before"),
    ("lake/equity", 8, "before"),
)


@pytest.fixture(scope="module")
def staged(trials: Trials) -> Staged:
    return run_in_steps(trials)


@pytest.fixture(scope="module")
def staged_in_context(trials_in_context: Trials) -> Staged:
    return run_in_steps(trials_in_context, running.ORDER[: running.ORDER.index("features") + 1])


def writes_of(points: list[Point]) -> list[list[Point]]:
    """The writes of a table: of a part of the lake two renames are one, since its manifest alone makes the other count."""
    lake = points[0].write.table.startswith("lake/")
    return [points[at : at + 2] for at in range(0, len(points), 2)] if lake else [[point] for point in points]


def moments(points: list[Point]) -> list[tuple[Point, When]]:
    """Before the first rename or commit, in the middle of every write or before it, and after the last.

    What lies between the end of a write and the middle of the next changes nothing that a manifest names.
    """
    middles = [write[-1] for write in writes_of(points)]
    return [*((point, "before") for point in dict.fromkeys((points[0], *middles))), (points[-1], "after")]


def kills_of(writes: Sequence[Write]) -> list[Kill]:
    """Before each write, and in the middle of those that are made in place."""
    return [Kill(write, "torn" if write.table.endswith(" in place") else "before") for write in writes]


def few_moments(points: list[Point]) -> list[tuple[Point, When]]:
    """After the first and the second write, and in the middle of the last."""
    writes = writes_of(points)
    chosen: list[tuple[Point, When]] = [(write[-1], "after") for write in writes[:2]] + [(writes[-1][-1], "before")]
    return list(dict.fromkeys(chosen))


def test_the_experiment_writes_to_every_table_named_here_and_seldom_enough_to_kill_at_each(staged: Staged) -> None:
    assert {point.write.table for point in staged.points if point not in staged.in_place} == set(TABLES)
    assert sum(len(writes_of(staged.of(table))) for table in TABLES) <= MOST_WRITES


def test_every_month_table_has_several_parts_and_there_are_three_folds(staged: Staged) -> None:
    parts = {table: len(writes_of(staged.of(f"lake/{table}"))) for table in ("bars", "features", "labels", "regime", "risk")}
    assert parts == {"bars": 4, "features": 4, "labels": 4, "regime": 4, "risk": 3}


def test_an_undisturbed_run_in_one_process_equals_one_in_many(trials: Trials, staged: Staged) -> None:
    trials.restore(staged.before[running.ORDER[0]])
    answer = trials.well(steps=running.ORDER, figures=True, again=True)
    assert running.differences(answer.figures, staged.end.figures) == []
    assert answer.again == ()


def test_no_file_is_written_where_it_stays(staged: Staged) -> None:
    assert [point.write.path for point in staged.in_place] == []


def test_a_kill_that_leaves_an_empty_file_where_it_is_written_in_place_leaves_no_trace(trials: Trials, staged: Staged) -> None:
    _expect_healing(trials, staged, [(point, "torn") for point in staged.in_place], whole=False)


@pytest.mark.parametrize("table", TABLES)
def test_a_kill_at_the_first_second_or_last_write_of_a_table_leaves_no_trace(
    trials: Trials, staged: Staged, table: str
) -> None:
    _expect_healing(trials, staged, few_moments(staged.of(table)), whole=False)


@pytest.mark.parametrize("table", CONTEXT_TABLES)
def test_a_kill_while_what_is_read_beside_bars_is_stored_leaves_no_trace(
    trials_in_context: Trials, staged_in_context: Staged, table: str
) -> None:
    assert staged_in_context.of(table)
    _expect_healing(trials_in_context, staged_in_context, few_moments(staged_in_context.of(table)), whole=False)


@pytest.mark.long
@pytest.mark.parametrize("table", TABLES)
def test_a_kill_at_any_write_of_a_table_leaves_no_trace_in_anything(trials: Trials, staged: Staged, table: str) -> None:
    _expect_healing(trials, staged, moments(staged.of(table)), whole=True)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_kill_at_any_write_of_the_next_day_s_run_leaves_no_trace(trials: Trials, staged: Staged) -> None:
    trials.restore(staged.end)
    trials.new_day(come=True)
    try:
        undisturbed = trials.well(steps=running.ORDER, figures=True)
        assert trials.well(again=True).again == ()
        kills = kills_of(undisturbed.writes)
        wrongs = {kill: killed_next_day(trials, staged, kill, undisturbed.figures) for kill in kills}
    finally:
        trials.new_day(come=False)
    failures = [told(f"{kill.when} {kill.write}", problems) for kill, problems in wrongs.items() if problems]
    assert not failures, f"{len(failures)} of {len(wrongs)} kills were not healed:\n" + "\n".join(failures)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_command_heals_as_the_steps_do(trials: Trials, staged: Staged) -> None:
    trials.restore(staged.before[running.ORDER[0]])
    assert trials.command().returncode == 0
    expected, failures = trials.well(figures=True).figures, []
    kills: list[tuple[str, int, When]] = [
        ("lake/labels", 2, "after"),
        ("models/index", 2, "before"),
        ("lake/equity", 8, "before"),
    ]
    for table, number, when in kills:
        trials.restore(staged.before[running.ORDER[0]])
        assert trials.command(Kill(Write(table, number), when)).returncode == -signal.SIGKILL
        ended = trials.command()
        problems = [ended.stderr] if ended.returncode else running.differences(trials.well(figures=True).figures, expected)
        failures += [told(f"{when} {table} {number}", problems)] if problems else []
    assert not failures, "\n".join(failures)


def _expect_healing(trials: Trials, staged: Staged, chosen: list[tuple[Point, When]], *, whole: bool) -> None:
    failures = []
    for point, when in chosen:
        if problems := killed(trials, staged, point, when, whole=whole):
            same = staged.of(point.write.table)
            name = f"{when} {point.write.table} {same.index(point) + 1} of {len(same)}"
            failures.append(told(f"{name} ({point.step}, {point.write.path})", problems))
    assert not failures, f"{len(failures)} of {len(chosen)} kills were not healed:\n" + "\n".join(failures)
