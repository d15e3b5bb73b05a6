"""Attribution of every book of a study: by costs, market and symbol, and the ensemble's by engine; kept in the lake."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import polars as pl
from msgspec import UNSET, UnsetType

from tidemill.metrics.attribution import ENGINES, SYMBOLS, Earned, attribution, by_engine, engine_shares
from tidemill.models.ensemble import ranks
from tidemill.provenance import fingerprint
from tidemill.storage.content import content_version
from tidemill.study import code as code_of
from tidemill.study.freshness import Table, drop_others, is_made_of, stale
from tidemill.study.model_index import models_home, read_index, stored_weights
from tidemill.study.study import Study
from tidemill.study.tables import ATTRIBUTION, BENCHMARK, ENGINE_SHARES, ENSEMBLE, EQUITY, PREDICTIONS, SIGNALS, partition_of

if TYPE_CHECKING:
    from tidemill.backtest.result import BacktestResult

SHOWN_SYMBOLS = 5


def attribution_of(result: BacktestResult, market: pl.DataFrame | None = None) -> tuple[pl.DataFrame, float]:
    """part, name, profit, return of a backtest, and its beta. market: time, return; by default the mean of the closes traded.

    The convention is that of `metrics.attribution`: cash, and the same over the starting capital; every part adds up.
    """
    return _attributed(result, result.market_returns if market is None else market, None)


def _attributed(result: BacktestResult, market: pl.DataFrame, engines: pl.DataFrame | None) -> tuple[pl.DataFrame, float]:
    rows = result.equity.join(market.select("time", "return"), on="time", how="left", maintain_order="left")
    earned = Earned(
        capital=result.capital,
        equity=result.equity_values,
        fees=result.fees,
        slippage=result.slippage,
        borrow=result.borrow,
        symbols=result.contributions,
    )
    returns = rows["return"].fill_null(float("nan")).to_numpy()
    return attribution(earned, returns, engines)


def write_attribution(study: Study, book: str, result: BacktestResult, book_fingerprint: str) -> None:
    """Attribution of one book into the lake; the benchmark's book is the market and must be there."""
    market = study.lake.scan(EQUITY, study.key, partitions=[BENCHMARK]).select("time", "return").collect()
    engines = _engine_profits(study, result) if book == ENSEMBLE else None
    frame, beta = _attributed(result, market, engines)
    study.lake.write(
        ATTRIBUTION,
        study.key,
        book,
        frame,
        fingerprint=_attribution_fingerprint(study, book, book_fingerprint),
        metadata={"beta": beta},
    )


def is_attributed(study: Study, book: str, book_fingerprint: str) -> bool:
    """Whether it is kept of a book, made of it and of those who wanted its positions."""
    if stale(study.lake, [Table(ATTRIBUTION, study.key)], {book: _attribution_fingerprint(study, book, book_fingerprint)}):
        return False
    return (
        book != ENSEMBLE
        or {partition_of(fold) for fold in study.folds} <= study.lake.manifests(ENGINE_SHARES, study.key).keys()
    )


def _attribution_fingerprint(study: Study, book: str, book_fingerprint: str) -> str:
    """Of all that an attribution is made of: the book, the market, and of the ensemble what its engines said and weighed."""
    market = study.lake.manifest(EQUITY, study.key, BENCHMARK)
    said = (_prediction_versions(study), sorted(_combined(study).items())) if book == ENSEMBLE else ()
    return fingerprint(code_of.attribution(), book_fingerprint, market.data_version if market else "", said)


def _combined(study: Study) -> dict[int, str]:
    """Fold → the artifact that holds the engines' weights in the ensemble."""
    index = read_index(models_home(study.workspace), study.ensemble_key)
    return {entry.fold: entry.model_id for entry in (index.folds if index else ())}


def _engine_profits(study: Study, result: BacktestResult) -> pl.DataFrame:
    """The ensemble's profit by engine: by whose ranks, weighted as in their fold, each position was wanted."""
    return by_engine(result.profits, _shares(study), tuple(spec.name for spec in study.engines))


def _shares(study: Study) -> pl.DataFrame:
    """Who wanted each position of the ensemble; worked out for the folds in which signals, predictions or weights changed."""
    code = code_of.attribution()
    signals = study.lake.scan(SIGNALS, study.key, partitions=[ENSEMBLE]).select("symbol", "open_time", "weight").collect()
    weights, predictions = _weights(study), _prediction_versions(study)
    have = study.lake.manifests(ENGINE_SHARES, study.key)
    by_fold = _by_fold(study, signals)
    for fold in study.folds:
        part = partition_of(fold)
        inside = by_fold[fold.number]
        part_fingerprint = fingerprint(code, content_version(inside), predictions[part], weights[fold.number])
        if not is_made_of(have.get(part), part_fingerprint):
            known = ranks(_predictions(study, part), tuple(weights[fold.number]))
            study.lake.write(
                ENGINE_SHARES, study.key, part, engine_shares(inside, known, weights[fold.number]), fingerprint=part_fingerprint
            )
    drop_others(study.lake, [Table(ENGINE_SHARES, study.key)], map(partition_of, study.folds))
    return study.lake.scan(ENGINE_SHARES, study.key).collect()


def _by_fold(study: Study, signals: pl.DataFrame) -> dict[int, pl.DataFrame]:
    """Fold → the rows inside its test window, in their order."""
    started = pl.Series([fold.test_start for fold in study.folds]).search_sorted(signals["open_time"], side="right")
    parts = signals.with_columns(started.alias("started")).partition_by("started", as_dict=True, include_key=False)
    return {
        fold.number: parts.get((at,), signals.clear()).filter(pl.col("open_time") < fold.test_end)
        for at, fold in enumerate(study.folds, start=1)
    }


def _weights(study: Study) -> dict[int, dict[str, float]]:
    """Fold → engine → weight in the ensemble; equal ones where there is no ensemble."""
    names = [spec.name for spec in study.engines]
    stored = {fold: stored_weights(study, model_id) for fold, model_id in _combined(study).items()}
    equal = dict.fromkeys(names, 1.0 / len(names))
    return {fold.number: stored.get(fold.number, equal) for fold in study.folds}


def _prediction_versions(study: Study) -> dict[str, list[str]]:
    """Fold → versions of every engine's predictions in it."""
    versions = [study.part_versions(PREDICTIONS, study.engine_key(spec)) for spec in study.engines]
    parts = (partition_of(fold) for fold in study.folds)
    return {part: [found[part] for found in versions] for part in parts}


def _predictions(study: Study, part: str) -> pl.DataFrame:
    """symbol, open_time, engine, prediction of every engine in one fold."""
    columns = ("symbol", "open_time", "engine", "prediction")
    keys = (study.engine_key(spec) for spec in study.engines)
    return pl.concat([study.lake.scan(PREDICTIONS, key, partitions=[part]).select(columns).collect() for key in keys])


def attribution_frame(study: Study, book: str = ENSEMBLE) -> pl.DataFrame:
    """part, name, profit, return of a book of a study that has run; empty where it has not."""
    if book not in study.lake.manifests(ATTRIBUTION, study.key):
        return pl.DataFrame(schema={"part": pl.String, "name": pl.String, "profit": pl.Float64, "return": pl.Float64})
    return study.lake.scan(ATTRIBUTION, study.key, partitions=[book]).collect()


def attribution_table(study: Study, book: str = ENSEMBLE) -> pl.DataFrame:
    """`attribution_frame` for people: of the symbols only the best and the worst, the rest in one row, so that it adds up."""
    frame = attribution_frame(study, book)
    symbols = frame.filter(pl.col("part") == SYMBOLS).sort("profit", descending=True)
    if symbols.height <= 2 * SHOWN_SYMBOLS + 1:
        return pl.concat([frame.filter(pl.col("part") != SYMBOLS), symbols])
    rest = symbols[SHOWN_SYMBOLS:-SHOWN_SYMBOLS]
    name = f"{rest.height} others"
    between = rest.select(
        pl.lit(SYMBOLS).alias("part"), pl.lit(name).alias("name"), pl.col("profit").sum(), pl.col("return").sum()
    )
    return pl.concat([frame.filter(pl.col("part") != SYMBOLS), symbols[:SHOWN_SYMBOLS], between, symbols[-SHOWN_SYMBOLS:]])


class AttributionFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Shares of the starting capital by costs and market (return_from) and by engine (return_through). No beta before a run."""

    return_from: dict[str, float]
    return_through: dict[str, float]
    beta: float | UnsetType = UNSET


def attribution_facts(study: Study, book: str = ENSEMBLE) -> AttributionFacts:
    """A few figures beside an asset."""
    kept = attribution_frame(study, book).filter(pl.col("part") != SYMBOLS)
    by_part = {part: dict(kept.filter(own).select("name", "return").iter_rows()) for part, own in _PARTS.items()}
    manifest = study.lake.manifest(ATTRIBUTION, study.key, book)
    return AttributionFacts(**by_part, beta=UNSET if manifest is None else float(manifest.metadata["beta"]))


_BY_ENGINE = pl.col("part") == ENGINES
_PARTS = {
    "return_from": ~_BY_ENGINE & ~((pl.col("part") == "market") & (pl.col("name") == "costs")),
    "return_through": _BY_ENGINE,
}
