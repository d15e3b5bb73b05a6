"""Backtests of the signals: one book for each engine, one for the ensemble, one for the benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from tidemill.provenance import fingerprint
from tidemill.steps.trading.attribution import is_attributed, write_attribution
from tidemill.study import code as code_of
from tidemill.study.book import bars_versions, benchmark_book, tested, traded
from tidemill.study.freshness import StepReport, Table, drop_others, stale, stored
from tidemill.study.scoring import books
from tidemill.study.study import Study
from tidemill.study.tables import ATTRIBUTION, BENCHMARK, ENSEMBLE, EQUITY, POSITIONS, SIGNALS, TRADES

if TYPE_CHECKING:
    from tidemill.backtest.result import BacktestResult


class BacktestFacts(msgspec.Struct, frozen=True, kw_only=True):
    """capital: in the quote currency. fee_bps, slippage_bps: basis points, one way."""

    capital: float
    fee_bps: float
    slippage_bps: float


def run_backtests(study: Study) -> StepReport[BacktestFacts]:
    """Every book through the kernel over the out-of-sample range, with the experiment's costs."""
    code = code_of.backtests()
    signals = study.lake.manifests(SIGNALS, study.key)
    inputs = {book: manifest.data_version for book, manifest in signals.items()}
    versions, tables = bars_versions(study), [Table(name, study.key) for name in (TRADES, POSITIONS, EQUITY)]
    worked = 0
    for book in (BENCHMARK, *books(study)):  # the others' attribution looks at its returns
        book_fingerprint = fingerprint(
            code, inputs.get(book), versions, study.experiment.costs, study.experiment.benchmark, study.folds
        )
        if stale(study.lake, tables, {book: book_fingerprint}) or (
            book != BENCHMARK and not is_attributed(study, book, book_fingerprint)
        ):
            _write_book(study, book, _run_book(study, book), book_fingerprint)
            worked += 1
    drop_others(study.lake, [*tables, Table(ATTRIBUTION, study.key)], (BENCHMARK, *books(study)))
    return _backtest_report(study, worked=worked > 0, code=code, inputs=inputs)


def _run_book(study: Study, book: str) -> BacktestResult:
    if book == BENCHMARK:
        return benchmark_book(study, tested(study))
    weights = study.lake.scan(SIGNALS, study.key, partitions=[book]).select("symbol", "open_time", "weight").collect()
    return traded(study, weights, tested(study))


def _write_book(study: Study, book: str, result: BacktestResult, book_fingerprint: str) -> None:
    equity = result.equity.join(result.returns, on="time", how="left").join(
        result.gross_returns.rename({"return": "gross_return"}), on="time", how="left"
    )
    study.lake.write(TRADES, study.key, book, result.trades, fingerprint=book_fingerprint)
    study.lake.write(POSITIONS, study.key, book, result.positions, fingerprint=book_fingerprint)
    if book != BENCHMARK:  # which is the market, of which nothing is attributed
        write_attribution(study, book, result, book_fingerprint)
    study.lake.write(EQUITY, study.key, book, equity, fingerprint=book_fingerprint, metadata=book_facts(result))


def book_facts(result: BacktestResult) -> dict[str, Any]:
    """Totals of a book, in the quote currency where they are money."""
    beside = result.with_suspected
    return {
        "capital": result.capital,
        "final_equity": result.final_equity,
        "fees": result.fees,
        "slippage": result.slippage,
        "borrow": result.borrow,
        "dividends": result.dividends,
        "costs": result.costs,
        "traded": result.traded,
        "turnover": result.turnover,
        "years": result.years,
        "max_drawdown": result.max_drawdown,
        "trades": result.trades.height,
        "orders": result.orders,
        "clips": result.clips,
        "limits": msgspec.to_builtins(result.limits),
        "notes": list(result.notes),
        "final_equity_with_suspected": beside.final_equity if beside is not None else None,
    }


_SHOWN = ("final_equity", "max_drawdown", "trades", "fees", "slippage", "borrow", "turnover")


def _backtest_report(study: Study, *, worked: bool, code: str, inputs: dict[str, str]) -> StepReport[BacktestFacts]:
    manifests, costs = study.lake.manifests(EQUITY, study.key), study.experiment.costs
    return stored(
        manifests,
        worked=worked,
        rows=manifests[ENSEMBLE].rows,
        start=study.folds[0].test_start,
        end=study.folds[-1].test_end,
        code_version=code,
        inputs=inputs,
        facts=BacktestFacts(capital=costs.capital, fee_bps=costs.fee_bps, slippage_bps=costs.slippage_bps),
        columns=("book", "final_equity", "maximum_drawdown", "trades", "fees", "slippage", "borrow", "turnover_a_year"),
        table=tuple((book, *(manifests[book].metadata[name] for name in _SHOWN)) for book in (*books(study), BENCHMARK)),
        notes=tuple(f"{ENSEMBLE}: {note}" for note in manifests[ENSEMBLE].metadata["notes"]),
    )
