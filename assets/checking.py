"""A Great Expectations suite as asset checks: one row for each expectation; the critical ones block what is downstream."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from resources.experiment import ExperimentResource
from tidemill.quality.expectations import SuiteName
from tidemill.quality.suites import suite_expectations
from tidemill.research.checking import judge


def suite_checks(suite: SuiteName, key: list[str]) -> dg.AssetChecksDefinition:
    """The checks of `suite` on the asset `key`. They block inside their own run; the verdicts are kept in Postgres."""
    expectations = suite_expectations(suite)
    specs = [
        dg.AssetCheckSpec(name=name, asset=dg.AssetKey(key), blocking=severity == "critical", description=title)
        for name, severity, title in expectations
    ]

    @dg.multi_asset_check(name=f"{'_'.join(key)}_suite", specs=specs)
    def checks(context: dg.AssetCheckExecutionContext, experiment: ExperimentResource) -> Iterator[dg.AssetCheckResult]:
        judged = judge(experiment.study, suite, "/".join(key))
        for found in judged.results:
            metadata: dict[str, Any] = {
                "observed": str(found.observed),
                "unexpected rows": found.unexpected_count,
                "data version": judged.data_version,
                "judged now": judged.worked,
            }
            if found.error:
                metadata["error"] = found.error
            if judged.docs is not None:
                metadata["data docs"] = dg.MetadataValue.path(str(judged.docs))
            yield dg.AssetCheckResult(
                check_name=found.id,
                asset_key=dg.AssetKey(key),
                passed=found.passed,
                severity=dg.AssetCheckSeverity.ERROR if found.severity == "critical" else dg.AssetCheckSeverity.WARN,
                description=found.title,
                metadata=metadata,
            )

    return checks
