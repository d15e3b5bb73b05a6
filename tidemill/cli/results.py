"""The result of a run as a person reads it on a terminal, and as a program reads it."""

from typing import TYPE_CHECKING, Any

import msgspec

from tidemill.cli.common.output import write_table

if TYPE_CHECKING:
    from tidemill.queries.results import BenchmarkResult, BookResult, Result

# What a terminal of 100 columns has room for; the report has the rest.
_COLUMNS = ("engine", "rank IC", "t", "Sharpe", "95 % interval", "deflated", "a year", "drawdown", "costs")
_LIMITED = ("engine", "rank IC", "t", "Sharpe", "95 % interval", "a year", "drawdown", "limits")


def as_dict(result: "Result") -> dict[str, Any]:
    """For `--json`: the figures by name."""
    return {
        "experiment": result.experiment,
        "dataset": result.dataset,
        "engines": [msgspec.structs.asdict(book) for book in result.books],
        "metrics": result.metrics,
        "summary": list(result.sentences),
        "failed": result.failed,
        "limits": msgspec.to_builtins(result.limits),
    }


def write_result(result: "Result") -> None:
    """The table by engine, the benchmark at its end; where limits did something to a book, with that instead of the costs."""
    columns = _LIMITED if any(reached and reached.shortly() for reached in result.limits.values()) else _COLUMNS
    rows = [*(_book_cells(result, book) for book in result.books), _benchmark_cells(result.benchmark)]
    shown = [[row.get(column, "–") for column in columns] for row in rows]
    write_table(f"{result.experiment}: out-of-sample results by engine, after costs", columns, shown)


def _book_cells(result: "Result", book: "BookResult") -> dict[str, str]:
    from tidemill.reports.numbers import interval, number, percent, whole

    reached = result.limits.get(book.book)
    return {
        "engine": book.book,
        "rank IC": number(book.rank_ic),
        "t": number(book.t_stat, 1),
        "Sharpe": number(book.sharpe),
        "95 % interval": interval(book.sharpe_low, book.sharpe_high),
        "deflated": percent(book.deflated_sharpe),
        "a year": percent(book.annual_return),
        "drawdown": percent(book.max_drawdown),
        "costs": whole(book.costs),
        "limits": (reached.shortly() if reached is not None else "") or "–",
    }


def _benchmark_cells(benchmark: "BenchmarkResult") -> dict[str, str]:
    from tidemill.reports.numbers import number, percent, whole

    return {
        "engine": "benchmark",
        "Sharpe": number(benchmark.sharpe),
        "a year": percent(benchmark.annual_return),
        "drawdown": percent(benchmark.max_drawdown),
        "costs": whole(benchmark.costs),
    }
