"""Numbers as tables and files hold them."""

import math


def finite(value: float) -> float | None:
    """The number itself; None for NaN and the infinities, which JSON and a column of a database do not know."""
    return float(value) if math.isfinite(value) else None
