"""The causality proof as an asset check: what looks ahead blocks everything downstream."""

from typing import Any

import dagster as dg

from resources.experiment import ExperimentResource
from tidemill.steps.checks.causality import CHECK, Judged, judge_causality, refuted_rows


def causal_check(key: list[str], description: str) -> dg.AssetChecksDefinition:
    """The check `causal` of an asset. A definition is judged once; the verdict is kept in Postgres."""
    name = "/".join(key)

    @dg.asset_check(asset=dg.AssetKey(key), name=CHECK, blocking=True, description=description)
    def causal(context: dg.AssetCheckExecutionContext, experiment: ExperimentResource) -> dg.AssetCheckResult:
        return _result(judge_causality(experiment.study, name))

    return causal


def _result(judged: Judged) -> dg.AssetCheckResult:
    proof = judged.proof
    metadata: dict[str, Any] = {
        "judged in this run": judged.worked,
        "proven": len(proof.proven),
        "refuted": len(proof.refuted),
        "computations": proof.runs,
        "definition": judged.version,
    }
    if proof.refuted:
        rows = [dg.TableRecord(row) for row in refuted_rows(proof)]
        metadata["what looks ahead"] = dg.MetadataValue.table(rows)
    if proof.longer:
        metadata["read further back than stated"] = ", ".join(proof.longer)
    return dg.AssetCheckResult(
        passed=proof.holds, severity=dg.AssetCheckSeverity.ERROR, description=judged.sentence, metadata=metadata
    )
