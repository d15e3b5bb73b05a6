"""What an experiment says of its forecasts of risk and of its limits, checked before any work."""

from tidemill.domain.errors import InputError
from tidemill.domain.experiment import LimitsSpec, RiskSpec


def check(spec: RiskSpec | None) -> None:
    """InputError where GARCH would be fitted on fewer returns than it may be."""
    if spec is not None and spec.least > spec.window:
        raise InputError(f"risk.least is {spec.least}; it must be at most risk.window ({spec.window}).")


def check_limits(spec: LimitsSpec | None) -> None:
    """InputError where the levels of a drawdown do not rise."""
    if spec is None:
        return
    levels = spec.drawdown
    if not levels.block <= levels.reduce <= levels.flatten:
        raise InputError(
            f"limits.drawdown is block {levels.block:g}, reduce {levels.reduce:g}, flatten {levels.flatten:g}; each must be at "
            "least the one before it, such as 0.01, 0.015 and 0.02."
        )
