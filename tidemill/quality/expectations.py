"""What is expected of bars, features and predictions, as data: cheap to import, so that a graph can declare its checks from it.

Each expectation looks at one column of the table that `views` makes of a frame. A share below 1 in `mostly` allows exceptions.
"""

from typing import Any, Literal

import msgspec

SuiteName = Literal["bars", "features", "predictions"]
Severity = Literal["critical", "warning"]


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """`kind` names a Great Expectations class, `options` are its arguments. A failed critical one blocks what is downstream."""

    id: str
    title: str
    kind: str
    options: dict[str, Any]
    severity: Severity = "critical"


def _rows(suite: str, what: str) -> Expected:
    return Expected(
        id=f"{suite}.rows", title=f"There are {what}", kind="ExpectTableRowCountToBeBetween", options={"min_value": 1}
    )


def _filled(suite: str, column: str, title: str, mostly: float = 1.0, severity: Severity = "critical") -> Expected:
    name = column if mostly == 1.0 else f"{column}_{severity}"
    return Expected(
        id=f"{suite}.{name}_filled",
        title=title,
        kind="ExpectColumnValuesToNotBeNull",
        options={"column": column, "mostly": mostly},
        severity=severity,
    )


def _between(
    suite: str, name: str, title: str, column: str, *, severity: Severity = "critical", mostly: float = 1.0, **bounds: Any
) -> Expected:
    return Expected(
        id=f"{suite}.{name}",
        title=title,
        kind="ExpectColumnValuesToBeBetween",
        options={"column": column, "mostly": mostly, **bounds},
        severity=severity,
    )


def _unique(suite: str, *columns: str) -> Expected:
    return Expected(
        id=f"{suite}.key_unique",
        title=f"No two rows share {', '.join(columns)}",
        kind="ExpectCompoundColumnsToBeUnique",
        options={"column_list": list(columns)},
    )


def _known_later(suite: str) -> Expected:
    return Expected(
        id=f"{suite}.known_after_open",
        title="Nothing is known before its bar opens",
        kind="ExpectColumnPairValuesAToBeGreaterThanB",
        options={"column_A": "known_at", "column_B": "open_time", "or_equal": True},
    )


_PRICES = ("open", "high", "low", "close")
_BARS = (
    _rows("bars", "bars"),
    _unique("bars", "symbol", "open_time"),
    _filled("bars", "symbol", "Every bar has a symbol"),
    _filled("bars", "open_time", "Every bar has an open time"),
    *(_filled("bars", price, f"Every bar has a {price}") for price in _PRICES),
    *(
        _between("bars", f"{price}_positive", f"Every {price} is positive and finite", price,
                 min_value=0, strict_min=True, max_value=1e18)
        for price in _PRICES
    ),
    _filled("bars", "volume", "Every bar has a volume"),
    _between("bars", "volume_not_negative", "No volume is negative", "volume", min_value=0),
    _between("bars", "high_is_highest", "No price is above the high", "below_high", min_value=0),
    _between("bars", "low_is_lowest", "No price is below the low", "above_low", min_value=0),
    _known_later("bars"),
    _between("bars", "traded", "At most a fifth of the bars had no trade", "volume",
             severity="warning", mostly=0.8, min_value=0, strict_min=True),
    _between("bars", "moves", "At most one close in a thousand moves by more than 35 %", "move",
             severity="warning", mostly=0.999, min_value=-0.35, max_value=0.35),
)  # fmt: skip

_FEATURES = (
    _rows("features", "features"),
    _between("features", "bars", "Every feature has rows", "rows", min_value=1),
    _between("features", "key_unique", "No two rows share symbol, open_time", "repeated_keys", max_value=0),
    _filled("features", "finite_share", "Every feature could be measured"),
    # A partition of the first weeks is warm-up for the long windows: that half of the features are there must do.
    _between("features", "finite", "Half of the features are a number somewhere", "finite_share",
             mostly=0.5, min_value=0, strict_min=True),
    _between("features", "no_infinity", "No feature is infinite", "infinite", max_value=0),
    _between("features", "each_finite", "Every feature is a number in a tenth of its rows", "finite_share",
             severity="warning", min_value=0.1),
    _between("features", "mostly_finite", "Nine features in ten are a number in 80 % of their rows", "finite_share",
             severity="warning", mostly=0.9, min_value=0.8),
    _between("features", "last_finite", "Nine features in ten are a number in half of the last bar's rows", "last_finite_share",
             severity="warning", mostly=0.9, min_value=0.5),
    _between("features", "varies", "No feature is constant", "deviation", severity="warning", min_value=0, strict_min=True),
    _between("features", "magnitude", "No feature exceeds 1e15", "largest", severity="warning", max_value=1e15),
)  # fmt: skip

_PREDICTIONS = (
    _rows("predictions", "predictions"),
    _unique("predictions", "engine", "symbol", "open_time"),
    _filled("predictions", "symbol", "Every prediction has a symbol"),
    _filled("predictions", "open_time", "Every prediction has a bar"),
    _filled("predictions", "engine", "Every prediction names its engine"),
    _filled("predictions", "model_id", "Every prediction names its model"),
    _known_later("predictions"),
    _filled("predictions", "prediction", "Half of the predictions are numbers", mostly=0.5),
    _filled("predictions", "prediction", "95 % of the predictions are numbers", mostly=0.95, severity="warning"),
    _between("predictions", "range", "Every prediction lies between -1000 and 1000", "prediction",
             min_value=-1e3, max_value=1e3),
    _between("predictions", "no_infinity", "No prediction is infinite", "infinite", max_value=0),
    Expected(
        id="predictions.varies",
        title="The predictions are not all the same",
        kind="ExpectColumnUniqueValueCountToBeBetween",
        options={"column": "prediction", "min_value": 2},
        severity="warning",
    ),
    _between("predictions", "ranks_symbols", "At nine bars in ten some symbols are preferred", "spread",
             severity="warning", mostly=0.9, min_value=0, strict_min=True),
)  # fmt: skip

SUITES: dict[SuiteName, tuple[Expected, ...]] = {"bars": _BARS, "features": _FEATURES, "predictions": _PREDICTIONS}
