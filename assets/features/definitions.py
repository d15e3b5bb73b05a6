"""The service `features`."""

from assets.features.checks import feature_causality, feature_checks
from assets.features.regime import regime
from assets.features.sentiment import sentiment
from assets.features.technical import technical, training_set
from assets.service import service

defs = service(
    "features", "Features and labels.", [technical, regime, sentiment, training_set], [feature_checks, feature_causality]
)
