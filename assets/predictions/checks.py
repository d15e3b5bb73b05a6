"""Quality and causality of predictions/engines."""

from assets.causality import causal_check
from assets.checking import suite_checks

prediction_checks = suite_checks("predictions", ["predictions", "engines"])
prediction_causality = causal_check(
    ["predictions", "engines"],
    "A model fitted on what was known when its test begins is the same model, and no prediction changes with later bars.",
)
