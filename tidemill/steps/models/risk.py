"""The risk engine of a study: volatility and drawdown forecast for each symbol and bar of every fold's test window.

It scores risk, not return, so it takes no part in the ensemble. Its artifact holds GARCH's parameters of every symbol, fitted
before the fold's cut (its test start less the embargo); a symbol without a usable fit is forecast by EWMA. Forecasts lie in the
lake's table `risk`, one partition a fold: symbol, open_time, volatility, horizon_volatility, drawdown, ewma_volatility, engine
(`garch` or `ewma`), fold, model_id, known_at. `risk_of` reads them.
"""

from __future__ import annotations

import hashlib
import math

import msgspec
import numpy as np
import polars as pl

from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.experiment import RiskSpec
from tidemill.domain.numbers import finite
from tidemill.models.artifact import Artifact, TrainingInputs, load, make
from tidemill.provenance import fingerprint, library_version
from tidemill.risk.volatility import Floats, Garch, VolatilityParams, fit_garch, forecast, qlike
from tidemill.study import code as code_of
from tidemill.study.freshness import StepReport, Table, drop_others, is_made_of, stored, unused
from tidemill.study.model_index import (
    Index,
    TrainedFold,
    all_there,
    artifact_folder,
    is_stored,
    models_home,
    read_index,
    store_index,
    trained_report,
)
from tidemill.study.study import Study
from tidemill.study.tables import RISK, RISK_SKILL, partition_of
from tidemill.validation.splits import Fold

NO_RISK = "This experiment forecasts no risk. Add `risk: {}` to it."
# Bars of its own before a test window that EWMA is started on: what lies further back weighs less than rounding does.
_HISTORY = 1_000


class RiskSkill(msgspec.Struct, frozen=True, kw_only=True):
    """Forecast against what came true: QLIKE on the squared return of the next bar, and correlations; None where not defined.

    correlation: of the forecast volatility with the absolute return of the next bar; horizon_correlation: of the forecast over
    the label's horizon with the root of the squared returns in it. EWMA beside them for comparison.
    """

    qlike: float | None
    qlike_ewma: float | None
    correlation: float | None
    correlation_ewma: float | None
    horizon_correlation: float | None


class RiskFacts(msgspec.Struct, frozen=True, kw_only=True):
    """horizon: of the label, in bars."""

    folds_forecast: int
    horizon: int
    skill: RiskSkill


def spec_of(study: Study) -> RiskSpec:
    """The experiment's risk engine; InputError when it names none."""
    if study.experiment.risk is None:
        raise InputError(NO_RISK)
    return study.experiment.risk


def risk_key(study: Study) -> str:
    """Where the forecasts of a study lie."""
    decided = (spec_of(study), study.experiment.label.horizon, study.experiment.splits, study.features.lookback)
    return f"{study.dataset.key}.risk-{fingerprint(*decided)[:8]}"


def _params(study: Study) -> VolatilityParams:
    spec = spec_of(study)
    return VolatilityParams(decay=spec.decay, least=spec.least, window=spec.window)


def _versions(study: Study) -> dict[str, str]:
    return {"bars": study.bars_version, "adjustments": fingerprint(study.action_rows)}


def returns_by_symbol(study: Study) -> dict[str, pl.DataFrame]:
    """symbol → `open_time, return` of its own bars: log returns of total-return closes, null where there is none before."""

    def read() -> dict[str, pl.DataFrame]:
        change = (pl.col("close") / pl.col("close").shift(1)).log().over("symbol").alias("return")
        frame = study.adjusted.select("symbol", "open_time", change)
        return {str(name): part.drop("symbol") for (name,), part in frame.partition_by("symbol", as_dict=True).items()}

    return study.once("returns by symbol", read)


def train_risk(study: Study) -> StepReport[None]:
    """GARCH of every symbol for every fold that is new or whose past changed."""
    if study.experiment.risk is None:
        return unused(code_of.risk(), NO_RISK)
    home, key, code = models_home(study.workspace), risk_key(study), code_of.risk()
    index = read_index(home, key)
    inputs = fingerprint(code, library_version("arch"), spec_of(study), study.folds, _versions(study))
    worked = index is None or index.inputs != inputs or not all_there(home, index)
    if index is None or worked:
        known = {entry.fold: entry for entry in index.folds} if index else {}
        entries = [_entry(study, fold, known.get(fold.number), code) for fold in study.folds]
        worked = index is None or [entry.model_id for entry in entries] != [entry.model_id for entry in index.folds]
        index = Index(engine=RISK, dataset=study.dataset.key, inputs=inputs, folds=tuple(entries))
        store_index(study, key, index)
    return _model_report(study, index, worked=worked, code=code)


def _entry(study: Study, fold: Fold, known: TrainedFold | None, code: str) -> TrainedFold:
    past = {name: frame.filter(pl.col("open_time") < fold.train_end) for name, frame in returns_by_symbol(study).items()}
    seen = fingerprint(code, library_version("arch"), spec_of(study), {name: _digest(frame) for name, frame in past.items()})
    home = models_home(study.workspace)
    if known is not None and known.fingerprint == seen and is_stored(home, known.model_id):
        return msgspec.structs.replace(known, test_start=fold.test_start, test_end=fold.test_end)
    artifact = _fit(study, fold, {name: _returns(frame) for name, frame in past.items()}, seen)
    artifact.save(artifact_folder(home, artifact.model_id))
    return TrainedFold(
        fold=fold.number,
        fingerprint=seen,
        model_id=artifact.model_id,
        rows=artifact.inputs.rows,
        start=artifact.inputs.start,
        end=artifact.inputs.end,
        test_start=fold.test_start,
        test_end=fold.test_end,
    )


def _digest(frame: pl.DataFrame) -> str:
    return hashlib.blake2b(_returns(frame).tobytes(), digest_size=16).hexdigest()


def _returns(frame: pl.DataFrame) -> Floats:
    return frame["return"].fill_null(float("nan")).to_numpy().astype(np.float64)


def _fit(study: Study, fold: Fold, past: dict[str, Floats], seen: str) -> Artifact:
    params = _params(study)
    fitted = {name: fit_garch(returns, params) if spec_of(study).garch else None for name, returns in sorted(past.items())}
    rows = [list(one) if one is not None else [0.0] * len(Garch._fields) for one in fitted.values()]
    inputs = TrainingInputs(
        engine=RISK,
        features=("return",),
        feature_fingerprint="log returns of total-return closes",
        code_version=code_of.risk(),
        data_versions={"returns before the cut": seen},
        label="volatility",
        horizon=study.experiment.label.horizon,
        split={"train_end": fold.train_end.isoformat(), "test_start": fold.test_start.isoformat()},
        seed=study.experiment.seed,
        params={**msgspec.to_builtins(spec_of(study)), "symbols": list(fitted)},
        rows=sum(len(returns) for returns in past.values()),
        start=study.times[0].isoformat(),
        end=fold.train_end.isoformat(),
    )
    usable = np.array([float(one is not None) for one in fitted.values()])
    return make(inputs, tensors={"garch": np.array(rows).reshape(-1, len(Garch._fields)), "usable": usable})


def garch_of(artifact: Artifact) -> dict[str, Garch | None]:
    """Symbol → the parameters in an artifact of the risk engine, None where EWMA answers."""
    rows, usable = artifact.tensors["garch"].tolist(), artifact.tensors["usable"].tolist()
    symbols = artifact.inputs.params["symbols"]
    return {name: Garch(*row) if there else None for name, row, there in zip(symbols, rows, usable, strict=True)}


def forecast_risk(study: Study) -> StepReport[RiskFacts | None]:
    """Forecasts of every fold whose model or bars changed, and how good those of the past were."""
    if study.experiment.risk is None:
        return unused(code_of.risk(), NO_RISK)
    home, key, code = models_home(study.workspace), risk_key(study), code_of.risk()
    index = read_index(home, key)
    if index is None:
        raise UnknownNameError("trained model", RISK, hint="Materialize models/risk first.")
    whole = fingerprint(code, index.inputs, study.folds, _versions(study))
    table, score = Table(RISK, key), study.lake.manifest(RISK_SKILL, key, _ALL)
    known = {part: held.metadata.get("seen") for part, held in study.lake.manifests(*table).items()}
    if score is not None and is_made_of(score, whole) and known == {partition_of(fold): whole for fold in study.folds}:
        return _forecast_report(study, 0, code, msgspec.convert(score.metadata, RiskSkill))
    worked = _forecast_folds(study, index, code, whole)
    skill = skill_of_risk(study)
    figures = msgspec.structs.asdict(skill)
    rows = pl.DataFrame({"measure": list(figures), "value": list(figures.values())}, schema=_SKILL_SCHEMA)
    study.lake.write(RISK_SKILL, key, _ALL, rows, fingerprint=whole, metadata=figures)
    return _forecast_report(study, worked, code, skill)


_ALL = "all"
_SKILL_SCHEMA = {"measure": pl.String, "value": pl.Float64}


def _forecast_folds(study: Study, index: Index, code: str, whole: str) -> int:
    """Forecast the folds whose model or past changed; each notes the whole data that it was last compared with."""
    key, worked = risk_key(study), 0
    have = study.lake.manifests(RISK, key)
    for fold, entry in zip(study.folds, index.folds, strict=True):
        before = pl.col("open_time") < fold.test_end
        seen = {name: _digest(frame.filter(before)) for name, frame in returns_by_symbol(study).items()}
        part_fingerprint, part = fingerprint(code, entry.model_id, fold, seen), partition_of(fold)
        if is_made_of(have.get(part), part_fingerprint):
            study.lake.annotate(have[part], {"seen": whole})
            continue
        frame = _forecasts(study, fold, entry.model_id)
        study.lake.write(RISK, key, part, frame, fingerprint=part_fingerprint, metadata={"seen": whole})
        worked += 1
    drop_others(study.lake, [Table(RISK, key)], map(partition_of, study.folds))
    return worked


def _forecasts(study: Study, fold: Fold, model_id: str) -> pl.DataFrame:
    models = garch_of(load(artifact_folder(models_home(study.workspace), model_id)))
    parts = [
        _symbol_forecasts(study, fold, name, frame.filter(pl.col("open_time") < fold.test_end), models.get(name))
        for name, frame in sorted(returns_by_symbol(study).items())
    ]
    return pl.concat(parts).with_columns(
        pl.lit(fold.number, pl.Int32).alias("fold"),
        pl.lit(model_id).alias("model_id"),
        (pl.col("open_time") + study.dataset.interval.delta).alias("known_at"),
    )


def _symbol_forecasts(study: Study, fold: Fold, symbol: str, frame: pl.DataFrame, garch: Garch | None) -> pl.DataFrame:
    cut = frame.filter(pl.col("open_time") < fold.train_end).height
    first = max(0, cut - _HISTORY)
    made = forecast(_returns(frame[first:]), garch, cut - first, _params(study), horizon=study.experiment.label.horizon)
    return (
        frame[first:]
        .select(
            pl.lit(symbol).alias("symbol"),
            "open_time",
            pl.Series("volatility", made.volatility),
            pl.Series("horizon_volatility", made.horizon_volatility),
            pl.Series("drawdown", made.drawdown),
            pl.Series("ewma_volatility", made.ewma),
            pl.lit("ewma" if garch is None else "garch").alias("engine"),
        )
        .filter(pl.col("open_time") >= fold.test_start)
        .with_columns(pl.col(pl.Float64).fill_nan(None))
    )


def risk_of(study: Study) -> pl.DataFrame:
    """All forecasts of a study, sorted by symbol and time: `symbol, open_time, volatility, …`; see the module.

    InputError when the experiment forecasts no risk, UnknownNameError when nothing was forecast yet.
    """
    if not study.lake.manifests(RISK, risk_key(study)):
        raise UnknownNameError("forecast", RISK, hint="Materialize predictions/risk first.")
    return study.lake.scan(RISK, risk_key(study)).sort("symbol", "open_time").collect()


def skill_of_risk(study: Study) -> RiskSkill:
    """How good the stored forecasts were."""
    horizon = study.experiment.label.horizon
    realised = pl.concat(
        frame.select(
            pl.lit(name).alias("symbol"),
            "open_time",
            pl.col("return").shift(-1).pow(2).alias("next"),
            pl.col("return").pow(2).rolling_sum(horizon).shift(-horizon).alias("ahead"),
        )
        for name, frame in sorted(returns_by_symbol(study).items())
    )
    both = risk_of(study).join(realised, on=("symbol", "open_time"))
    following = both["next"].cast(pl.Float64).to_numpy()
    return RiskSkill(
        qlike=finite(qlike(following, both["volatility"].to_numpy() ** 2)),
        qlike_ewma=finite(qlike(following, both["ewma_volatility"].to_numpy() ** 2)),
        correlation=finite(_correlation(both, pl.col("volatility"), pl.col("next").sqrt())),
        correlation_ewma=finite(_correlation(both, pl.col("ewma_volatility"), pl.col("next").sqrt())),
        horizon_correlation=finite(_correlation(both, pl.col("horizon_volatility"), pl.col("ahead").sqrt())),
    )


def _correlation(frame: pl.DataFrame, left: pl.Expr, right: pl.Expr) -> float:
    pair = frame.select(left.alias("left"), right.alias("right")).filter(pl.all_horizontal(pl.all().is_finite()))
    value = pair.select(pl.corr("left", "right")).item() if pair.height > 1 else None
    return float(value) if value is not None else math.nan


def _model_report(study: Study, index: Index, *, worked: bool, code: str) -> StepReport[None]:
    home = models_home(study.workspace)
    models = [garch_of(load(artifact_folder(home, entry.model_id))) for entry in index.folds]
    counts = [(sum(one is not None for one in model.values()), len(model)) for model in models]
    return trained_report(
        index,
        worked=worked,
        code_version=code,
        facts=None,
        inputs=_versions(study),
        columns=("fold", "model_id", "fitted_until", "symbols", "with_garch", "with_ewma"),
        table=tuple(
            (entry.fold, entry.model_id, f"{entry.end:.10}", count, fitted, count - fitted)
            for entry, (fitted, count) in zip(index.folds, counts, strict=True)
        ),
        notes=("GARCH is fitted on returns before the cut of each fold; without a usable fit EWMA answers.",),
    )


def _forecast_report(study: Study, worked: int, code: str, skill: RiskSkill) -> StepReport[RiskFacts]:
    return stored(
        study.lake.manifests(RISK, risk_key(study)),
        worked=worked > 0,
        start=study.folds[0].test_start,
        end=study.folds[-1].test_end,
        code_version=code,
        inputs=_versions(study),
        facts=RiskFacts(folds_forecast=worked, horizon=study.experiment.label.horizon, skill=skill),
        notes=("Forecast with what was known at each bar; QLIKE 0 is perfect (Patton, 2011).",),
    )
