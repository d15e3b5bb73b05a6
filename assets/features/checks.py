"""Quality and causality of features/technical."""

from assets.causality import causal_check
from assets.checking import suite_checks

feature_checks = suite_checks("features", ["features", "technical"])
feature_causality = causal_check(
    ["features", "technical"], "No feature, and no adjusted price, changes when later bars and actions are gone or altered."
)
