"""Drift: whether the newest bars still look like those that the newest models were trained on, and whether skill has fallen."""

from __future__ import annotations

from datetime import datetime

import msgspec
import polars as pl

from tidemill.domain.experiment import PromotionSpec
from tidemill.metrics.drift import MOVED, mean_shift, population_stability_index
from tidemill.metrics.predictions import mode
from tidemill.provenance import fingerprint
from tidemill.storage import champions
from tidemill.storage.champions import Champion
from tidemill.storage.lake import Lake
from tidemill.study import code as code_of
from tidemill.study.freshness import StepReport, is_made_of, stored
from tidemill.study.scoring import coefficients_of, prediction_versions, scored_rows
from tidemill.study.study import Study
from tidemill.study.tables import DRIFT, ENSEMBLE

# Rows beyond this are thinned evenly: an index over ten bins is known to a hundredth from far fewer.
_ROWS = 20_000


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """What the newest measurement came to.

    moved_features: share of the features whose index is over 0.25. worst: the feature that moved most, and its index. skill_t:
    Welch's t of the newest rank ICs against all earlier ones; None where it is not defined. bars: how many bar times were
    looked at. until: the newest one. new_bars: those since the champion's last training bar; None without a champion.
    """

    moved_features: float
    worst: str
    worst_index: float
    skill_t: float | None
    bars: int
    until: str
    new_bars: int | None = None


class DriftFacts(msgspec.Struct, frozen=True, kw_only=True):
    """See `Drift`."""

    moved_features: float
    skill_t: float | None
    bar_times: int


def reasons(drift: Drift, policy: PromotionSpec) -> tuple[str, ...]:
    """Why a challenger should be trained now, in words; empty when there is no reason."""
    found = []
    if drift.new_bars is None:
        found.append("there is no champion")
    elif policy.new_bars and drift.new_bars >= policy.new_bars:
        found.append(f"{drift.new_bars} new bars")
    if drift.moved_features >= policy.moved_features:
        found.append(f"{drift.moved_features:.0%} of the features moved")
    if drift.skill_t is not None and drift.skill_t <= policy.skill_t:
        found.append(f"rank IC fell (t {drift.skill_t:.1f})")
    return tuple(found)


def measure_drift(study: Study) -> StepReport[DriftFacts]:
    """Population stability of every feature, newest bars against the newest training window, and the decay of skill."""
    code = code_of.drift()
    champion = study.workspace.call(champions.current, study.workspace.database, study.dataset.key)
    versions = (study.features_version, study.labels_version, prediction_versions(study)[ENSEMBLE])
    part_fingerprint = fingerprint(code, versions, study.experiment, study.folds[-1], champion.id if champion else 0)
    held = study.lake.manifest(DRIFT, study.key, "features")
    worked = not is_made_of(held, part_fingerprint)
    if held is None or worked:
        indices = _indices(study)
        found = _summary(study, indices, champion)
        held = study.lake.write(
            DRIFT, study.key, "features", indices, fingerprint=part_fingerprint, metadata={"drift": msgspec.to_builtins(found)}
        )
    drift = msgspec.convert(held.metadata["drift"], Drift)
    worst = study.lake.scan(DRIFT, study.key, partitions=["features"]).sort("index", descending=True).head(20).collect()
    return stored(
        {"features": held},
        worked=worked,
        code_version=code,
        facts=DriftFacts(moved_features=drift.moved_features, skill_t=drift.skill_t, bar_times=drift.bars),
        columns=("feature", "population_stability_index"),
        table=tuple(worst.select("feature", "index").iter_rows()),
        notes=(
            f"A challenger should be trained: {', '.join(why)}."
            if (why := reasons(drift, study.experiment.promotion))
            else "Nothing calls for a new model.",
            f"An index over {MOVED} says that the feature's population is another one than in training.",
        ),
    )


def last_drift(lake: Lake, study_key: str) -> Drift | None:
    """The newest measurement of a study, None where there is none. Reads one small file."""
    held = lake.manifest(DRIFT, study_key, "features")
    return None if held is None else msgspec.convert(held.metadata["drift"], Drift)


def _indices(study: Study) -> pl.DataFrame:
    """feature, index: the newest `promotion.bars` bar times against the newest training window."""
    fold, times = study.folds[-1], study.times
    since = times[-min(study.experiment.promotion.bars, len(times))]
    before = _thinned(_rows(study, fold.train_start, fold.train_end))
    now = _thinned(_rows(study, since, None))
    names = study.available.names
    values = [population_stability_index(before[name].to_numpy(), now[name].to_numpy()) for name in names]
    return pl.DataFrame({"feature": names, "index": values}, schema={"feature": pl.String, "index": pl.Float64})


def _rows(study: Study, start: datetime, end: datetime | None) -> pl.DataFrame:
    months = sorted(study.lake.manifests("features", study.features_key))
    inside = [month for month in months if f"{start:%Y-%m}" <= month and (end is None or month <= f"{end:%Y-%m}")]
    frame = study.features_of(inside).filter(pl.col("open_time") >= start)
    return frame if end is None else frame.filter(pl.col("open_time") < end)


def _thinned(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.gather_every(max(frame.height // _ROWS, 1))


def _summary(study: Study, indices: pl.DataFrame, champion: Champion | None) -> Drift:
    worst = indices.sort("index", descending=True, nulls_last=True).row(0)
    return Drift(
        moved_features=int((indices["index"] > MOVED).sum()) / max(indices.height, 1),
        worst=worst[0],
        worst_index=worst[1],
        skill_t=_skill_t(study),
        bars=min(study.experiment.promotion.bars, len(study.times)),
        until=study.times[-1].isoformat(),
        new_bars=None if champion is None else int((study.times >= champion.trained_until).sum()),
    )


def _skill_t(study: Study) -> float | None:
    """The ensemble's newest rank ICs (of `promotion.bars` bar times) against those before."""
    scored = scored_rows(study, ENSEMBLE)
    found = coefficients_of(study, ENSEMBLE).drop_nulls("rank_ic")
    newest = study.times[-min(study.experiment.promotion.bars, len(study.times))]
    if mode(scored) == "cross_section":
        found = found.gather_every(study.experiment.label.horizon)  # no two share a bar of their labels
    recent = pl.col("time") >= newest
    before, now = (found.filter(rows)["rank_ic"].to_numpy() for rows in (~recent, recent))
    t = mean_shift(before, now)
    return t if t == t else None
