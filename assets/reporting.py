"""What a step's report looks like beside its asset in the web UI."""

import base64
from collections.abc import Callable
from typing import Any

import dagster as dg

from tidemill.study.freshness import StepReport

Plot = Callable[[], bytes | None]
PLOT = "plot"


def metadata(report: StepReport) -> dict[str, Any]:
    """Cheap numbers: they are copied to every month of a range. What a step does not count is left out."""
    counted = {"rows": report.rows, "symbols": report.symbols, "bytes": report.bytes}
    shown: dict[str, Any] = {"worked": report.worked, **{name: count for name, count in counted.items() if count}}
    if report.start is not None and report.end is not None:
        shown["time range"] = f"{report.start:%Y-%m-%d %H:%M} to {report.end:%Y-%m-%d %H:%M}"
    return shown | {"data version": report.data_version, "code version": report.code_version}


def details(report: StepReport) -> dict[str, Any]:
    """Table, notes, facts and inputs, in the order in which a person wants them."""
    shown: dict[str, Any] = {}
    if report.columns:
        shown["table"] = dg.MetadataValue.md(_table(report.columns, report.table))
    if report.notes:
        shown["notes"] = dg.MetadataValue.md("\n".join(f"- {note}" for note in report.notes))
    shown |= {name.replace("_", " "): _value(name, value) for name, value in report.facts.items()}
    if report.inputs:
        shown["inputs read"] = dg.MetadataValue.md(_table(("input", "data version"), tuple(report.inputs.items())))
    return shown


def result(context: dg.AssetExecutionContext, report: StepReport, plot: Plot | None = None) -> dg.MaterializeResult[Any]:
    """The materialization of a step: of one asset, or of each month of the range that the run covers."""
    pictured = _plot(context, report, plot) if plot is not None else {}
    version = dg.DataVersion(report.data_version)
    if not context.assets_def.partitions_def:
        return dg.MaterializeResult(metadata={**pictured, **details(report), **metadata(report)}, data_version=version)
    # Details stand on the newest month only: they describe the whole, and 150 copies of a plot help nobody.
    context.add_asset_metadata({**pictured, **details(report)}, partition_key=context.partition_keys[-1])
    return dg.MaterializeResult(metadata=metadata(report), data_version=version)


def _plot(context: dg.AssetExecutionContext, report: StepReport, draw: Plot) -> dict[str, Any]:
    """The plot; that of the last materialization when it shows the same data, since drawing takes longer than reading."""
    if not report.worked:
        last = context.instance.get_latest_materialization_event(context.asset_key)
        shown = last.asset_materialization.metadata if last is not None and last.asset_materialization is not None else {}
        version = shown.get("data version")
        if PLOT in shown and version is not None and version.value == report.data_version:
            return {PLOT: shown[PLOT]}
    image = draw()
    if image is None:
        return {}
    # An address with the data in it: the web UI has no door for files, and the event log keeps the plot with its run.
    return {PLOT: dg.MetadataValue.md(f"![{PLOT}](data:image/png;base64,{base64.b64encode(image).decode()})")}


def _value(name: str, value: Any) -> Any:
    if name == "path":
        return dg.MetadataValue.path(str(value))
    return value if isinstance(value, bool | int | float | str) else str(value)


def _table(columns: tuple[str, ...], rows: tuple[tuple[Any, ...], ...]) -> str:
    """Markdown without spaces for beauty: the web UI shows up to 1,000 characters in place, more only after a click."""
    lines = [f"|{'|'.join(columns)}|", f"|{'-|' * len(columns)}"]
    lines += [f"|{'|'.join(_cell(cell) for cell in row)}|" for row in rows]
    return "\n".join(lines)


def _cell(cell: Any) -> str:
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if cell is None or cell != cell:
        return "–"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return f"{cell:,.4g}" if abs(cell) < 1000 else f"{cell:,.0f}"
    return str(cell).replace("|", "\\|").replace("\n", " ")
