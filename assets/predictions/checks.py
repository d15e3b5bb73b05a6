"""Quality of predictions/engines."""

from assets.checking import suite_checks

prediction_checks = suite_checks("predictions", ["predictions", "engines"])
