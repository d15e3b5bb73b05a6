"""Quality of features/technical."""

from assets.checking import suite_checks

feature_checks = suite_checks("features", ["features", "technical"])
