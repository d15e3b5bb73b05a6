"""How many predictions do not count: shown beside the ensemble, with a warning where they are many. None of them is traded."""

from typing import Any

import dagster as dg

from resources.experiment import ExperimentResource
from tidemill.steps.predictions.validity import MANY, refusal_counts, validate_predictions


@dg.asset_check(
    asset=dg.AssetKey(["predictions", "ensemble"]),
    name="valid",
    description="Few predictions are refused for unknown features, features or values far from their past, or contradiction.",
)
def prediction_validity(context: dg.AssetCheckExecutionContext, experiment: ExperimentResource) -> dg.AssetCheckResult:
    judged = validate_predictions(experiment.study)
    metadata: dict[str, Any] = {
        "judged in this run": judged.worked > 0,
        "folds judged": judged.worked,
        "refused": judged.refused,
        "predictions": judged.judged,
    }
    rows = refusal_counts(experiment.study).to_dicts()
    if rows:
        metadata["why"] = dg.MetadataValue.table([dg.TableRecord(row) for row in rows])
    return dg.AssetCheckResult(
        passed=judged.share <= MANY,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{judged.refused:,} of {judged.judged:,} predictions are refused and not traded.",
        metadata=metadata,
    )
