"""The service `monitoring`."""

from assets.performance.drift import drift
from assets.performance.notebooks import notebook_assets
from assets.performance.report import engines, portfolio, report
from assets.service import service

defs = service("monitoring", "Performance, drift, report and notebooks.", [engines, portfolio, drift, report, *notebook_assets])
