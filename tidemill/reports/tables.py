"""The tables of engines in the report: how good predictions were, what was left of them after costs, and what limits did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from tidemill.reports.numbers import MetricRow, interval, number, percent, whole
from tidemill.reports.sentences import total_costs

if TYPE_CHECKING:
    import polars as pl


class Column(NamedTuple):
    """needs: columns of the frame without which it is left out. cell: from a row of the frame to a text."""

    label: str
    needs: tuple[str, ...]
    cell: Callable[[Mapping[str, Any]], str]
    about: str


class EngineTable(NamedTuple):
    """title, caption; headings: label and what it means; rows: one for each engine."""

    title: str
    caption: str
    headings: list[tuple[str, str]]
    rows: list[MetricRow]


def _one(label: str, name: str, shown: Callable[[Any], str], about: str) -> Column:
    return Column(label, (name,), lambda row: shown(row[name]), about)


def _text(value: str | None) -> str:
    return value or "–"


def _span(label: str, name: str, about: str, places: int = 2) -> Column:
    low, high = f"{name}_low", f"{name}_high"
    return Column(label, (low, high), lambda row: interval(row[low], row[high], places), about)


_BOOTSTRAP = "95 % interval by the stationary bootstrap, which keeps the dependence of neighbouring bars"
SKILL = (
    _one("IC", "ic", number, "mean correlation of prediction and outcome across symbols"),
    _span("IC, 95 %", "ic", _BOOTSTRAP, 3),
    _one("Rank IC", "rank_ic", number, "the same on ranks"),
    _span("Rank IC, 95 %", "rank_ic", _BOOTSTRAP, 3),
    _one(
        "t",
        "t_stat",
        lambda value: number(value, 1),
        "of the mean rank IC, overlapping labels and what else neighbours share allowed for; beyond ±2 is unlikely to be "
        "chance alone, if this were the only thing tried",
    ),
    _one("ICIR", "icir", number, "mean IC / its standard deviation from bar to bar"),
    _one("Hit rate", "hit_rate", percent, "predictions on the right side; a coin gives 50 %"),
    _one("Signal turnover", "turnover", percent, "share of the top fifth that is new at each bar"),
)
MONEY = (
    _one("Sharpe before costs", "sharpe_gross", number, "annualised"),
    _one("Sharpe after costs", "sharpe", number, "annualised"),
    _span("Sharpe, 95 %", "sharpe", f"after costs; {_BOOTSTRAP}"),
    _one(
        "Deflated Sharpe, all trials",
        "deflated_sharpe",
        percent,
        "probability that the true Sharpe ratio is above what the best of all counted trials would show without skill; 95 % "
        "and more is usually asked for",
    ),
    _one(
        "Deflated Sharpe, clusters",
        "deflated_sharpe_clustered",
        percent,
        "the same when trials whose returns go together (correlation of 0.5 and more on average) count as one",
    ),
    _one(
        "PBO when best",
        "pbo_when_best",
        percent,
        "of the ways to halve the time in which this engine was the best in one half, the share in which it was not above the "
        "median of the trials in the other; a dash: it never was the best",
    ),
    _one("Return a year", "annual_return", percent, "after costs"),
    _one("Largest drawdown", "max_drawdown", percent, "after costs"),
    _one(
        "Traded a year",
        "portfolio_turnover",
        lambda value: f"{number(value, 1)} ×",
        "notional bought and sold, in multiples of equity",
    ),
    Column("Costs", ("fees", "slippage", "borrow"), lambda row: whole(total_costs(row)), "fees, slippage and borrow, in cash"),
)
LIMITS = (
    _one("Reached", "limit_level", _text, "the severest level of loss that was in force; a dash: none"),
    _one("First on", "limit_first", _text, "the bar at whose close that was"),
    _one("Loss then", "limit_drawdown", percent, "below the highest equity"),
    _one("Bars without additions", "limit_held_back", whole, "over which a level was in force, so that nothing could be added"),
    _one("Holds nothing since", "limit_flat_since", _text, "to the end, under a level in force"),
    _one(
        "Cuts of targets",
        "limit_cut",
        whole,
        "to the limits of position, gross and net exposure; a target that several of them cut counts for each, one that a "
        "level of loss held back for none",
    ),
    _one("Orders cancelled", "limit_collar", whole, "at the collar: they would have traded too far from the signal's close"),
)


def engine_tables(engines: pl.DataFrame) -> list[EngineTable]:
    """The tables that can be made of the columns that are there; none for an empty frame."""
    if engines.is_empty():
        return []
    kinds = (
        ("Predictions", "Out of sample, before any trading.", SKILL),
        ("After costs", f"The same folds and costs for all.{_counted(engines)}", MONEY),
        ("Limits", "What the experiment's `limits` did to each book.", LIMITS),
    )
    tables = (_table(engines, title, caption, columns) for title, caption, columns in kinds)
    return [table for table in tables if table.headings]


def _counted(engines: pl.DataFrame) -> str:
    row = engines.row(0, named=True)
    if row.get("trials") is None:
        return ""
    pbo = f", PBO {percent(row['pbo'])}" if row.get("pbo") is not None else ""
    return f" {whole(row['trials'])} trials counted, {whole(row['trial_clusters'])} of them different{pbo}."


def _table(engines: pl.DataFrame, title: str, caption: str, columns: tuple[Column, ...]) -> EngineTable:
    present = [column for column in columns if set(column.needs) <= set(engines.columns)]
    rows = [MetricRow(str(row["book"]), tuple(column.cell(row) for column in present)) for row in engines.iter_rows(named=True)]
    return EngineTable(title, caption, [(column.label, column.about) for column in present], rows)
