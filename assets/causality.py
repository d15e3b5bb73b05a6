"""The causality proof as an asset check: what looks ahead blocks everything downstream."""

from typing import Any

import dagster as dg

from resources.experiment import ExperimentResource
from tidemill.steps.checks.causality import CHECK, ProofResult, judge_causality, not_judged, refuted_rows
from tidemill.validation.causality.proof import CANNOT_SEE


def causal_check(key: list[str], description: str) -> dg.AssetChecksDefinition:
    """The check `causal` of an asset. A definition is judged once; the verdict is kept in Postgres."""
    name = "/".join(key)

    @dg.asset_check(asset=dg.AssetKey(key), name=CHECK, blocking=True, description=description)
    def causal(context: dg.AssetCheckExecutionContext, experiment: ExperimentResource) -> dg.AssetCheckResult:
        return _result(judge_causality(experiment.study, name))

    return causal


def _result(judged: ProofResult) -> dg.AssetCheckResult:
    proof = judged.proof
    metadata: dict[str, Any] = {
        "judged in this run": judged.worked,
        "proven": len(proof.proven),
        "refuted": len(proof.refuted),
        "not judged": len(proof.unjudged),
        "computations": proof.runs,
        "definition": judged.version,
        "cannot be seen": CANNOT_SEE,
    }
    if proof.refuted:
        rows = [dg.TableRecord(row) for row in refuted_rows(proof)]
        metadata["what looks ahead or fails"] = dg.MetadataValue.table(rows)
    if proof.unjudged:
        metadata["why not judged"] = not_judged(proof)
    if proof.longer:
        metadata["read further back than stated"] = ", ".join(proof.longer)
    # What is not judged may be looked at, and is told in the report; it cannot be promoted.
    severity = dg.AssetCheckSeverity.ERROR if proof.refuted else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(passed=proof.holds, severity=severity, description=judged.sentence, metadata=metadata)
