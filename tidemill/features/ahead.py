"""Features that look ahead, evaluated: what the kernels refuse to compute, a proof must be able to show.

Every operator answers the same when all it reads lies `n` bars earlier. So an expression that reaches `n` bars ahead is
computed as it was `n` bars ago, which reaches nowhere, and its rows are moved back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidemill.features.api import FeatureSet, compute
from tidemill.features.declaration import Feature
from tidemill.features.expression import Expression

if TYPE_CHECKING:
    import polars as pl


def reach(expression: Expression) -> int:
    """How many own bars after its own an expression reads; 0 when it does not look ahead."""
    inner = max((reach(argument) for argument in expression.arguments), default=0)
    return max(inner - int(expression.parameters[0]), 0) if expression.operator == "ref" else inner


def earlier(expression: Expression, bars: int) -> Expression:
    """What `expression` was `bars` own bars ago, at least its `reach`: an expression without a negative `ref`."""
    if expression.operator == "ref":
        return earlier(expression.arguments[0], bars + int(expression.parameters[0]))
    if expression.operator == "column" and bars:
        return Expression("ref", (expression,), (float(bars),))
    if not expression.arguments:
        return expression
    return Expression(expression.operator, tuple(earlier(one, bars) for one in expression.arguments), expression.parameters)


def compute_ahead(bars: pl.DataFrame, features: tuple[Feature, ...]) -> pl.DataFrame:
    """symbol, open_time and the features, which may look ahead; NaN where the bars to be looked at are not there."""
    import polars as pl

    reaches = {feature.name: reach(feature.expression) for feature in features}
    moved = tuple(
        Feature(feature.name, earlier(feature.expression, reaches[feature.name]), feature.unit, feature.about)
        for feature in features
    )
    frame = compute(bars.sort("symbol", "open_time"), FeatureSet(moved))[0]
    later = [pl.col(name).shift(-by).over("symbol").fill_null(float("nan")) for name, by in reaches.items()]
    return frame.with_columns(later)
