"""Numbers as a report shows them: digits, percentages, intervals, and a dash for what is not known."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeGuard

_SMALL = 0.1  # below it one more decimal is shown


_NOTHING = 5e-5  # a share of less than half a hundredth of a percent


class MetricRow(NamedTuple):
    name: str
    cells: tuple[str, ...]


def _known(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and math.isfinite(value)


def number(value: Any, digits: int = 2) -> str:
    """Two decimals, three where the number is small; a dash where there is none."""
    if not _known(value):
        return "–"
    places = digits + 1 if digits == 2 and abs(value) < _SMALL else digits
    return f"{value:,.{places}f}".replace("-", "−")


def percent(value: Any) -> str:
    """One decimal, two where the number is small; what rounds to nothing has no sign."""
    if not _known(value):
        return "–"
    shown = 100 * value if abs(value) >= _NOTHING else 0.0
    places = 2 if 0 < abs(shown) < _SMALL else 1
    return f"{shown:,.{places}f}\N{NO-BREAK SPACE}%".replace("-", "−")


def interval(low: Any, high: Any, places: int = 2) -> str:
    """Two numbers as `−0.12 to 0.34`, in one piece."""
    if not (_known(low) and _known(high)):
        return "–"
    return f"{low:,.{places}f} to {high:,.{places}f}".replace("-", "−").replace(" ", "\N{NO-BREAK SPACE}")


def whole(value: Any) -> str:
    return f"{value:,.0f}".replace("-", "−") if _known(value) else "–"
