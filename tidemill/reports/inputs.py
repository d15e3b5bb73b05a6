"""What a report is made of: frames, figures and sentences, and no study."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import polars as pl


class DataFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The bars that a report stands on. actions: splits and dividends. rows_refused: reason → rows of the source that are in no
    table; flags: what is marked and kept → bars.
    """

    bars: int
    symbols: int
    first_bar: datetime
    last_bar: datetime
    calendars: tuple[str, ...]
    rows_refused: Mapping[str, int] = {}
    gaps: int
    missing_bars: int
    actions: int
    flags: Mapping[str, int] = {}


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """What the figures were made of: fingerprints and versions. engines: name → version of its code; libraries likewise."""

    experiment: str
    seed: int
    bars: str
    features: str
    feature_definitions: str
    labels: str
    engines: Mapping[str, str]
    libraries: Mapping[str, str]
    written: datetime


class ReportInputs(msgspec.Struct, frozen=True, kw_only=True):
    """What a report is made of. Frames are polars; anything that is None or empty leaves its section out, saying so.

    title: the experiment's name. dataset, strategy, benchmark: in words. book: the portfolio that the report is
    about. horizon: of the label, in bars of `interval`. equity, benchmark_equity: time, equity. metrics, benchmark_metrics:
    the names of `performance_metrics`. benchmark_invested: share of its capital that it bought for. facts: totals of the
    book: capital, final_equity, fees, slippage, borrow, dividends, turnover, trades, orders, and
    final_equity_with_suspected where it differs. engines: one row each with `book` and any of the columns that
    `report_engines` shows. ic_by_month: month, ic, rank_ic. quantile_returns: quantile, mean_return. folds: fold,
    trained_from, trained_to, tested_from, tested_until. survivorship: whether the universe holds only what survived, None
    if nobody knows. biases, notes: sentences. attribution: part, name, profit, return; rejections: book, why, predictions.
    missing: sentences about engines that failed. stopped: sentences about what kept the book from its positions: its
    limits, neutrality.
    """

    title: str
    dataset: str
    interval: str
    horizon: int
    strategy: str
    book: str
    benchmark: str
    symbols: int
    equity: pl.DataFrame
    metrics: dict[str, float | None]
    facts: dict[str, Any]
    engines: pl.DataFrame
    benchmark_equity: pl.DataFrame | None = None
    benchmark_metrics: dict[str, float | None] = {}
    benchmark_invested: float | None = None
    ic_by_month: pl.DataFrame | None = None
    quantile_returns: pl.DataFrame | None = None
    attribution: pl.DataFrame | None = None
    rejections: pl.DataFrame | None = None
    folds: pl.DataFrame | None = None
    embargo: int | None = None
    data: DataFacts | None = None
    survivorship: bool | None = None
    missing: tuple[str, ...] = ()
    stopped: tuple[str, ...] = ()
    biases: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    provenance: Provenance | None = None
    currency: str = "USD"
