"""Quality suites on what a run made. A version of the data that was judged already is not judged again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from tidemill.domain.errors import IntegrityError
from tidemill.domain.naming import first_of
from tidemill.durable import read_sealed, sweep, write_sealed
from tidemill.provenance import fingerprint, source_version
from tidemill.quality.expectations import SuiteName
from tidemill.quality.suites import ExpectationResult, docs_index, run_suite, suite_expectations
from tidemill.storage.ordered import by_symbol
from tidemill.storage.verdicts import Verdict, Verdicts
from tidemill.study.scoring import books
from tidemill.study.study import Study
from tidemill.study.tables import BARS, ENSEMBLE, FEATURES, PREDICTIONS


class SuiteResult(msgspec.Struct, frozen=True, kw_only=True):
    """Results of a suite on one version of an asset's data; `worked` is False when they were known already.

    scope: which partitions were looked at.
    """

    data_version: str
    results: tuple[ExpectationResult, ...]
    worked: bool
    docs: Path | None = None
    scope: str = ""


class _Last(msgspec.Struct, frozen=True):
    """What a suite judged last: the version of its verdicts in Postgres, part → data version, and the code that judged."""

    version: str
    parts: dict[str, str]
    code: str = ""


def _parts(study: Study, suite: SuiteName) -> tuple[str, dict[str, str]]:
    """Dataset key of what a suite judges, and part → data version: months, or folds of engines."""
    if suite == "bars":
        return study.dataset.key, study.part_versions(BARS, study.dataset.bars_key)
    if suite == "features":
        return study.features_key, study.part_versions(FEATURES, study.features_key)
    keys = [key for book, key in books(study).items() if book != ENSEMBLE]
    return study.key, {f"{key}/{fold}": held for key in keys for fold, held in study.part_versions(PREDICTIONS, key).items()}


def _frame(study: Study, suite: SuiteName, parts: Sequence[str]) -> pl.DataFrame:
    """The rows of these parts, sorted by symbol and time."""
    if suite == "bars":
        return study.bars_of(parts)
    if suite == "features":
        return study.features_of(parts)
    names = [part.rpartition("/")[::2] for part in parts]
    scans = [
        study.lake.scan(PREDICTIONS, key, partitions=[fold for owner, fold in names if owner == key])
        for key in dict.fromkeys(key for key, _ in names)
    ]
    return pl.concat([by_symbol(scan.collect()) for scan in scans])


def judge_suite(study: Study, suite: SuiteName, asset: str) -> SuiteResult:
    """Verdicts of `suite` on what `asset` holds now, from Postgres where this version was judged by the same code before.

    Where all was well before, only what changed since is looked at, so that a new bar costs the same after one year and after
    ten. If anything of that fails, the whole is judged: a share that is too large in a month may be small in the history.
    """
    dataset, parts = _parts(study, suite)
    version = _version(study, parts)
    verdicts = Verdicts(study.workspace.database)
    home = study.workspace.settings.home
    docs, last = home / "data_docs" / dataset, home / "judged" / f"{dataset}.{suite}.json"
    known = _known(study, verdicts, asset, dataset, version)
    worked, scope = not known, "judged before"
    if not known:
        changed = _changed(study, suite, asset, last, parts)
        known, scope = (
            (run_suite(suite, _frame(study, suite, changed), docs_folder=docs), _scope(changed)) if changed else ([], "")
        )
        if not all(result.passed for result in known) or not known:
            known, scope = run_suite(suite, _frame(study, suite, list(parts)), docs_folder=docs), "everything"
        study.workspace.call(verdicts.write, [_verdict(asset, dataset, version, result) for result in known])
        _remember(last, _Last(version, parts, _code()))
    return SuiteResult(data_version=version, results=tuple(known), worked=worked, docs=docs_index(docs, suite), scope=scope)


_ASSETS: dict[SuiteName, str] = {
    "bars": "market_data/bars",
    "features": "features/technical",
    "predictions": "predictions/engines",
}


def standing(study: Study, suite: SuiteName) -> str:
    """Why what a suite guards may not be relied on now: a verdict of this very version is missing or failed. Empty: it may."""
    dataset, parts = _parts(study, suite)
    version, asset = _version(study, parts), _ASSETS[suite]
    found = study.workspace.call(Verdicts(study.workspace.database).latest, asset, dataset, version)
    if not found:
        return f"{asset} was never checked as it is now."
    failed = [verdict.check_name for verdict in found if verdict.severity == "error" and not verdict.passed]
    return f"{asset} failed {', '.join(failed)}." if failed else ""


def _version(study: Study, parts: dict[str, str]) -> str:
    return fingerprint(parts, _code(), study.dataset)


def _code() -> str:
    return source_version("tidemill.quality.suites")


def _known(study: Study, verdicts: Verdicts, asset: str, dataset: str, version: str) -> list[ExpectationResult]:
    found = study.workspace.call(verdicts.latest, asset, dataset, version)
    return [msgspec.convert(verdict.details, ExpectationResult) for verdict in found]


def _changed(study: Study, suite: SuiteName, asset: str, last: Path, parts: dict[str, str]) -> list[str]:
    """The parts that are new or other than when all was well; empty when everything has to be judged."""
    if not last.is_file():
        return []
    try:
        before = msgspec.json.decode(read_sealed(last), type=_Last)
    except (IntegrityError, msgspec.DecodeError):
        return []  # a damaged note costs time, never a check
    if before.code != _code():
        return []  # what an older suite let pass says nothing of this one
    held = _known(study, Verdicts(study.workspace.database), asset, _parts(study, suite)[0], before.version)
    names = {expectation for expectation, _, _ in suite_expectations(suite)}
    if {result.id for result in held if result.passed} != names:
        return []
    changed = [part for part, version in parts.items() if before.parts.get(part) != version]
    months = list(parts)
    # The move of a month's first bar is measured from the close before it.
    ahead = [months[max(months.index(changed[0]) - 1, 0)]] if changed and suite == "bars" else []
    return list(dict.fromkeys([*ahead, *changed]))


def _scope(parts: Sequence[str]) -> str:
    return f"what changed since all was well: {first_of(parts, 3)}"


def _remember(path: Path, last: _Last) -> None:
    write_sealed(path, msgspec.json.encode(last))
    sweep(path.parent)


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
