"""Pictures of the report as inline SVG: text stays text, axes take the colour of the page, so light and dark both work."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_POINTS = 700
_INK = "#010203"  # replaced by the page's own text colour
_OURS, _THEIRS, _UP, _DOWN = "#2f81c7", "#d9822b", "#2f81c7", "#c4504a"
_SETTINGS: Any = {"svg.fonttype": "none", "font.size": 9, "font.family": "sans-serif", "svg.hashsalt": "tidemill"}
EMPTY = ""


def _figure() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure  # without pyplot: no global state, no display

    figure = Figure(figsize=(4.9, 2.9), layout="constrained")
    figure.patch.set_alpha(0.0)
    axes = figure.subplots()
    axes.patch.set_alpha(0.0)
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(_INK)
    axes.tick_params(colors=_INK, which="both")
    axes.grid(axis="y", color=_INK, alpha=0.15, linewidth=0.6)
    return figure, axes


def _svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an `svg` element; ids carry `name`, since all pictures share one page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", text, count=1)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1).replace(_INK, "currentColor")


def _thinned(frame: pl.DataFrame) -> pl.DataFrame:
    """At most about `_POINTS` rows, the last among them."""
    step = max(frame.height // _POINTS, 1)
    return frame[sorted({*range(0, frame.height, step), frame.height - 1})]


def _time_axis(axes: Axes) -> None:
    from matplotlib import dates

    untyped: Any = dates  # matplotlib leaves these two without annotations
    locator = untyped.AutoDateLocator(minticks=2, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(untyped.ConciseDateFormatter(locator))
    axes.xaxis.get_offset_text().set_color(_INK)


def _log_axis(axes: Axes, low: float, high: float) -> None:
    """A logarithmic axis with a few round values, 1 among them."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    steps = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0) if high / low < 20.0 else (1.0, 3.0) if high / low < 1_000.0 else (1.0,)
    ticks = [step * 10.0**power for power in range(-9, 10) for step in steps if low * 0.95 <= step * 10.0**power <= high * 1.05]
    axes.set_yscale("log")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in ticks]))


def _legend(axes: Axes) -> None:
    axes.legend(framealpha=0.8, edgecolor="none", fontsize=8, labelcolor=_INK, loc="best")  # readable where no place is free


def _lines(equity: pl.DataFrame, benchmark: pl.DataFrame | None, ours: str, theirs: str) -> list[tuple[str, str, pl.DataFrame]]:
    lines = [(ours, _OURS, equity)]
    if benchmark is not None and not benchmark.is_empty():
        lines.insert(0, (f"Benchmark: {theirs}", _THEIRS, benchmark))
    return lines


def equity(frame: pl.DataFrame, benchmark: pl.DataFrame | None, ours: str, theirs: str) -> str:
    """Growth of 1; logarithmic where something more than doubled or halved and nothing was lost altogether."""
    import matplotlib

    if frame.is_empty():
        return EMPTY
    with matplotlib.rc_context(_SETTINGS):
        figure, axes = _figure()
        values = []
        for label, colour, one in _lines(frame, benchmark, ours, theirs):
            thin = _thinned(one)
            growth = thin.get_column("equity").to_numpy() / float(one.get_column("equity")[0])
            axes.plot(thin.get_column("time").to_list(), growth, color=colour, linewidth=1.3, label=label)
            values.append(growth)
        span = np.concatenate(values)
        if span.min() > 0.0 and span.max() / span.min() > 2.0:
            _log_axis(axes, float(span.min()), float(span.max()))
        axes.axhline(1.0, color=_INK, linewidth=0.6, alpha=0.5)
        _time_axis(axes)
        _legend(axes)
        return _svg(figure, "equity", "Growth of 1 over time, the portfolio and the benchmark")


def drawdown(frame: pl.DataFrame, benchmark: pl.DataFrame | None, ours: str, theirs: str) -> str:
    """Percent below the highest equity so far."""
    import matplotlib

    if frame.is_empty():
        return EMPTY
    with matplotlib.rc_context(_SETTINGS):
        figure, axes = _figure()
        for label, colour, one in _lines(frame, benchmark, ours, theirs):
            values = one.get_column("equity").to_numpy()
            fallen = one.with_columns(drawdown=100.0 * (values / np.maximum.accumulate(values) - 1.0))
            thin = _thinned(fallen)
            times, depth = thin.get_column("time").to_list(), thin.get_column("drawdown").to_numpy()
            axes.plot(times, depth, color=colour, linewidth=1.1, label=label)
            if colour == _OURS:
                axes.fill_between(times, depth, 0.0, color=colour, alpha=0.2, linewidth=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
        _time_axis(axes)
        _legend(axes)
        return _svg(figure, "drawdown", "Percent below the highest equity so far")


def ic_by_month(frame: pl.DataFrame | None) -> str:
    """Rank IC of each month as bars."""
    import matplotlib

    if frame is None or frame.is_empty():
        return EMPTY
    with matplotlib.rc_context(_SETTINGS):
        figure, axes = _figure()
        values = frame.get_column("rank_ic").fill_null(0.0).to_numpy()
        places = np.arange(len(values))
        axes.bar(places, values, color=np.where(values >= 0.0, _UP, _DOWN), width=0.85)
        axes.axhline(0.0, color=_INK, linewidth=0.6)
        months = frame.get_column("month").to_list()
        step = -(-len(months) // 6)  # six labels at most: more run into each other
        axes.set_xticks(places[::step], months[::step])
        return _svg(figure, "ic", "Mean rank information coefficient of each month")


def quantile_returns(frame: pl.DataFrame | None) -> str:
    """Mean label of each quantile as bars, in percent."""
    import matplotlib

    if frame is None or frame.is_empty():
        return EMPTY
    with matplotlib.rc_context(_SETTINGS):
        figure, axes = _figure()
        values = 100.0 * frame.get_column("mean_return").fill_null(0.0).to_numpy()
        quantiles = frame.get_column("quantile").to_list()
        axes.bar([str(item) for item in quantiles], values, color=np.where(values >= 0.0, _UP, _DOWN), width=0.7)
        axes.axhline(0.0, color=_INK, linewidth=0.6)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
        axes.set_xlabel("quantile of the prediction, 1 the lowest", color=_INK)
        return _svg(figure, "quantiles", "Mean return of each quantile of predictions")
