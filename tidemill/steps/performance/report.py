"""The report of a study: gathers what the steps stored and writes one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import polars as pl

from tidemill.domain.limits_reached import LimitsReached, day
from tidemill.domain.naming import first_of
from tidemill.durable import make_folder, write_file
from tidemill.experiments.tracked import id_of, record_run
from tidemill.metrics.predictions import ic_by_month, quantile_returns
from tidemill.provenance import fingerprint, library_version, source_version
from tidemill.reports.html import render_report
from tidemill.reports.inputs import DataFacts, Provenance, ReportInputs
from tidemill.reports.sentences import verdict
from tidemill.steps.checks.causality import unjudged_notes
from tidemill.steps.market_data.bars import last_import
from tidemill.steps.market_data.news import vintage_notes
from tidemill.steps.predictions.validity import rejection_counts
from tidemill.steps.trading.attribution import attribution_table
from tidemill.storage.made_from import is_made_from, write_note
from tidemill.study.book import bars_versions, limit_notes
from tidemill.study.failures import failure_notes
from tidemill.study.freshness import FileFacts, StepReport
from tidemill.study.losses import loss_notes
from tidemill.study.metrics import engine_metrics, limits_of, portfolio_metrics
from tidemill.study.model_index import index_of, silent_notes
from tidemill.study.places import EXPERIMENT, MADE_FROM, report_path
from tidemill.study.restatements import restatement_notes, withdrawal_notes
from tidemill.study.scoring import coefficients_of, prediction_versions, scored_rows
from tidemill.study.sources import flags_of, instruments_of
from tidemill.study.study import Study
from tidemill.study.tables import ATTRIBUTION, BARS, BENCHMARK, ENSEMBLE, EQUITY, FLAGS, METRICS, REFUSALS, SIGNALS, SUMMARY
from tidemill.validation.splits import embargo_length

# What is known of a source that its bars do not show.
_SOURCE_BIASES = {
    "sample": (
        "The five stocks of the sample were picked with hindsight: large technology companies that survived to 2013.",
        "The history ends on 2013-03-01; markets have changed since.",
    ),
    "binance": ("The universe is what the venue lists today; coins that were delisted are missing.",),
    "coinbase": ("The universe is what the venue lists today; coins that were delisted are missing.",),
    "kraken": ("The universe is what the venue lists today; coins that were delisted are missing.",),
}
_GREAT = 0.1  # share of rows that are refused above which it is said first
_UNKNOWN_SOURCE = (
    "How the symbols of this dataset were chosen is not known here; if they are today's members, the losers are missing.",
)


def write_report(study: Study) -> StepReport[FileFacts]:
    """Write the report when anything that it shows has changed, and keep that the experiment was run."""
    code = source_version("tidemill.steps.performance.report")
    loss, missing = (*loss_notes(study), *_refusal_notes(study), *unjudged_notes(study)), failure_notes(study)
    weighing, history = _weighing(study), (*withdrawal_notes(study), *restatement_notes(study))
    file_fingerprint = fingerprint(code, _shown(study), study.experiment, loss, weighing, history, _silent(study), *missing)
    path = report_path(study)
    worked = not is_made_from(path.with_name(MADE_FROM), file_fingerprint)
    if worked:
        make_folder(path.parent)
        inputs = report_inputs(study)
        write_file(path, render_report(inputs).encode())
        write_file(path.with_name(SUMMARY), msgspec.json.encode([*loss, *verdict(inputs), *history]))
        write_file(path.with_name(EXPERIMENT), msgspec.json.encode(study.experiment))
        write_note(path.with_name(MADE_FROM), file_fingerprint, path, path.with_name(SUMMARY), path.with_name(EXPERIMENT))
    record_run(study)
    return StepReport(
        worked=worked,
        bytes=path.stat().st_size,
        data_version=file_fingerprint,
        code_version=code,
        facts=FileFacts(path=str(path)),
        notes=(f"Open {path} in a browser; it needs no network.",),
    )


def _shown(study: Study) -> str:
    """Of the tables that the report shows, and of what Postgres holds of the data."""
    lake, of = study.lake, (study.dataset.venue, study.dataset.interval)
    made = [lake.manifests(table, study.key) for table in (METRICS, EQUITY, ATTRIBUTION, REFUSALS)]
    versions = [
        {part: (manifest.fingerprint, manifest.data_version) for part, manifest in parts.items()}
        for parts in (*made, lake.manifests(FLAGS, study.dataset.bars_key))
    ]
    gaps = study.workspace.call(study.workspace.store.read_gaps, *of).rows()
    return fingerprint(versions, prediction_versions(study), study.labels_version, bars_versions(study), _refused(study), gaps)


def report_inputs(study: Study) -> ReportInputs:
    experiment, portfolio = study.experiment, portfolio_metrics(study.lake, study.key)
    scored, limits, weighing = scored_rows(study, ENSEMBLE), limits_of(study.lake, study.key), _weighing(study)
    reached = limit_notes(limits[ENSEMBLE])
    facts = study.lake.manifests(EQUITY, study.key)[ENSEMBLE].metadata
    return ReportInputs(
        title=experiment.name,
        dataset=f"{study.dataset.venue}, {study.dataset.interval} bars",
        interval=str(study.dataset.interval),
        horizon=experiment.label.horizon,
        strategy=_strategy_words(study),
        book=ENSEMBLE,
        benchmark="equal weight, bought and held"
        if experiment.benchmark == "equal_weight"
        else f"{experiment.benchmark}, bought and held",
        symbols=study.bars["symbol"].n_unique(),
        equity=_equity(study, ENSEMBLE),
        metrics=_metrics(portfolio, ENSEMBLE),
        facts=facts,
        engines=_engines(study, limits),
        benchmark_equity=_equity(study, BENCHMARK),
        benchmark_metrics=_metrics(portfolio, BENCHMARK),
        benchmark_invested=_invested(study),
        ic_by_month=ic_by_month(scored, coefficients_of(study, ENSEMBLE)),
        quantile_returns=quantile_returns(scored),
        attribution=attribution_table(study),
        rejections=rejection_counts(study),
        folds=_folds(study),
        embargo=embargo_length(study.splits, horizon=experiment.label.horizon, lookback=study.features.lookback),
        data=_data_facts(study),
        missing=failure_notes(study),
        stopped=(*reached, *weighing),
        survivorship=True if experiment.dataset.source in _SOURCE_BIASES else None,
        biases=(
            *loss_notes(study),
            *_refusal_notes(study),
            *unjudged_notes(study),
            *_SOURCE_BIASES.get(experiment.dataset.source, _UNKNOWN_SOURCE),
            *vintage_notes(study),
            *withdrawal_notes(study),
            *restatement_notes(study),
        ),
        notes=(*(note for note in facts["notes"] if note not in reached), *_silent(study)),
        provenance=_provenance(study),
    )


def _refusal_notes(study: Study) -> tuple[str, ...]:
    """A sentence where so many rows of the source are refused that what is left may be something else."""
    refused, bars = _refused(study), sum(held.rows for held in study.lake.manifests(BARS, study.dataset.bars_key).values())
    rows = sum(refused.values())
    if rows <= _GREAT * (rows + bars):
        return ()
    why = first_of([f"{reason.replace('_', ' ')}: {count:,}" for reason, count in sorted(refused.items(), key=_largest)])
    return (f"{rows:,} rows of the source were refused, beside {bars:,} bars ({why}); `tidemill data quarantine` lists them.",)


def _largest(reason: tuple[str, int]) -> tuple[int, str]:
    return -reason[1], reason[0]


def _engines(study: Study, limits: Mapping[str, LimitsReached | None]) -> pl.DataFrame:
    """The figures of every book, with what its limits did where the experiment states some."""
    found = engine_metrics(study.lake, study.key)
    rows = [{"book": book, **_limit_row(reached)} for book, reached in limits.items() if reached is not None]
    return (
        found.join(pl.DataFrame(rows, infer_schema_length=None), on="book", how="left", maintain_order="left")
        if rows
        else found
    )


def _limit_row(reached: LimitsReached) -> dict[str, Any]:
    worst, flat = reached.levels[-1] if reached.levels else None, reached.flat_since
    return {
        "limit_level": worst and worst.level,
        "limit_first": worst and day(worst.first),
        "limit_drawdown": worst and worst.drawdown,
        "limit_held_back": reached.held_back,
        "limit_flat_since": flat and day(flat),
        "limit_cut": sum(reached.cut.values()),
        "limit_collar": reached.collar,
    }


def _weighing(study: Study) -> list[str]:
    """Sentences about what was left out, cut or closed on the way to the weights of the traded book."""
    held = study.lake.manifest(SIGNALS, study.key, ENSEMBLE)
    return [] if held is None else list(held.metadata.get("notes", ()))


def _silent(study: Study) -> list[str]:
    """Sentences about engines that predicted nothing in some fold."""
    return [note for spec in study.engines for note in silent_notes(index_of(study, spec))]


def _strategy_words(study: Study) -> str:
    spec, costs = study.experiment.strategy, study.experiment.costs
    params = ", ".join(f"{name} {value}" for name, value in spec.params.items())
    about = study.registry.strategies.find(spec.name).about.rstrip(".")
    return (
        f"{about}{f' ({params})' if params else ''}; fees {costs.fee_bps:g} bps, slippage {costs.slippage_bps:g} bps, one way"
    )


def _equity(study: Study, book: str) -> pl.DataFrame:
    return study.lake.scan(EQUITY, study.key, partitions=[book]).select("time", "equity").sort("time").collect()


def _invested(study: Study) -> float:
    """Which share of its capital the benchmark bought for, fees included. It only buys."""
    totals = study.lake.manifests(EQUITY, study.key)[BENCHMARK].metadata
    return float((totals["traded"] + totals["fees"]) / totals["capital"])


def _metrics(portfolio: pl.DataFrame, book: str) -> dict[str, float | None]:
    row = portfolio.filter(pl.col("book") == book).row(0, named=True)
    return {name: value for name, value in row.items() if name != "book"}


def _folds(study: Study) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "fold": fold.number,
                "trained_from": fold.train_start,
                "trained_to": fold.train_end,
                "tested_from": fold.test_start,
                "tested_until": fold.test_end,
            }
            for fold in study.folds
        ]
    )


def _data_facts(study: Study) -> DataFacts:
    """What the data are, by what is stored of them: the counts of one import may be those of the file that came last."""
    call, store, of = study.workspace.call, study.workspace.store, (study.dataset.venue, study.dataset.interval)
    bars, gaps = study.bars, call(store.read_gaps, *of)
    symbols = bars["symbol"].unique()
    calendars = {str(one.calendar) for symbol, one in instruments_of(study.workspace, of[0]).items() if symbol in symbols}
    gaps = gaps.filter(pl.col("symbol").is_in(symbols.implode()))
    flags, times = flags_of(study), study.times
    return DataFacts(
        bars=bars.height,
        symbols=symbols.len(),
        first_bar=times[0],
        last_bar=times[-1],
        calendars=tuple(sorted(calendars)),
        rows_refused=_refused(study),
        gaps=gaps.height,
        missing_bars=int(gaps["missing"].sum() or 0),
        actions=study.adjustments.height,
        flags=dict(flags["flag"].value_counts().sort("flag").iter_rows()) if flags.height else {},
    )


def _refused(study: Study) -> dict[str, int]:
    """Reason → rows of the source that are in no table."""
    kept, store = last_import(study), study.workspace.store
    if kept is not None:
        return kept.refused
    return study.workspace.call(store.quarantine_counts, study.dataset.venue, study.dataset.interval)


def _provenance(study: Study) -> Provenance:
    names = [spec.name for spec in study.engines]
    libraries = ("polars", "numpy", "numba", "lightgbm", "torch", "tidemill")
    return Provenance(
        experiment=id_of(study.experiment),
        seed=study.experiment.seed,
        bars=study.bars_version,
        features=study.features_version,
        feature_definitions=study.features.fingerprint,
        labels=study.labels_version,
        engines={name: source_version(f"tidemill.models.{_module(study, name)}") for name in names},
        libraries={name: library_version(name) for name in libraries},
        written=datetime.now(UTC).replace(microsecond=0),
    )


def _module(study: Study, engine: str) -> str:
    return type(study.registry.engines.find(engine)).__module__.rsplit(".", 1)[-1]
