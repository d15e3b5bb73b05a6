"""The columns of a feature set in which functions of a user's module have a part, in batch and as a live session gets them.

A function is run over all bars at once, or, where a state is given, over the new bars and as many earlier ones as its declared
look-back needs.
"""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

from tidemill.domain.errors import InputError, IntegrityError, TidemillError

if TYPE_CHECKING:
    import polars as pl

    from tidemill.features.external import Function
    from tidemill.features.feature_set import FeatureSet
    from tidemill.features.state import FeatureState

_NEW = "__new"


def compute_with_functions(
    bars: pl.DataFrame, features: FeatureSet, state: FeatureState | None, left_out: dict[str, str] | None
) -> tuple[pl.DataFrame, FeatureState]:
    """What `features.api.compute` answers for a set in which functions have a part."""
    import polars as pl

    from tidemill.features.batch import compute_frame

    if state is not None and features.whole_history:
        raise InputError(
            f"The function {features.whole_history[0]} declares no look-back, so it needs all bars from the first. "
            "Compute without a state, or declare lookback=…"
        )
    compiled = features.compiled
    frame, later = compute_frame(bars, compiled, _compiled_part(state, features))
    ordered = bars if _sorted(bars) else bars.sort("symbol", "open_time")
    seen = _with_tail(ordered, state)
    columns = [frame]
    for function in features.functions:
        try:
            columns.append(_new_rows(function, seen).select(pl.col(function.columns)))
        except TidemillError as exc:
            if left_out is None:
                raise
            left_out |= dict.fromkeys((name for name in function.columns if name in features.names), str(exc))
    whole = pl.concat(columns, how="horizontal")
    kept = [name for name in features.names if name in whole.columns]
    tail = b"" if features.whole_history else _tail(seen, max(map(_kept, features.functions)))
    return whole.select("symbol", "open_time", *kept), replace(later, fingerprint=features.fingerprint, tail=tail)


def _compiled_part(state: FeatureState | None, features: FeatureSet) -> FeatureState | None:
    if state is None:
        return None
    if state.fingerprint != features.fingerprint:
        raise IntegrityError(
            "The stored state belongs to another feature set. Compute the features again from the start of the history."
        )
    return replace(state, fingerprint=features.compiled.fingerprint, tail=b"")


def _sorted(bars: pl.DataFrame) -> bool:
    import polars as pl

    later = (pl.col("symbol") > pl.col("symbol").shift(1)) | (
        (pl.col("symbol") == pl.col("symbol").shift(1)) & (pl.col("open_time") > pl.col("open_time").shift(1))
    )
    return bool(bars.select(later.fill_null(value=True).all()).item())


def _with_tail(bars: pl.DataFrame, state: FeatureState | None) -> pl.DataFrame:
    """The bars, marked as new, behind the earlier ones that `state` keeps."""
    import polars as pl

    marked = bars.with_columns(pl.lit(True).alias(_NEW))
    if state is None or not state.tail:
        return marked
    earlier = pl.read_ipc_stream(io.BytesIO(state.tail)).with_columns(pl.lit(False).alias(_NEW))
    return pl.concat([earlier, marked], how="diagonal_relaxed").sort("symbol", "open_time")


def _new_rows(function: Function, seen: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    answer = function.run(seen.drop(_NEW))
    return answer.with_columns(seen[_NEW]).filter(pl.col(_NEW)).drop(_NEW)


def _kept(function: Function) -> int:
    """Bars of a symbol that the next bar's value may read beside it: one more by tail, where this symbol has no next bar."""
    return (function.lookback or 1) - (not function.by_tail)


def _tail(seen: pl.DataFrame, count: int) -> bytes:
    """The last bars of every symbol, as an Arrow stream."""
    buffer = io.BytesIO()
    seen.drop(_NEW).group_by("symbol", maintain_order=True).tail(count).select(seen.drop(_NEW).columns).write_ipc_stream(buffer)
    return buffer.getvalue()


def stream_functions(bars: pl.DataFrame, features: FeatureSet, left_out: dict[str, str]) -> pl.DataFrame:
    """The columns of the functions as a live session gets them: at each bar time from the last bars of every symbol, as many
    as the declared look-back, all of them without one. Rows by symbol and time; `left_out` takes what fails.
    """
    import polars as pl

    ordered = bars.sort("symbol", "open_time")
    columns = [ordered.select("symbol", "open_time")]
    for function in features.functions:
        try:
            columns.append(_streamed(ordered, function).select(pl.col(function.columns)))
        except TidemillError as exc:
            left_out |= dict.fromkeys((name for name in function.columns if name in features.names), str(exc))
    return pl.concat(columns, how="horizontal")


def _streamed(bars: pl.DataFrame, function: Function) -> pl.DataFrame:
    import polars as pl

    if function.by_tail:
        return function.run(bars)  # which is a session's way already
    rows = []
    for moment in bars["open_time"].unique().sort():
        known = bars.filter(pl.col("open_time") <= moment)
        if function.lookback is not None:
            known = known.group_by("symbol", maintain_order=True).tail(function.lookback).select(bars.columns)
        rows.append(function.run(known).filter(pl.col("open_time") == moment))
    return pl.concat(rows).sort("symbol", "open_time") if rows else function.run(bars)
