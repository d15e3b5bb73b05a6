"""Quality suites on what a run made. A version of the data that was judged already is not judged again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from tidemill.domain.provenance import fingerprint, source_version
from tidemill.quality.expectations import SuiteName
from tidemill.quality.suites import ExpectationResult, docs_index, run_suite
from tidemill.research.modelling import PREDICTIONS
from tidemill.research.study import Study
from tidemill.research.trading import books, predictions_of
from tidemill.storage.verdicts import Verdict, Verdicts


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """Results of a suite on one version of an asset's data; `worked` is False when they were known already."""

    data_version: str
    results: tuple[ExpectationResult, ...]
    worked: bool
    docs: Path | None = None


def _subject(study: Study, suite: SuiteName) -> tuple[str, str]:
    """Dataset key and data version of what a suite judges."""
    if suite == "bars":
        return study.dataset.key, fingerprint(study.dataset, study.bars_version)
    if suite == "features":
        return study.features_key, study.features_version
    keys = [key for book, key in books(study).items() if book != "ensemble"]
    return study.key, fingerprint(
        [{p: m.data_version for p, m in study.lake.manifests(PREDICTIONS, key).items()} for key in keys]
    )


def _frame(study: Study, suite: SuiteName) -> pl.DataFrame:
    if suite == "bars":
        return study.bars
    if suite == "features":
        return study.feature_frame
    return pl.concat([predictions_of(study, spec.name) for spec in study.experiment.engines])


def judge(study: Study, suite: SuiteName, asset: str) -> Judged:
    """Verdicts of `suite` on what `asset` holds now, from Postgres where this version was judged by the same code before."""
    dataset, version = _subject(study, suite)
    version = fingerprint(version, source_version("tidemill.quality.suites"))
    verdicts = Verdicts(study.workspace.database)
    docs = study.workspace.settings.home / "data_docs" / dataset
    known = study.workspace.call(verdicts.latest, asset, dataset, version)
    if known:
        results = tuple(msgspec.convert(verdict.details, ExpectationResult) for verdict in known)
        return Judged(data_version=version, results=results, worked=False, docs=docs_index(docs, suite))
    results = tuple(run_suite(suite, _frame(study, suite), docs_folder=docs))
    made = [_verdict(asset, dataset, version, result) for result in results]
    study.workspace.call(verdicts.write, made)
    return Judged(data_version=version, results=results, worked=True, docs=docs_index(docs, suite))


def _verdict(asset: str, dataset: str, version: str, result: ExpectationResult) -> Verdict:
    details: dict[str, Any] = msgspec.to_builtins(result)
    return Verdict(
        asset=asset,
        dataset=dataset,
        data_version=version,
        check_name=result.id,
        passed=result.passed,
        severity="error" if result.severity == "critical" else "warn",
        details=details,
    )
