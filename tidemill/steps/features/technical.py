"""Features, month by month: what did not change is not computed again.

A month's fingerprint is chained: it covers the bars and adjustments of this month and, through the month before it, of all
earlier ones, since recursive features remember them. The state at the end of the second-newest month is kept, so a new bar
costs one month of computing however long the history is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import polars as pl

from tidemill.features.api import FeatureSet, FeatureState, compute
from tidemill.provenance import fingerprint, library_version, source_version
from tidemill.steps.features.context import context_prints, with_context
from tidemill.study.checkpoints import resume, save_state
from tidemill.study.freshness import StepReport, Table, drop_others, stale, stored
from tidemill.study.study import LEFT_OUT, Study
from tidemill.study.tables import FEATURES, KNOWN, month_of


class FeatureFacts(msgspec.Struct, frozen=True, kw_only=True):
    """longest_lookback: own bars that a feature reads, the current one included, of the one that reads the most."""

    features: int
    longest_lookback: int
    months_computed: int
    months_kept: int


def feature_fingerprints(study: Study, features: FeatureSet | None = None) -> dict[str, str]:
    """Month → fingerprint of everything that its features depend on, in order of time.

    features: those of the experiment when not given.
    """
    chosen = features or study.features
    bars = study.lake.manifests("bars", study.dataset.bars_key)
    actions = study.adjustments.with_columns(month_of("ex_time").alias("month"))
    selection = (study.experiment.dataset.symbols, study.experiment.dataset.start, study.experiment.dataset.end)
    code = (chosen.fingerprint, source_version("tidemill.market.adjustments"), library_version("numba"))
    chain: dict[str, str] = {}
    previous = fingerprint(code, selection)
    context = context_prints(study, sorted(bars), chosen)
    for month in sorted(bars):
        known = actions.filter(pl.col("month") == month).sort("symbol", "kind").rows()
        previous = chain[month] = fingerprint(previous, bars[month].data_version, known, *context[month])
    return chain


def feature_inputs(study: Study, months: Sequence[str], features: FeatureSet) -> pl.DataFrame:
    """What the features of these months are computed from: adjusted bars, and the context beside them where it is read."""
    return with_context(study, study.adjusted_of(months), features)


def compute_features(study: Study) -> StepReport[FeatureFacts]:
    """Compute the features of every month whose inputs changed, and of all months after the first such.

    A function of a module that fails is left out of every month, named in the report, and tried again in the next run.
    """
    table, wanted = Table(FEATURES, study.features_key), feature_fingerprints(study)
    old, months = stale(study.lake, [table], wanted), list(wanted)
    computed = months[months.index(old[0]) :] if old else []
    if old:
        _compute_from(study, study.features, months, months.index(old[0]), wanted)
        study.forget("feature_frame", "training_frame")
    drop_others(study.lake, [table], wanted)
    return _report(study, computed=computed)


def _compute_from(study: Study, features: FeatureSet, months: Sequence[str], stale: int, wanted: dict[str, str]) -> None:
    left_out: dict[str, str] = {}
    first, state = (0, None) if features.whole_history else resume(_state_folder(study), months, stale, wanted)
    # The newest month is computed apart, so that the state before it can be kept: it is the one that will grow.
    stretches = (months,) if features.whole_history else (months[first:-1], months[-1:])
    made: list[_Stretch] = []
    for stretch in filter(None, stretches):
        frame, state = compute(feature_inputs(study, stretch, features), features, state, left_out=left_out)
        made.append(_Stretch(stretch, frame, state))
    if left_out and (first > 0 or len(made) > 1):
        # One look at all months without what failed: the months of a table have the same columns.
        whole = compute(feature_inputs(study, months, features), features.without(left_out))
        made = [_Stretch(months, *whole)]
    for part in made:
        _write_months(study, part, wanted, left_out)
        if not left_out and not features.whole_history:
            save_state(_state_folder(study), part.months[-1], wanted[part.months[-1]], part.state)


class _Stretch(NamedTuple):
    """Months that were computed together, and the state after them."""

    months: Sequence[str]
    frame: pl.DataFrame
    state: FeatureState


def _write_months(study: Study, made: _Stretch, wanted: dict[str, str], left_out: dict[str, str]) -> None:
    frame = made.frame
    parts = frame.with_columns(month_of().alias("__month")).partition_by("__month", as_dict=True, include_key=False)
    for month in made.months:
        part = parts.get((month,), frame.clear())
        facts = {KNOWN: _known_share(part, frame.columns[2:]), **({LEFT_OUT: left_out} if left_out else {})}
        # What is not whole is no success: the next run tries again.
        part_fingerprint = f"{wanted[month]}-incomplete" if left_out else wanted[month]
        study.lake.write(FEATURES, study.features_key, month, part, fingerprint=part_fingerprint, metadata=facts)


def _known_share(frame: pl.DataFrame, names: Sequence[str]) -> float | None:
    """Share of the values that are numbers; None where there are none."""
    if frame.is_empty() or not names:
        return None
    shares = frame.select(pl.col(name).is_finite().mean() for name in names).row(0)
    return float(sum(shares) / len(shares))


def _state_folder(study: Study) -> Path:
    return study.workspace.settings.home / "state" / study.features_key


def _report(study: Study, *, computed: Sequence[str]) -> StepReport[FeatureFacts]:
    manifests = study.lake.manifests(FEATURES, study.features_key)
    facts = FeatureFacts(
        features=len(study.available.names),
        longest_lookback=study.features.lookback,
        months_computed=len(computed),
        months_kept=len(manifests) - len(computed),
    )
    code, notes = study.features.fingerprint, left_out_notes(study)
    return stored(manifests, worked=bool(computed), code_version=code, facts=facts, notes=notes)


def left_out_notes(study: Study) -> tuple[str, ...]:
    """One sentence for each reason why features of a module are missing; empty when all are there."""
    if not study.features.functions:
        return ()
    manifests = study.lake.manifests(FEATURES, study.features_key)
    left_out = manifests[max(manifests)].metadata.get(LEFT_OUT, {}) if manifests else {}
    reasons = dict.fromkeys(left_out.values())
    return tuple(
        f"Left out: {', '.join(name for name, why in left_out.items() if why == reason)}. {reason}" for reason in reasons
    )
