"""What an experiment says of its forecasts of risk, checked before any work."""

from tidemill.domain.errors import InputError
from tidemill.domain.experiment import RiskSpec


def check(spec: RiskSpec | None) -> None:
    """InputError where GARCH would be fitted on fewer returns than it may be."""
    if spec is not None and spec.least > spec.window:
        raise InputError(f"risk.least is {spec.least}; it must be at most risk.window ({spec.window}).")
