"""Causality of trading/signals."""

from assets.causality import causal_check

signal_causality = causal_check(
    ["trading", "signals"], "The strategy's weights do not change when later bars and predictions are gone or altered."
)
