"""A Great Expectations suite as asset checks: one row for each expectation; the critical ones block what is downstream."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from resources.experiment import ExperimentResource
from tidemill.quality.expectations import SuiteName
from tidemill.quality.suites import ExpectationResult, suite_expectations
from tidemill.steps.checks.suites import SuiteResult, judge_suite


def suite_checks(suite: SuiteName, key: list[str]) -> dg.AssetChecksDefinition:
    """The checks of `suite` on the asset `key`. They block inside their own run; the verdicts are kept in Postgres.

    The web UI can run some of them alone: the whole suite is judged then, and only those asked for are reported.
    """
    asset = dg.AssetKey(key)
    specs = [
        dg.AssetCheckSpec(name=_name(expectation), asset=asset, blocking=severity == "critical", description=f"{title}.")
        for expectation, severity, title in suite_expectations(suite)
    ]

    @dg.multi_asset_check(name=f"{'_'.join(key)}_suite", specs=specs, can_subset=True)
    def checks(context: dg.AssetCheckExecutionContext, experiment: ExperimentResource) -> Iterator[dg.AssetCheckResult]:
        judged = judge_suite(experiment.study, suite, "/".join(key))
        wanted = {check.name for check in context.selected_asset_check_keys}
        for found in judged.results:
            if _name(found.id) in wanted:
                yield _result(asset, judged, found)

    return checks


def _name(expectation: str) -> str:
    """`high_is_highest` for `bars.high_is_highest`: the check stands beside its asset."""
    return expectation.partition(".")[2]


def _result(asset: dg.AssetKey, judged: SuiteResult, found: ExpectationResult) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = {
        "judged in this run": judged.worked,
        "rows that break it": found.unexpected_count,
        "looked at": judged.scope,
        "data version": judged.data_version,
    }
    if found.observed is not None:
        metadata["observed"] = str(found.observed)
    if found.error:
        metadata["error"] = found.error
    if judged.docs is not None:
        metadata["data docs"] = dg.MetadataValue.path(str(judged.docs))
    return dg.AssetCheckResult(
        check_name=_name(found.id),
        asset_key=asset,
        passed=found.passed,
        severity=dg.AssetCheckSeverity.ERROR if found.severity == "critical" else dg.AssetCheckSeverity.WARN,
        description=_sentence(found),
        metadata=metadata,
    )


def _sentence(found: ExpectationResult) -> str:
    if found.passed:
        return f"{found.title}."
    if found.error:
        return f"“{found.title}” could not be judged: {found.error}"
    count = found.unexpected_count
    where = f" in {count:,} {'row' if count == 1 else 'rows'}" if count else ""
    return f"“{found.title}” does not hold{where}."
