"""In which state each symbol of a dataset is, month by month: the set `regime`, and the models that its states come from.

One table of states, one of fits: for every month and symbol the parameters in force at the end of the month, from which bar
on, and what they were fitted on. Models see the same features when an experiment names the set; this is what people and the API
look at. What did not change is not computed again, and a new bar costs one month.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
import polars as pl

from tidemill.domain.experiment import Experiment
from tidemill.features.api import FeatureSet, FeatureState, compute, feature_set
from tidemill.features.declaration import shipped
from tidemill.steps.features.technical import feature_fingerprints, feature_inputs
from tidemill.study.checkpoints import resume, save_state
from tidemill.study.freshness import StepReport, Table, drop_others, stale, stored
from tidemill.study.study import Study
from tidemill.study.tables import REGIME, REGIME_FITS

SET = "regime"
STATE = "hmm_state_3"
PROBABILITY = "hmm_3_{state}"
STATES = 3


class RegimeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """fitted_symbols: those with a model."""

    features: int
    months_computed: int
    months_kept: int
    fitted_symbols: int


def regime_features() -> FeatureSet:
    return feature_set(SET)


def names_regimes(experiment: Experiment) -> bool:
    """Whether an experiment uses some feature of the set, so that its run shows the states."""
    return SET in experiment.features.sets or not set(shipped().sets[SET]).isdisjoint(experiment.features.names)


def regime_key(study: Study) -> str:
    """Where the states of a dataset lie: their definitions decide it, so a changed one starts anew."""
    return f"{study.dataset.key}.{regime_features().fingerprint[:8]}"


def compute_regime(study: Study) -> StepReport[RegimeFacts]:
    """Compute the states of every month whose inputs changed, and of all months after the first such."""
    features, tables = regime_features(), [Table(name, regime_key(study)) for name in (REGIME, REGIME_FITS)]
    wanted = feature_fingerprints(study, features)
    old, months = stale(study.lake, tables, wanted), list(wanted)
    first = _compute_from(study, features, months, months.index(old[0]), wanted) if old else len(months)
    drop_others(study.lake, tables, wanted)
    return _report(study, features, worked=bool(old), computed=len(months) - first)


def _compute_from(study: Study, features: FeatureSet, months: Sequence[str], stale: int, wanted: dict[str, str]) -> int:
    """Compute from the nearest kept state on; returns the index of the first month that was computed."""
    key = regime_key(study)
    folder = study.workspace.settings.home / "state" / f"{REGIME}-{key}"
    first, state = resume(folder, months, stale, wanted)
    for index in range(first, len(months)):
        month = months[index]
        frame, state = compute(feature_inputs(study, [month], features), features, state)
        study.lake.write(REGIME_FITS, key, month, fits_frame(state, features, wanted[month]), fingerprint=wanted[month])
        if index >= len(months) - 2:
            save_state(folder, month, wanted[month], state)
        study.lake.write(REGIME, key, month, frame, fingerprint=wanted[month])
    return first


def fits_frame(state: FeatureState, features: FeatureSet, version: str) -> pl.DataFrame:
    """One row for each symbol, model and state of the model: the parameters in force in `state`, the calmest state first.

    symbol, states, state, open_time (from which bar on they apply), values (how many they were fitted on), purge (how many
    before that bar were left out), log_likelihood, start, mean, variance, move_1 … move_3 (probability of going to each state),
    version.
    """
    from tidemill.features.stages import fits_of

    program = features.program
    rows: list[dict[str, Any]] = []
    for fit in fits_of(state, program.stages, program.slots):
        for number in range(fit.states):
            moves = [*fit.transitions[number].tolist(), *[None] * (STATES - fit.states)]
            rows.append(
                {
                    "symbol": fit.symbol,
                    "states": fit.states,
                    "state": number + 1,
                    "open_time": fit.applies_from,
                    "values": fit.values,
                    "purge": fit.purge,
                    "log_likelihood": fit.log_likelihood,
                    "start": float(fit.start[number]),
                    "mean": float(fit.means[number]),
                    "variance": float(fit.variances[number]),
                    **{f"move_{place + 1}": move for place, move in enumerate(moves)},
                    "version": version,
                }
            )
    return pl.DataFrame(rows, schema=_FITS)


_FITS = pl.Schema(
    {
        "symbol": pl.String(),
        "states": pl.Int32(),
        "state": pl.Int32(),
        "open_time": pl.Datetime("us", "UTC"),
        "values": pl.Int64(),
        "purge": pl.Int64(),
        **dict.fromkeys(("log_likelihood", "start", "mean", "variance", "move_1", "move_2", "move_3"), pl.Float64()),
        "version": pl.String(),
    }
)


def regime_frame(study: Study) -> pl.DataFrame:
    """symbol, open_time and the features of the set, sorted; what `compute_regime` stored."""
    return study.lake.scan(REGIME, regime_key(study)).sort("symbol", "open_time").collect()


def _report(study: Study, features: FeatureSet, *, worked: bool, computed: int) -> StepReport[RegimeFacts]:
    manifests = study.lake.manifests(REGIME, regime_key(study))
    table, fitted = _latest(study)
    facts = RegimeFacts(
        features=len(features.names),
        months_computed=computed,
        months_kept=len(manifests) - computed,
        fitted_symbols=fitted,
    )
    shown: dict[str, Any] = {"columns": _COLUMNS, "table": table, "notes": (_NOTE,)}
    return stored(manifests, worked=worked, code_version=features.fingerprint, facts=facts, **shown)


_COLUMNS = ("symbol", "state", "calm", "middle", "wild", "volatility_percentile", "trend", "model_since")
_NOTE = (
    "State 1 is the calmest. Probabilities are filtered: each was known at its bar's close. A model is fitted again every 252 "
    "bars of its symbol, on what came before."
)


def _latest(study: Study) -> tuple[tuple[tuple[Any, ...], ...], int]:
    """Newest state of up to twenty symbols with the time from which their model applies, and how many symbols have a model."""
    key = regime_key(study)
    manifests = study.lake.manifests(REGIME, key)
    if not manifests:
        return (), 0
    newest = max(manifests)
    one = partial(study.lake.scan, partitions=[newest])
    since = one(REGIME_FITS, key).group_by("symbol").agg(pl.col("open_time").first().alias("since")).collect()
    rows = one(REGIME, key).group_by("symbol").agg(pl.all().sort_by("open_time").last()).collect()
    shown = (
        rows.sort("symbol")
        .head(20)
        .join(since, on="symbol", how="left", maintain_order="left")
        .select(
            "symbol",
            STATE,
            *(PROBABILITY.format(state=state) for state in range(1, STATES + 1)),
            "vol_percentile_20_126",
            "trend_state_20_100",
            pl.col("since").dt.strftime("%Y-%m-%d"),
        )
    )
    return tuple(shown.rows()), since.height
