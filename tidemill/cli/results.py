"""The result of a run as a person reads it on a terminal, and as a program reads it."""

from typing import TYPE_CHECKING, Any

import msgspec

from tidemill.cli.common.output import write_table

if TYPE_CHECKING:
    from tidemill.queries.results import BenchmarkResult, BookResult, Result

_COLUMNS = (
    *("engine", "IC", "rank IC", "ICIR", "t", "Sharpe before", "Sharpe after", "95 % interval", "deflated"),
    *("return a year", "drawdown", "costs"),
)
_NO_SKILL = ("–",) * 5


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
    """The table by engine, the benchmark at its end."""
    limited, rows = any(result.limits.values()), _rows(result)
    columns = (*_COLUMNS, "limits") if limited else _COLUMNS
    told = [*(_limits(result, book.book) for book in result.books), "–"]
    shown = [(*row, cell) for row, cell in zip(rows, told, strict=True)] if limited else rows
    write_table(f"{result.experiment}: out-of-sample results by engine, after costs", columns, shown)


def _limits(result: "Result", book: str) -> str:
    reached = result.limits.get(book)
    return (reached.shortly() if reached is not None else "") or "–"


def _rows(result: "Result") -> list[tuple[str, ...]]:
    return [*map(_book_row, result.books), _benchmark_row(result.benchmark)]


def _book_row(book: "BookResult") -> tuple[str, ...]:
    from tidemill.reports.numbers import interval, number, percent, whole

    return (
        book.book,
        number(book.ic),
        number(book.rank_ic),
        number(book.icir),
        number(book.t_stat, 1),
        number(book.sharpe_gross),
        number(book.sharpe),
        interval(book.sharpe_low, book.sharpe_high),
        percent(book.deflated_sharpe),
        percent(book.annual_return),
        percent(book.max_drawdown),
        whole(book.costs),
    )


def _benchmark_row(benchmark: "BenchmarkResult") -> tuple[str, ...]:
    from tidemill.reports.numbers import number, percent, whole

    own = (percent(benchmark.annual_return), percent(benchmark.max_drawdown), whole(benchmark.costs))
    return ("benchmark", *_NO_SKILL, number(benchmark.sharpe), "–", "–", *own)
