"""How good the predictions were, and what was left of them after costs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
import polars as pl

from tidemill.domain.numbers import finite
from tidemill.metrics.bootstrap import sharpe_interval
from tidemill.metrics.predictions import PredictionMetrics, prediction_metrics
from tidemill.metrics.returns import performance_metrics
from tidemill.provenance import fingerprint
from tidemill.steps.performance.selection import judge_books
from tidemill.steps.trading.attribution import AttributionFacts, attribution_facts
from tidemill.storage.results import write_equity
from tidemill.study import code as code_of
from tidemill.study.counting import bars_a_year
from tidemill.study.freshness import StepReport, is_made_of, stored
from tidemill.study.metrics import engine_metrics, portfolio_metrics
from tidemill.study.scoring import books, coefficients_of, prediction_versions, scored_rows
from tidemill.study.study import Study
from tidemill.study.tables import BENCHMARK, ENGINES, ENSEMBLE, EQUITY, LABELS, METRICS, PORTFOLIO, SELECTION

SKILL = (
    *("ic", "ic_low", "ic_high", "rank_ic", "rank_ic_low", "rank_ic_high"),
    *("icir", "rank_icir", "t_stat", "hit_rate", "turnover"),
)
# What the step shows beside the asset; everything else is in the lake's table of metrics.
_SHOWN = (
    *("book", "ic", "rank_ic", "icir", "t_stat", "turnover", "sharpe_gross", "sharpe", "sharpe_low", "sharpe_high"),
    *("deflated_sharpe", "deflated_sharpe_clustered", "trials", "trial_clusters", "pbo", "annual_return", "max_drawdown"),
    *("portfolio_turnover", "fees", "slippage", "borrow"),
)


class SelectionFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the number of trials on this source makes of the ensemble; see `queries.results.BookResult`."""

    trials: int
    trial_clusters: int
    counted_since: datetime
    expected_maximum_sharpe: float
    pbo: float | None


class PortfolioFacts(msgspec.Struct, frozen=True, kw_only=True):
    bars_a_year: float
    attribution: AttributionFacts


def returns_of(study: Study, book: str) -> pl.DataFrame:
    """time, return, gross_return of a book, without its first slot, which has none."""
    frame = study.lake.scan(EQUITY, study.key, partitions=[book]).sort("time").collect()
    return frame.select("time", "equity", "return", "gross_return")[1:]


def evaluate_engines(study: Study) -> StepReport[SelectionFacts]:
    """Skill out of sample, and Sharpe before and after costs, of every engine and the ensemble; each is counted as a trial."""
    code = code_of.skill()
    equity = study.lake.manifests(EQUITY, study.key)
    traded = {book: manifest.fingerprint for book, manifest in equity.items()}
    part_fingerprint = fingerprint(code, study.labels_version, prediction_versions(study), traded)
    held = study.lake.manifest(METRICS, study.key, ENGINES)
    worked = not is_made_of(held, part_fingerprint)
    if held is None or worked:
        rows = [_engine_row(study, book) for book in books(study)]
        frame = pl.DataFrame(rows, infer_schema_length=None)
        held = study.lake.write(METRICS, study.key, ENGINES, frame, fingerprint=part_fingerprint)
    judged, counted = judge_books(study)
    found = engine_metrics(study.lake, study.key)
    return stored(
        {ENGINES: held, SELECTION: judged},
        worked=worked or counted,
        rows=found.height,
        code_version=code,
        inputs={LABELS: study.labels_version},
        facts=msgspec.convert(found.row(0, named=True), SelectionFacts),
        columns=_SHOWN,
        table=tuple(found.select(_SHOWN).iter_rows()),
    )


def _engine_row(study: Study, book: str) -> dict[str, Any]:
    rows, groups = scored_rows(study, book), coefficients_of(study, book)
    found: PredictionMetrics = prediction_metrics(rows, study.experiment.label.horizon, groups)
    facts = study.lake.manifests(EQUITY, study.key)[book].metadata
    frame = returns_of(study, book)
    year = bars_a_year(study, frame["time"])
    net = performance_metrics(frame["return"].to_numpy(), year)
    gross = performance_metrics(frame["gross_return"].to_numpy(), year)
    skill = {name: finite(getattr(found, name)) for name in SKILL}
    interval = sharpe_interval(frame["return"].to_numpy(), year)
    return {
        "book": book,
        **skill,
        "groups": found.groups,
        "sharpe_gross": gross["sharpe"],
        "sharpe": net["sharpe"],
        "sharpe_low": finite(interval.low),
        "sharpe_high": finite(interval.high),
        "total_return": net["total_return"],
        "annual_return": net["annual_return"],
        "max_drawdown": net["max_drawdown"],
        "trades": facts["trades"],
        "fees": facts["fees"],
        "slippage": facts["slippage"],
        "borrow": facts["borrow"],
        "portfolio_turnover": facts["turnover"],
    }


def _portfolio_row(study: Study, book: str) -> dict[str, Any]:
    frame = returns_of(study, book)
    return {"book": book, **performance_metrics(frame["return"].to_numpy(), bars_a_year(study, frame["time"]))}


def evaluate_portfolio(study: Study) -> StepReport[PortfolioFacts]:
    """The metrics of DESIGN §10 for the ensemble's portfolio, each engine's and the benchmark's; equity goes to Postgres."""
    code = code_of.skill()
    equity = study.lake.manifests(EQUITY, study.key)
    part_fingerprint = fingerprint(code, {book: manifest.fingerprint for book, manifest in equity.items()})
    held = study.lake.manifest(METRICS, study.key, PORTFOLIO)
    worked = not is_made_of(held, part_fingerprint)
    if held is None or worked:
        rows = [_portfolio_row(study, book) for book in (*books(study), BENCHMARK)]
        account = study.lake.scan(EQUITY, study.key, partitions=[ENSEMBLE]).select("time", "equity").sort("time").collect()
        own = account.with_columns(pl.lit(study.key).alias("account"))
        study.workspace.call(write_equity, study.workspace.database, study.key, own)
        frame = pl.DataFrame(rows, infer_schema_length=None)
        known = {"bars_a_year": bars_a_year(study, account["time"][1:])}
        held = study.lake.write(METRICS, study.key, PORTFOLIO, frame, fingerprint=part_fingerprint, metadata=known)
    frame = portfolio_metrics(study.lake, study.key)
    return stored(
        {PORTFOLIO: held},
        worked=worked,
        code_version=code,
        facts=PortfolioFacts(bars_a_year=held.metadata["bars_a_year"], attribution=attribution_facts(study)),
        columns=("metric", "books"),
        table=tuple((name, dict(zip(frame["book"], frame[name], strict=True))) for name in frame.columns if name != "book"),
    )
