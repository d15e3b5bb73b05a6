"""Signals from predictions, and backtests of them: one book for each engine, one for the ensemble, one for the benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from tidemill.domain.experiment import StrategySpec
from tidemill.domain.market import Instrument
from tidemill.market.column_files import read_sectors
from tidemill.provenance import fingerprint, source_version
from tidemill.research.attributing import write_attribution
from tidemill.steps.predictions.validity import tradable, validate_predictions
from tidemill.storage.results import write_signals
from tidemill.strategies.benchmark import benchmark_weights
from tidemill.study.freshness import StepReport
from tidemill.study.scoring import books, predicted_by
from tidemill.study.sources import flags_of, instruments_of
from tidemill.study.study import Study
from tidemill.study.tables import BENCHMARK, ENSEMBLE, EQUITY, POSITIONS, PREDICTIONS, SIGNALS, TRADES

if TYPE_CHECKING:
    from tidemill.engine.result import BacktestResult
    from tidemill.strategies.base import Weighed


def _prediction_version(study: Study, key: str) -> str:
    return fingerprint({part: manifest.data_version for part, manifest in study.lake.manifests(PREDICTIONS, key).items()})


def make_signals(study: Study) -> StepReport:
    """Target weights of every book from its predictions, by the experiment's strategy."""
    from tidemill.strategies.registry import source_of

    instruments = instruments_of(study.workspace, study.dataset.venue)
    chosen = resolved(study.experiment.strategy)
    code = source_version("tidemill.strategies.registry", "tidemill.research.trading")
    seen = _bars_print(study) if sees_bars(chosen) else None
    judged = validate_predictions(study)
    worked, table, notes = 0, [], []
    for book, key in books(study).items():
        made_of = (code, source_of(chosen.name), chosen, sorted(instruments.items()), seen, judged.version)
        print_ = fingerprint(made_of, _prediction_version(study, key))
        held = study.lake.manifest(SIGNALS, study.key, book)
        if held is None or held.fingerprint != print_:
            weights, told = _weighed(study, chosen, book, instruments)
            frame = weights.with_columns((pl.col("open_time") + study.dataset.interval.delta).alias("known_at"))
            if book == ENSEMBLE:
                _store_signals(study, frame)
            held = study.lake.write(SIGNALS, study.key, book, frame, fingerprint=print_, metadata={"notes": list(told)})
            worked += 1
        table.append((book, held.rows, held.symbols))
        notes += [f"{book}: {note}" for note in held.metadata.get("notes", ())]
    manifests = study.lake.manifests(SIGNALS, study.key)
    return StepReport(
        worked=worked > 0,
        rows=sum(manifest.rows for manifest in manifests.values()),
        symbols=max((manifest.symbols for manifest in manifests.values()), default=0),
        start=min((manifest.start for manifest in manifests.values() if manifest.start), default=None),
        end=max((manifest.end for manifest in manifests.values() if manifest.end), default=None),
        bytes=sum(manifest.bytes for manifest in manifests.values()),
        data_version=fingerprint({name: manifest.data_version for name, manifest in manifests.items()}),
        code_version=code,
        facts={
            "strategy": chosen.name,
            "neutralised by": chosen.neutralise.by if chosen.neutralise else "nothing",
            "predictions refused": judged.refused,
        },
        columns=("book", "rows", "symbols"),
        table=tuple(table),
        notes=(*judged.sentences(), *notes),
    )


def resolved(spec: StrategySpec) -> StrategySpec:
    """`spec` with the sectors of its file in it, so that their content and not their path decides what is stale."""
    if spec.neutralise is None or spec.neutralise.sector_file is None:
        return spec
    from tidemill.strategies.neutral import with_sectors

    return msgspec.structs.replace(spec, neutralise=with_sectors(spec.neutralise, read_sectors(spec.neutralise.sector_file)))


def sees_bars(spec: StrategySpec) -> bool:
    """Whether the weights depend on bars and not on predictions alone."""
    from tidemill.strategies.registry import strategy

    return strategy(spec.name).needs != "predictions" or (spec.neutralise is not None and spec.neutralise.by == "beta")


def _weighed(study: Study, spec: StrategySpec, book: str, instruments: Mapping[str, Instrument]) -> Weighed:
    from tidemill.strategies.registry import strategy, weigh

    bars = study.adjusted if sees_bars(spec) else None
    # A strategy over bars asks for nothing of the predictions; every book then trades alike.
    over_bars = strategy(spec.name).needs == "bars"
    given = _tested(study, study.adjusted) if over_bars else tradable(study, book, predicted_by(study, book))
    return weigh(spec.name, given, spec.params, instruments, bars=bars, neutralise=spec.neutralise)


def _bars_print(study: Study) -> tuple[str, str]:
    return study.bars_version, fingerprint(study.adjustments.sort("symbol", "ex_time", "kind").rows())


def _store_signals(study: Study, frame: pl.DataFrame) -> None:
    """The ensemble's signals to Postgres: that book is traded; the engines' own serve comparison and stay in the lake."""
    before = study.lake.manifest(SIGNALS, study.key, ENSEMBLE)
    if before is not None:  # what lies in the lake was safe in Postgres before
        held = study.lake.scan(SIGNALS, study.key, partitions=[ENSEMBLE]).select("symbol", "open_time", "weight").collect()
        frame = frame.join(held, on=("symbol", "open_time", "weight"), how="anti")
    labels = {"dataset": study.dataset.key, "strategy": study.experiment.strategy.name, "engine": ENSEMBLE}
    rows = frame.drop_nulls("weight").with_columns(pl.lit(value).alias(name) for name, value in labels.items())
    study.workspace.call(write_signals, study.workspace.database, rows)


def run_backtests(study: Study) -> StepReport:
    """Every book through the kernel over the out-of-sample range, with the experiment's costs."""
    code = source_version("tidemill.engine.backtest", "tidemill.research.trading")
    signals = study.lake.manifests(SIGNALS, study.key)
    inputs = {book: manifest.data_version for book, manifest in signals.items()}
    bars_print = _bars_print(study)
    worked = 0
    for book in (BENCHMARK, *books(study)):  # the others' attribution looks at its returns
        print_ = fingerprint(
            code, inputs.get(book), bars_print, study.experiment.costs, study.experiment.benchmark, study.folds
        )
        held = study.lake.manifest(EQUITY, study.key, book)
        if held is None or held.fingerprint != print_:
            _write_book(study, book, _run_book(study, book), print_)
            worked += 1
    return _backtest_report(study, worked=worked > 0, code=code, inputs=inputs)


def _traded_bars(study: Study) -> pl.DataFrame:
    """Bars from the first test window on: nothing before it may be traded, since every prediction there would be in sample."""
    return study.once("traded", lambda: _tested(study, study.bars))


def _tested(study: Study, bars: pl.DataFrame) -> pl.DataFrame:
    return bars.filter(pl.col("open_time") >= study.folds[0].test_start)


def _run_book(study: Study, book: str) -> BacktestResult:
    from tidemill.engine.backtest import Inputs, Options, backtest_panel  # numba: 0.3 s that a run with nothing to do saves
    from tidemill.engine.panel import bars_panel, weights_panel
    from tidemill.strategies.registry import strategy

    bars, spec, interval = _traded_bars(study), study.experiment.strategy, study.dataset.interval
    weights = (
        benchmark_weights(bars, study.experiment.benchmark)
        if book == BENCHMARK
        else study.lake.scan(SIGNALS, study.key, partitions=[book]).select("symbol", "open_time", "weight").collect()
    )
    panel = study.once("panel", lambda: bars_panel(bars, interval))  # of all books
    targets, stray = weights_panel(weights, panel.axes)
    flags = flags_of(study)
    suspected = flags.filter((pl.col("flag") == "suspected_action") & (pl.col("open_time") >= study.folds[0].test_start))
    inputs = Inputs(
        panel,
        targets,
        interval,
        instruments=study.once("instruments", lambda: instruments_of(study.workspace, study.dataset.venue)),
        adjustments=study.adjustments.filter(pl.col("ex_time") >= study.folds[0].test_start),
        suspected=suspected.select("symbol", "open_time") if suspected.height else None,
        stray_weights=stray,
    )
    resize = book == BENCHMARK or spec.neutralise is not None or strategy(spec.name).resize
    return backtest_panel(inputs, study.experiment.costs, Options(resize=resize))


def _write_book(study: Study, book: str, result: BacktestResult, print_: str) -> None:
    equity = result.equity.join(result.returns, on="time", how="left").join(
        result.gross_returns.rename({"return": "gross_return"}), on="time", how="left"
    )
    study.lake.write(TRADES, study.key, book, result.trades, fingerprint=print_)
    study.lake.write(POSITIONS, study.key, book, result.positions, fingerprint=print_)
    if book != BENCHMARK:
        write_attribution(study, book, result, print_)
    # The equity comes last: its manifest says that the book is whole.
    study.lake.write(EQUITY, study.key, book, equity, fingerprint=print_, metadata=book_facts(result))


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
        "notes": list(result.notes),
        "final_equity_with_suspected": beside.final_equity if beside is not None else None,
    }


def _backtest_report(study: Study, *, worked: bool, code: str, inputs: dict[str, str]) -> StepReport:
    manifests = study.lake.manifests(EQUITY, study.key)
    rows = []
    for book in (*books(study), BENCHMARK):
        facts = manifests[book].metadata
        rows.append((book, facts["final_equity"], facts["max_drawdown"], facts["trades"], facts["fees"], facts["slippage"],
                     facts["borrow"], facts["turnover"]))  # fmt: skip
    ensemble = manifests[ENSEMBLE]
    return StepReport(
        worked=worked,
        rows=ensemble.rows,
        start=study.folds[0].test_start,
        end=study.folds[-1].test_end,
        bytes=sum(manifest.bytes for manifest in manifests.values()),
        data_version=fingerprint({name: manifest.data_version for name, manifest in manifests.items()}),
        code_version=code,
        inputs=inputs,
        facts={
            "capital": study.experiment.costs.capital,
            "fee bps": study.experiment.costs.fee_bps,
            "slippage bps": study.experiment.costs.slippage_bps,
        },
        columns=("book", "final equity", "maximum drawdown", "trades", "fees", "slippage", "borrow", "turnover a year"),
        table=tuple(rows),
        notes=tuple(f"{ENSEMBLE}: {note}" for note in ensemble.metadata["notes"]),
    )
