"""How good the predictions were, and what was left of them after costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from tidemill.domain.numbers import finite
from tidemill.metrics.bootstrap import sharpe_interval
from tidemill.metrics.predictions import PredictionMetrics, prediction_metrics
from tidemill.metrics.returns import performance_metrics
from tidemill.provenance import fingerprint
from tidemill.steps.performance.selection import judge_books
from tidemill.steps.trading.attribution import attribution_facts
from tidemill.storage.results import write_equity
from tidemill.study import code as code_of
from tidemill.study.counting import bars_a_year
from tidemill.study.freshness import StepReport
from tidemill.study.metrics import engine_metrics, portfolio_metrics
from tidemill.study.scoring import books, coefficients_of, scored_rows
from tidemill.study.study import Study
from tidemill.study.tables import BENCHMARK, ENGINES, ENSEMBLE, EQUITY, METRICS, PORTFOLIO

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


def returns_of(study: Study, book: str) -> pl.DataFrame:
    """time, return, gross_return of a book, without its first slot, which has none."""
    frame = study.lake.scan(EQUITY, study.key, partitions=[book]).sort("time").collect()
    return frame.select("time", "equity", "return", "gross_return")[1:]


def evaluate_engines(study: Study) -> StepReport:
    """Skill out of sample, and Sharpe before and after costs, of every engine and the ensemble; each is counted as a trial."""
    code = code_of.skill()
    equity = study.lake.manifests(EQUITY, study.key)
    print_ = fingerprint(code, study.labels_version, {book: manifest.fingerprint for book, manifest in equity.items()})
    held = study.lake.manifest(METRICS, study.key, ENGINES)
    worked = held is None or held.fingerprint != print_
    if worked:
        rows = [_engine_row(study, book) for book in books(study)]
        frame = pl.DataFrame(rows, infer_schema_length=None)
        held = study.lake.write(METRICS, study.key, ENGINES, frame, fingerprint=print_)
    judged, counted = judge_books(study, bars_a_year(study))
    found = engine_metrics(study.lake, study.key)
    frame = found.select(_SHOWN)
    return StepReport(
        worked=worked or counted,
        rows=frame.height,
        data_version=fingerprint(held.data_version if held is not None else "", judged.data_version),
        code_version=code,
        inputs={"labels": study.labels_version},
        facts=_selection_facts(found.row(0, named=True)),
        columns=tuple(name.replace("_", " ") for name in frame.columns),
        table=tuple(frame.iter_rows()),
    )


def _selection_facts(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "trials counted on this source": row["trials"],
        "trials that differ": row["trial_clusters"],
        "counted since": row["counted_since"],
        "expected maximum Sharpe without skill": row["expected_maximum_sharpe"],
        "PBO": row["pbo"],
    }


def _engine_row(study: Study, book: str) -> dict[str, Any]:
    rows, groups = scored_rows(study, book), coefficients_of(study, book)
    found: PredictionMetrics = prediction_metrics(rows, study.experiment.label.horizon, groups)
    facts = study.lake.manifests(EQUITY, study.key)[book].metadata
    frame, year = returns_of(study, book), bars_a_year(study)
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


def evaluate_portfolio(study: Study) -> StepReport:
    """The metrics of DESIGN §10 for the ensemble's portfolio, each engine's and the benchmark's; equity goes to Postgres."""
    code = code_of.skill()
    equity = study.lake.manifests(EQUITY, study.key)
    print_ = fingerprint(code, {book: manifest.fingerprint for book, manifest in equity.items()})
    held = study.lake.manifest(METRICS, study.key, PORTFOLIO)
    worked = held is None or held.fingerprint != print_
    if worked:
        year = bars_a_year(study)
        rows = [
            {"book": book, **performance_metrics(returns_of(study, book)["return"].to_numpy(), year)}
            for book in (*books(study), BENCHMARK)
        ]
        account = study.lake.scan(EQUITY, study.key, partitions=[ENSEMBLE]).select("time", "equity").sort("time").collect()
        study.workspace.call(write_equity, study.workspace.database, account.with_columns(pl.lit(study.key).alias("account")))
        frame = pl.DataFrame(rows, infer_schema_length=None)
        held = study.lake.write(METRICS, study.key, PORTFOLIO, frame, fingerprint=print_)
    frame = portfolio_metrics(study.lake, study.key)
    return StepReport(
        worked=worked,
        rows=frame.height,
        data_version=held.data_version if held is not None else "",
        code_version=code,
        facts={"bars a year": bars_a_year(study), **attribution_facts(study)},
        columns=("metric", *frame["book"]),
        table=tuple((name, *frame[name]) for name in frame.columns if name != "book"),
    )
