"""What a step's report looks like beside its asset in the web UI."""

import base64
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

import dagster as dg
import msgspec

from tidemill.study.freshness import StepReport

Plot = Callable[[], bytes | None]
PLOT = "plot"
# The check of an asset of engines. It does not block: what one engine cannot do is no reason to do without the others.
WORKS = "works"
# Names whose words are others than the name with spaces.
_FACTS = {
    "bar_times": "bar times looked at",
    "covered_symbols": "symbols with news",
    "correlation_ewma": "correlation of ewma",
    "embargo": "embargo in bar times",
    "expected_maximum_sharpe": "expected maximum Sharpe without skill",
    "fitted_symbols": "symbols with a fitted model",
    "half_life": "half-life in bars",
    "items": "items about symbols of the dataset",
    "label_deviation": "standard deviation of labels",
    "label_horizon": "horizon in bars",
    "later_versions": "days with a later version",
    "longest_lookback": "longest look-back",
    "moved_features": "features that moved",
    "pbo": "PBO",
    "qlike_ewma": "qlike of ewma",
    "skill_t": "fall of rank IC (t)",
    "trial_clusters": "trials that differ",
    "trials": "trials counted on this source",
    "unscored_items": "items without a score",
    "weighting": "weights",
    "without_receipt": "without a receipt",
}
_COLUMNS = {
    "min_notional": "minimum notional",
    "model_id": "model",
    "since": "from",
    "tested_to": "to",
    "trained_to": "to",
    "with_ewma": "with EWMA",
    "with_garch": "with GARCH",
}
# What stands before the keys of a mapping.
_BEFORE = {
    "flags": "flagged: ",
    "newest_weights": "",
    "reasons": "quarantined: ",
    "return_from": "return from ",
    "return_through": "return through ",
}
# What None means, where it is no figure without a value.
_NONE = {"champion": "none", "neutralised_by": "nothing"}


def metadata(report: StepReport[Any]) -> dict[str, Any]:
    """Cheap numbers: they are copied to every month of a range. What a step does not count is left out."""
    counted = {"rows": report.rows, "symbols": report.symbols, "bytes": report.bytes}
    shown: dict[str, Any] = {"worked": report.worked, **{name: count for name, count in counted.items() if count}}
    if report.start is not None and report.end is not None:
        shown["time range"] = f"{report.start:%Y-%m-%d %H:%M} to {report.end:%Y-%m-%d %H:%M}"
    return shown | {"data version": report.data_version, "code version": report.code_version}


def details(report: StepReport[Any]) -> dict[str, Any]:
    """Table, notes, facts and inputs, in the order in which a person wants them."""
    shown: dict[str, Any] = {}
    if report.columns:
        shown["table"] = dg.MetadataValue.md(_table(*_spread(report.columns, report.table)))
    if report.notes:
        shown["notes"] = dg.MetadataValue.md("\n".join(f"- {note}" for note in report.notes))
    shown |= dict(_facts(report.facts))
    if report.inputs:
        shown["inputs read"] = dg.MetadataValue.md(_table(("input", "data version"), tuple(report.inputs.items())))
    return shown


def result(context: dg.AssetExecutionContext, report: StepReport[Any], plot: Plot | None = None) -> dg.MaterializeResult[Any]:
    """The materialization of a step: of one asset, or of each month of the range that the run covers."""
    pictured = _plot(context, report, plot) if plot is not None else {}
    version = dg.DataVersion(report.data_version)
    if not context.assets_def.partitions_def:
        return dg.MaterializeResult(metadata={**pictured, **details(report), **metadata(report)}, data_version=version)
    # Details stand on the newest month only: they describe the whole, and 150 copies of a plot help nobody.
    context.add_asset_metadata({**pictured, **details(report)}, partition_key=context.partition_keys[-1])
    return dg.MaterializeResult(metadata=metadata(report), data_version=version)


def works(failed: Mapping[str, str]) -> dg.AssetCheckResult:
    """The check beside an asset of engines. failed: engine → why."""
    told = " ".join(f"{engine} failed: {why}" for engine, why in failed.items())
    return dg.AssetCheckResult(check_name=WORKS, passed=not failed, description=told or "No engine failed.")


def _plot(context: dg.AssetExecutionContext, report: StepReport[Any], draw: Plot) -> dict[str, Any]:
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


def _facts(facts: msgspec.Struct | None) -> Iterator[tuple[str, Any]]:
    """Each figure in words; a struct within stands for its figures, a mapping for one figure a key, what is unset for none."""
    for name, value in (msgspec.structs.asdict(facts) if facts is not None else {}).items():
        if isinstance(value, msgspec.Struct):
            yield from _facts(value)
        elif isinstance(value, Mapping):
            yield from ((f"{_BEFORE[name]}{key}".replace("_", " "), one) for key, one in value.items())
        elif value is not msgspec.UNSET:
            yield _FACTS.get(name, name.replace("_", " ")), _value(name, value)


def _value(name: str, value: Any) -> Any:
    if name == "path":
        return dg.MetadataValue.path(str(value))
    if value is None:
        return _NONE.get(name, "not defined")
    return value if isinstance(value, bool | int | float | str) else str(value)


def _spread(columns: tuple[str, ...], rows: tuple[tuple[Any, ...], ...]) -> tuple[tuple[str, ...], tuple[tuple[Any, ...], ...]]:
    """Columns in words, and rows of single cells: a mapping in a cell stands for columns that are called as its keys."""
    names = [
        tuple(rows[0][at]) if rows and isinstance(rows[0][at], Mapping) else (_COLUMNS.get(name, name.replace("_", " ")),)
        for at, name in enumerate(columns)
    ]
    cells = (tuple(tuple(cell.values()) if isinstance(cell, Mapping) else (cell,) for cell in row) for row in rows)
    return tuple(chain.from_iterable(names)), tuple(tuple(chain.from_iterable(row)) for row in cells)


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
