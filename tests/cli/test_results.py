"""The table that a run ends with."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tidemill.cli.results import write_result
from tidemill.domain.limits_reached import LevelReached, LimitsReached
from tidemill.queries.results import BenchmarkResult, BookResult, Result

WIDE = {"rank_ic": -0.0123, "t_stat": -12.3, "sharpe": -12.34, "sharpe_low": -10.12, "sharpe_high": -10.34}
MONEY = {"deflated_sharpe": 0.999, "annual_return": -0.123, "max_drawdown": -0.456, "fees": 1e6, "slippage": 1e6, "borrow": 0.0}
FIRST = LevelReached(level="block", limit=0.1, first=datetime(2021, 9, 3, tzinfo=UTC), drawdown=0.11, times=1, slots=9)


def told(limits: dict[str, LimitsReached | None]) -> Result:
    books = tuple(BookResult(book=name, **WIDE, **MONEY) for name in ("ensemble", "mean_reversion"))
    benchmark = BenchmarkResult(sharpe=0.5, annual_return=0.1, max_drawdown=-0.3, costs=1_000.0)
    return Result(
        experiment="mine",
        dataset="d",
        key="k",
        path=Path("report.html"),
        books=books,
        benchmark=benchmark,
        metrics={},
        sentences=(),
        limits=limits,
    )


@pytest.mark.parametrize(
    ("limits", "last"),
    [
        ({}, "costs"),
        ({"ensemble": LimitsReached(slots=9), "mean_reversion": None}, "costs"),
        ({"ensemble": LimitsReached(slots=9, levels=(FIRST,)), "mean_reversion": None}, "limits"),
    ],
)
def test_it_fits_a_terminal_of_100_columns(
    limits: dict[str, LimitsReached | None], last: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_result(told(limits))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[1].split()[-1] == last
    assert [line.split()[0] for line in lines[3:]] == ["ensemble", "mean_reversion", "benchmark"]
    assert lines[-1].split().count("–") >= 3, "a benchmark has no skill"
    if last == "limits":
        assert lines[3].endswith("blocked 2021-09-03")
        assert lines[4].endswith("–")
