"""How many predictions do not count: shown beside the ensemble, with a warning where they are many. None of them is traded."""

from typing import Any

import dagster as dg

from resources.experiment import ExperimentResource
from tidemill.steps.predictions.validity import MANY, rejection_counts, validate_predictions


@dg.asset_check(
    asset=dg.AssetKey(["predictions", "ensemble"]),
    name="valid",
    description="Few predictions are rejected for unknown features, values far from their past, or contradicting engines.",
)
def prediction_validity(context: dg.AssetCheckExecutionContext, experiment: ExperimentResource) -> dg.AssetCheckResult:
    judged = validate_predictions(experiment.study)
    metadata: dict[str, Any] = {
        "judged in this run": judged.worked > 0,
        "folds judged": judged.worked,
        "rejected": judged.rejected,
        "predictions": judged.judged,
    }
    rows = rejection_counts(experiment.study).to_dicts()
    if rows:
        metadata["why"] = dg.MetadataValue.table([dg.TableRecord(row) for row in rows])
    return dg.AssetCheckResult(
        passed=judged.share <= MANY,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{judged.rejected:,} of {judged.judged:,} predictions are rejected and not traded.",
        metadata=metadata,
    )
