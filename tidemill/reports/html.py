"""The HTML report: one file that opens offline, on a phone and in the dark, and says plainly what came out.

It is made of plain frames and figures (`ReportInputs`), so it can be drawn again from what is stored. Sentences come
from `sentences`, pictures from `charts`, the page from `report.html`.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.reports.inputs import DataFacts, Provenance, ReportInputs
from tidemill.reports.numbers import number, percent, whole
from tidemill.reports.sentences import biases, headline, verdict
from tidemill.reports.tables import engine_tables

if TYPE_CHECKING:
    import polars as pl
    from markupsafe import Markup

_TEMPLATE = "report.html"


_HEADLINE = (
    ("total_return", "Total return", percent),
    ("annual_return", "Return a year", percent),
    ("annual_volatility", "Volatility a year", percent),
    ("sharpe", "Sharpe ratio", number),
    ("sortino", "Sortino ratio", number),
    ("max_drawdown", "Largest drawdown", percent),
    ("calmar", "Calmar ratio", number),
    ("value_at_risk_95", "Worst bar in twenty", percent),
    ("conditional_value_at_risk_95", "Mean of the worst twentieth", percent),
    ("skew", "Skew", number),
    ("excess_kurtosis", "Excess kurtosis", number),
    ("tail_ratio", "Tail ratio", number),
    ("omega", "Omega", number),
    ("profit_factor", "Profit factor", number),
    ("win_rate", "Winning bars", percent),
)


def render_report(inputs: ReportInputs) -> str:
    """The report as one HTML text without any reference to another file or server."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).resolve().parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["with_code"] = _with_code
    return environment.get_template(_TEMPLATE).render(
        inputs=inputs,
        verdict=verdict(inputs),
        headline=headline(inputs),
        metrics=_metric_rows(inputs),
        engines=engine_tables(inputs.engines),
        costs=_cost_rows(inputs),
        attribution=_attribution_rows(inputs.attribution),
        rejections=_table(inputs.rejections),
        folds=_table(inputs.folds),
        data=_data_rows(inputs.data),
        biases=biases(inputs),
        provenance=_provenance_rows(inputs.provenance),
        charts=_charts(inputs),
    )


def _with_code(sentence: str) -> Markup:
    """A sentence, escaped, with what stands between backticks shown as code."""
    from markupsafe import Markup, escape  # comes with jinja2

    parts = [escape(part) for part in sentence.split("`")]
    return Markup("").join(Markup("<code>{}</code>").format(part) if at % 2 else part for at, part in enumerate(parts))


def _charts(inputs: ReportInputs) -> dict[str, Any]:
    from markupsafe import Markup  # comes with jinja2

    from tidemill.reports import charts as draw

    pictures = {
        "equity": draw.equity(inputs.equity, inputs.benchmark_equity, inputs.book, inputs.benchmark),
        "drawdown": draw.drawdown(inputs.equity, inputs.benchmark_equity, inputs.book, inputs.benchmark),
        "ic": draw.ic_by_month(inputs.ic_by_month),
        "quantiles": draw.quantile_returns(inputs.quantile_returns),
    }
    # Drawn by matplotlib from numbers; every text in them went through its XML escaping.
    return {name: Markup(text) for name, text in pictures.items()}  # nosec B704


def _metric_rows(inputs: ReportInputs) -> list[tuple[str, str, str]]:
    theirs = inputs.benchmark_metrics
    return [
        (label, shown(inputs.metrics.get(name)), shown(theirs.get(name)) if theirs else "–") for name, label, shown in _HEADLINE
    ]


def _cost_rows(inputs: ReportInputs) -> list[tuple[str, str, str]]:
    """What, cash, share of the starting capital."""
    facts, capital = inputs.facts, inputs.facts.get("capital")
    names = (("fees", "Fees"), ("slippage", "Slippage"), ("borrow", "Borrow for shorts"))
    known = [(label, facts[name]) for name, label in names if facts.get(name) is not None]
    total = [("All costs", sum(cash for _, cash in known))] if known else []
    paid = [("Dividends, less those owed on shorts", facts["dividends"])] if facts.get("dividends") else []
    return [(label, whole(cash), percent(cash / capital) if capital else "–") for label, cash in known + total + paid]


_PARTS = {
    "market": "By market: beta times the benchmark, what selection added, and costs",
    "engines": "By engine: whose ranks wanted the position",
    "symbols": "By symbol, after its own costs",
}


def _attribution_rows(frame: pl.DataFrame | None) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Heading of a part, and its rows: name, cash, share of the starting capital. Each part adds up to the total profit."""
    if frame is None or frame.is_empty():
        return []
    parts = frame.partition_by("part", as_dict=True, maintain_order=True)
    return [
        (heading, [(row["name"], whole(row["profit"]), percent(row["return"])) for row in parts[(part,)].iter_rows(named=True)])
        for part, heading in _PARTS.items()
        if (part,) in parts
    ]


def _data_rows(data: DataFacts | None) -> list[tuple[str, str]]:
    if data is None:
        return []
    told: dict[str, Any] = {
        "bars": data.bars,
        "symbols": data.symbols,
        "first bar": data.first_bar,
        "last bar": data.last_bar,
        "calendar": ", ".join(data.calendars) or "not known",
        "rows refused": sum(data.rows_refused.values()),
        "gaps": data.gaps,
        "missing bars": data.missing_bars,
        "splits and dividends": data.actions,
    }
    told |= {f"quarantined: {reason.replace('_', ' ')}": count for reason, count in data.rows_refused.items()}
    told |= {f"flagged: {flag.replace('_', ' ')}": count for flag, count in data.flags.items()}
    return [(name, _plain(value)) for name, value in told.items()]


def _provenance_rows(made_of: Provenance | None) -> list[tuple[str, str]]:
    if made_of is None:
        return []
    told: dict[str, Any] = {
        "experiment": made_of.experiment,
        "seed": made_of.seed,
        "bars": made_of.bars,
        "features": made_of.features,
        "feature definitions": made_of.feature_definitions,
        "labels": made_of.labels,
    }
    told |= {f"code of {name}": version for name, version in made_of.engines.items()} | dict(made_of.libraries)
    told["written"] = made_of.written
    return [(name, _plain(value)) for name, value in told.items()]


def _table(frame: pl.DataFrame | None) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    if frame is None or frame.is_empty():
        return (), []
    headings = tuple(name.replace("_", " ") for name in frame.columns)
    return headings, [tuple(_plain(value) for value in row) for row in frame.iter_rows()]


def _plain(value: Any) -> str:
    """A value as a person writes it: dates without midnight, numbers with separators."""
    if value is None:
        return "–"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d" if (value.hour, value.minute) == (0, 0) else "%Y-%m-%d %H:%M")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return number(value) if isinstance(value, float) else str(value)
