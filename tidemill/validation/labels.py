"""Labels: what a prediction is about, by name, and the moment at which it is known.

`forward_return` is the return from the price at which the kernel would fill. A user's module may declare further ones.
"""

from collections.abc import Callable, Mapping

import msgspec
import polars as pl

from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.intervals import Interval
from tidemill.validation.panel import require_columns, require_panel

LABEL_COLUMNS = ("symbol", "open_time", "label", "label_end_at")
FORWARD_RETURN = "forward_return"


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """A label of a user's module. run: adjusted bars, sorted → a frame of one row a bar, in their order, its values in the
    column `name`. source: hash of the code that decides them.
    """

    name: str
    horizon: int
    run: Callable[[pl.DataFrame], pl.DataFrame]
    source: str
    about: str = ""


class Labels(msgspec.Struct, frozen=True):
    """own: labels of a user's files by name; they go beside `forward_return`."""

    own: Mapping[str, Label] = {}

    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (FORWARD_RETURN, *sorted(self.own))

    def find(self, name: str) -> Label | None:
        """The label of that name; None for `forward_return`. UnknownNameError when there is none."""
        if name not in self.names():
            raise UnknownNameError("label", name, self.names())
        return self.own.get(name)


def require_free(name: str) -> None:
    """InputError when a label that ships has this name."""
    if name == FORWARD_RETURN:
        raise InputError(f"There is already a label named {name!r}. Choose another name.")


def forward_return(
    bars_adjusted: pl.DataFrame, horizon: int, interval: Interval, *, suspected: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Simple return from the next open to the open `horizon` of the symbol's own bars after it.

    A row at bar t enters at the open of the symbol's bar t + 1 and leaves at the open of its bar t + 1 + horizon.

    bars_adjusted: `symbol, open_time, open`, prices on a total-return basis, sorted by (symbol, open_time).
    horizon: own bars held, at least 1. A missing bar is no bar: the window then spans more time.
    interval: of the bars; times off its grid are refused, since they would make the horizon mean something else.
    suspected: marks `symbol, open_time`, each the first bar after a move that may be an unrecorded corporate action
        (NUMBERS, Fills and accounts). A label whose holding period crosses a mark is null.

    Returns `symbol, open_time, label, label_end_at`, one row for each bar and in its order. `label_end_at` is the open time of
    the exit bar, at which the label is known. Both are null where the future is not known yet, where a price is null,
    non-finite or not positive, and across a mark.

    Raises InputError for a horizon below 1 and for a frame that is not a sorted panel.
    """
    if horizon < 1:
        raise InputError(f"The label horizon is {horizon}; give the number of bars to hold, at least 1.")
    require_panel(bars_adjusted, "bars frame")
    require_columns(bars_adjusted, ("open",), "bars frame")
    _require_grid(bars_adjusted, interval)
    entry = pl.col("open").shift(-1).over("symbol")
    leave = pl.col("open").shift(-1 - horizon).over("symbol")
    known = entry.is_finite() & leave.is_finite() & (entry > 0) & (leave > 0) & ~crosses(horizon)
    return (
        bars_adjusted.select("symbol", "open_time", pl.col("open").cast(pl.Float64), marks_so_far(bars_adjusted, suspected))
        .with_columns(
            pl.when(known).then(leave / entry - 1.0).alias("label"),
            pl.when(known).then(pl.col("open_time").shift(-1 - horizon).over("symbol")).alias("label_end_at"),
        )
        .select(LABEL_COLUMNS)
    )


def crosses(horizon: int) -> pl.Expr:
    """Whether a mark lies within the holding period of a row's label: after its entry, up to its exit. Needs `marks_so_far`."""
    return pl.col("marks").shift(-1 - horizon).over("symbol") != pl.col("marks").shift(-1).over("symbol")


def marks_so_far(bars: pl.DataFrame, suspected: pl.DataFrame | None) -> pl.Series:
    """`marks`: for each bar, how many marks (`symbol, open_time`) its symbol has had up to and including it."""
    if suspected is None:
        return pl.zeros(bars.height, dtype=pl.Int64, eager=True).alias("marks")
    require_columns(suspected, ("symbol", "open_time"), "frame of suspected corporate actions")
    marks = suspected.select("symbol", pl.col("open_time").cast(bars.schema["open_time"]), pl.lit(1).alias("mark")).unique()
    joined = bars.select("symbol", "open_time").join(marks, on=("symbol", "open_time"), how="left", maintain_order="left")
    counted = joined.select(pl.col("mark").fill_null(0).cast(pl.Int64).cum_sum().over("symbol").alias("marks"))
    return counted["marks"]


def _require_grid(bars: pl.DataFrame, interval: Interval) -> None:
    offset = (bars["open_time"].to_physical() - interval.origin_microseconds) % interval.step_microseconds
    if (offset != 0).any():
        raise InputError(f"The bars do not lie on the grid of {interval}. Give the interval they were built with.")
