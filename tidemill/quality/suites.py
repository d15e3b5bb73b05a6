"""Great Expectations over bars, features and predictions: one result for each expectation, and Data Docs built offline.

Importing Great Expectations takes 2-5 s, so nothing here does before `run_suite`; `suite_expectations` names the checks
without it.
"""

import importlib
import math
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec

from tidemill.domain.errors import UnknownNameError
from tidemill.quality.expectations import SUITES, Expected, Severity, SuiteName

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

_SITE = "tidemill"
_IRI_GRAMMARS = "rfc3987_syntax"


class ExpectationResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one expectation came to.

    observed: the value that was judged, or the share of unexpected rows in percent; None where there was nothing to judge.
    unexpected_count: rows that broke it, 0 where it judges the table as a whole. error: why it could not be judged; it then
    counts as failed.
    """

    id: str
    title: str
    severity: Severity
    passed: bool
    observed: float | int | str | None
    unexpected_count: int
    error: str = ""


def suite_expectations(name: SuiteName) -> list[tuple[str, Severity, str]]:
    """(id, severity, title) of each expectation of a suite, without importing Great Expectations.

    UnknownNameError for another suite.
    """
    return [(expected.id, expected.severity, expected.title) for expected in _suite(name)]


def run_suite(name: SuiteName, frame: "pl.DataFrame", *, docs_folder: Path | None = None) -> list[ExpectationResult]:
    """Judge `frame` by a suite; results in the order of `suite_expectations`.

    frame: bars, features or predictions as in their modules; empty and all-NaN frames and missing columns are reported as
    failed expectations, never raised; in an empty frame only the count of rows can fail. docs_folder: where to write Data Docs;
    `docs_index` names their first page.
    """
    suite = _suite(name)
    table = view(name, frame)
    great_expectations = _library()
    context = great_expectations.get_context(mode="ephemeral")
    litter = _set_up(context, docs_folder / name if docs_folder else None)
    try:
        found = _judge(great_expectations, context, name, suite, table)
        if docs_folder:
            context.build_data_docs(site_names=[_SITE])
    finally:
        shutil.rmtree(litter, ignore_errors=True)
    return [_result(expected, found.get(expected.id)) for expected in suite]


def _library() -> ModuleType:
    """Great Expectations. It imports jsonschema, which compiles 39 grammars for checks of IRIs if it finds them: a third of the
    time, and nothing here checks an IRI.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read by the library when it is imported
    hidden = _IRI_GRAMMARS not in sys.modules
    if hidden:
        sys.modules[_IRI_GRAMMARS] = None  # type: ignore[assignment]  # its import fails, which jsonschema expects
    try:
        return importlib.import_module("great_expectations")
    finally:
        if hidden:
            del sys.modules[_IRI_GRAMMARS]


def docs_index(docs_folder: Path, name: SuiteName) -> Path:
    """The first page of the Data Docs that `run_suite` wrote for a suite."""
    return docs_folder / name / "index.html"


def view(name: SuiteName, frame: "pl.DataFrame") -> "pd.DataFrame":
    """The table that the expectations of a suite look at, in pandas: for features one row a feature, else one row a row."""
    import polars as pl

    from tidemill.quality.views import bars_view, features_view, predictions_view

    made = {"bars": bars_view, "features": features_view, "predictions": predictions_view}[name](frame)
    # pandas 3 is slow and loud about zoned columns; all times are UTC.
    return made.with_columns(pl.col(pl.Datetime).dt.replace_time_zone(None)).to_pandas()


def _suite(name: SuiteName) -> tuple[Expected, ...]:
    if name not in SUITES:
        raise UnknownNameError("suite", str(name), SUITES)
    return SUITES[name]


def _set_up(context: Any, site: Path | None) -> str:
    """No progress bars, and our folder instead of the temporary one that an ephemeral context makes; returns that one."""
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    litter = ""
    for known in list(context.get_site_names()):
        litter = context.variables.data_docs_sites[known]["store_backend"]["base_directory"]
        context.delete_data_docs_site(known)
    if site is not None:
        store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(site.absolute())}
        index = {"class_name": "DefaultSiteIndexBuilder"}
        context.add_data_docs_site(_SITE, {"class_name": "SiteBuilder", "site_index_builder": index, "store_backend": store})
    return litter


def _judge(library: Any, context: Any, name: str, suite: tuple[Expected, ...], table: "pd.DataFrame") -> dict[str, Any]:
    """Great Expectations' results by id."""
    made = [
        getattr(library.expectations, expected.kind)(
            **expected.options, severity=expected.severity, meta={"id": expected.id, "title": expected.title}
        )
        for expected in suite
    ]
    expectations = context.suites.add(library.ExpectationSuite(name=name, expectations=made))
    asset = context.data_sources.add_pandas("frames").add_dataframe_asset(name)
    batch = asset.add_batch_definition_whole_dataframe("whole")
    validation = context.validation_definitions.add(library.ValidationDefinition(name=name, data=batch, suite=expectations))
    outcome = validation.run(batch_parameters={"dataframe": table}, result_format="SUMMARY")
    return {found.expectation_config.meta["id"]: found for found in outcome.results}


def _result(expected: Expected, found: Any) -> ExpectationResult:
    values = found.result if found is not None else {}
    error = _error(found)
    return ExpectationResult(
        id=expected.id,
        title=expected.title,
        severity=expected.severity,
        passed=bool(found is not None and found.success and not error),
        observed=_plain(values.get("observed_value", values.get("unexpected_percent"))),
        unexpected_count=int(values.get("unexpected_count") or 0),
        error=error,
    )


def _error(found: Any) -> str:
    """The first line of what the library raised while judging, empty when nothing was."""
    if found is None:
        return "not judged"
    info = found.exception_info or {}
    entries = [info] if "raised_exception" in info else [entry for entry in info.values() if isinstance(entry, dict)]
    for entry in entries:
        if entry.get("raised_exception"):
            return str(entry.get("exception_message") or "not judged").splitlines()[0]
    return ""


def _plain(value: Any) -> float | int | str | None:
    """A value that JSON knows: numpy scalars become Python's, NaN becomes None."""
    plain = value.item() if hasattr(value, "item") else value
    if isinstance(plain, float):
        return plain if math.isfinite(plain) else None
    return plain if isinstance(plain, int | str) or plain is None else str(plain)
