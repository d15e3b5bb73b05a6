"""Quality of market_data/bars."""

from assets.checking import suite_checks

bar_checks = suite_checks("bars", ["market_data", "bars"])
