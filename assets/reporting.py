"""What a step's report looks like beside its asset in the web UI."""

import base64
from collections.abc import Callable
from typing import Any

import dagster as dg

from tidemill.research.study import StepReport

Plot = Callable[[], bytes | None]


def metadata(report: StepReport) -> dict[str, Any]:
    """Cheap numbers: they are copied to every month of a range."""
    shown: dict[str, Any] = {
        "worked": report.worked,
        "rows": report.rows,
        "symbols": report.symbols,
        "bytes": report.bytes,
        "data version": report.data_version,
        "code version": report.code_version,
    }
    if report.start is not None and report.end is not None:
        shown["time range"] = f"{report.start:%Y-%m-%d %H:%M} to {report.end:%Y-%m-%d %H:%M}"
    return shown


def details(report: StepReport, plot: Plot | None = None) -> dict[str, Any]:
    """Facts, table, notes and a plot."""
    shown: dict[str, Any] = {name: _value(value) for name, value in report.facts.items()}
    if report.inputs:
        shown["inputs read"] = dg.MetadataValue.md(_table(("input", "data version"), tuple(report.inputs.items())))
    if report.columns:
        shown["table"] = dg.MetadataValue.md(_table(report.columns, report.table))
    if report.notes:
        shown["notes"] = dg.MetadataValue.md("\n".join(f"- {note}" for note in report.notes))
    # A step that had no work to do shows what it showed before, without drawing it again.
    image = plot() if plot is not None and report.worked else None
    if image is not None:
        shown["plot"] = dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(image).decode()})")
    return shown


def result(context: dg.AssetExecutionContext, report: StepReport, plot: Plot | None = None) -> dg.MaterializeResult[Any]:
    """The materialization of a step: of one asset, or of each month of the range that the run covers."""
    if not context.assets_def.partitions_def:
        return dg.MaterializeResult(
            metadata={**metadata(report), **details(report, plot)}, data_version=dg.DataVersion(report.data_version)
        )
    # Details stand on the newest month only: they describe the whole, and 150 copies of a plot help nobody.
    context.add_asset_metadata(details(report, plot), partition_key=context.partition_keys[-1])
    return dg.MaterializeResult(metadata=metadata(report), data_version=dg.DataVersion(report.data_version))


def _value(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)


def _table(columns: tuple[str, ...], rows: tuple[tuple[Any, ...], ...]) -> str:
    lines = [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
    lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def _cell(cell: Any) -> str:
    if isinstance(cell, float):
        return "–" if cell != cell else f"{cell:,.4g}" if abs(cell) < 1000 else f"{cell:,.0f}"
    return str(cell).replace("|", "\\|")
