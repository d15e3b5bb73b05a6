"""What a run came to, as a person reads it on a terminal and a program as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from tidemill.domain.errors import InputError
from tidemill.domain.experiment import Experiment
from tidemill.reports.numbers import interval, number, percent, whole
from tidemill.reports.sentences import total_costs
from tidemill.storage.made_from import read_made
from tidemill.study.places import MADE_FROM, report_path, stored_experiment
from tidemill.study.sources import claimed
from tidemill.study.study import Study
from tidemill.study.tables import BENCHMARK, ENGINES, EQUITY, METRICS, PORTFOLIO, SELECTION, SUMMARY
from tidemill.study.workspace import Workspace

_COLUMNS = (
    "IC",
    "rank IC",
    "ICIR",
    "t",
    "Sharpe before",
    "Sharpe after",
    "95 % interval",
    "deflated",
    "return a year",
    "drawdown",
    "costs",
)


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The table by engine as texts, the first paragraph of the report, and where the report is.

    key: `dataset` of its rows in the lake's tables of results (signals, equity, trades, positions, metrics).
    """

    experiment: str
    dataset: str
    key: str
    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    sentences: tuple[str, ...]
    engines: tuple[dict[str, Any], ...]
    metrics: dict[str, dict[str, float | None]]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`: numbers, not texts."""
        return {
            "experiment": self.experiment,
            "dataset": self.dataset,
            "engines": list(self.engines),
            "metrics": self.metrics,
            "summary": list(self.sentences),
        }


def study_of(workspace: Workspace, experiment: Experiment) -> Study:
    return Study(workspace, experiment, claimed(workspace, experiment.dataset))


def result_of(workspace: Workspace, experiment: Experiment) -> Result:
    """The stored result of an experiment. InputError when it has not been run."""
    study = study_of(workspace, experiment)
    if study.lake.manifest(METRICS, study.key, PORTFOLIO) is None:
        raise InputError(f"The experiment {experiment.name!r} has no result yet. Run it: `tidemill run`.")
    engines, portfolio = engine_metrics(study), portfolio_metrics(study)
    rows = [_row(row) for row in engines.iter_rows(named=True)] + [_benchmark_row(study, portfolio)]
    return Result(
        experiment=experiment.name,
        dataset=study.dataset.key,
        key=study.key,
        path=report_path(study),
        columns=_COLUMNS,
        rows=tuple(rows),
        sentences=_sentences(study),
        engines=tuple(engines.to_dicts()),
        metrics={row.pop("book"): row for row in portfolio.to_dicts()},
    )


def _sentences(study: Study) -> tuple[str, ...]:
    """The first paragraph of the report; empty when it was not written yet."""
    path = report_path(study).with_name(SUMMARY)
    return tuple(read_made(path.with_name(MADE_FROM), path, list[str])) if path.is_file() else ()


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["book"],
        number(row["ic"]),
        number(row["rank_ic"]),
        number(row["icir"]),
        number(row["t_stat"], 1),
        number(row["sharpe_gross"]),
        number(row["sharpe"]),
        interval(row["sharpe_low"], row["sharpe_high"]),
        percent(row["deflated_sharpe"]),
        percent(row["annual_return"]),
        percent(row["max_drawdown"]),
        whole(total_costs(row)),
    )


def _benchmark_row(study: Study, portfolio: pl.DataFrame) -> tuple[str, ...]:
    row = portfolio.filter(pl.col("book") == BENCHMARK).row(0, named=True)
    facts = study.lake.manifests(EQUITY, study.key)[BENCHMARK].metadata
    own = (
        number(row["sharpe"]),
        "–",
        "–",
        percent(row["annual_return"]),
        percent(row["max_drawdown"]),
        whole(total_costs(facts)),
    )
    return (BENCHMARK, "–", "–", "–", "–", "–", *own)


def latest_report(workspace: Workspace) -> Result | None:
    """The result whose report was written last; None when there is none."""
    reports = sorted((workspace.settings.home / "reports").glob("*/experiment.json"), key=lambda path: path.stat().st_mtime)
    if not reports:
        return None
    return result_of(workspace, stored_experiment(reports[-1]))


def engine_metrics(study: Study) -> pl.DataFrame:
    """One row for each book: skill, Sharpe before and after costs, costs, and what the ledger makes of it."""
    skill = study.lake.scan(METRICS, study.key, partitions=[ENGINES]).collect()
    judged = study.lake.scan(METRICS, study.key, partitions=[SELECTION]).collect()
    return skill.join(judged, on="book", how="left", maintain_order="left")


def portfolio_metrics(study: Study) -> pl.DataFrame:
    """One row for each book and the benchmark, one column for each metric."""
    return study.lake.scan(METRICS, study.key, partitions=[PORTFOLIO]).collect()
