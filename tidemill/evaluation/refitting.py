"""The causality proof of a study's models, whole: every fold is fitted again on bars that end where its test begins."""

from __future__ import annotations

import polars as pl

from tidemill.steps.checks.samples import fitting, inferring
from tidemill.steps.features.context import with_context
from tidemill.study.fitting import lineage_of
from tidemill.study.model_index import index_of, spec_of
from tidemill.study.study import Study
from tidemill.validation.causality.folds import prove_folds
from tidemill.validation.causality.proof import Effort, Proof, merged
from tidemill.validation.causality.prove import prove
from tidemill.validation.splits import Fold

_CUTS = 4


def prove_predictions(study: Study) -> Proof:
    """Each engine of a study that was run: the artifact of every fold, and predictions cut inside every test window.

    A model that is fitted again on what was known when its test began must be the stored one, by its hash. It takes as long as
    three trainings. Raises UnknownNameError for an engine that was not trained yet.
    """
    names = tuple(spec.name for spec in study.engines)
    return merged([proof for name in names for proof in _prove_engine(study, name)], names)


def _prove_engine(study: Study, name: str) -> list[Proof]:
    spec, interval = spec_of(study, name), study.dataset.interval
    fit = fitting(study, spec, lambda fold: lineage_of(study, fold))
    stored = {entry.fold: entry.model_id for entry in index_of(study, spec).folds}

    def model_id(bars: pl.DataFrame, fold: Fold) -> str:
        return fit(bars, fold).model_id

    bars = with_context(study, study.adjusted, study.available)
    proofs = [prove_folds(name, model_id, bars, study.folds, interval=interval, stored=stored)]
    if not proofs[0].holds:
        return proofs
    engine, effort = study.registry.engines.find(name), Effort(cuts=_CUTS, every_bar=False, living=0)
    for fold in study.folds:
        infer, inside = inferring(study, engine, fit(bars, fold)), pl.col("open_time") < fold.test_end
        proofs.append(prove(infer, bars.filter(inside), interval=interval, effort=effort, seed=fold.number))
    return proofs
