"""Is what a study computes causal? Its features, predictions and signals, each proven once for the code and definitions that
decide them.

A verdict belongs to a *definition*: the code, the experiment's part that decides the asset, and the data version of the sample
on which it was proven. The sample is the first months of the dataset, the newest month excepted, so a new bar leaves it as
it is: a run with nothing new, or one new day, reads one row of Postgres for each asset. History that is restated inside the
sample is judged again.

The sample is small, so that a run waits seconds at most. `tidemill features prove` proves features on a whole file, and
`tidemill models prove` refits every fold of a study and compares the artifact with the stored one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from tidemill.provenance import fingerprint
from tidemill.steps.checks.sample_months import sample_months
from tidemill.storage.verdicts import Verdict, Verdicts
from tidemill.study import code as code_of
from tidemill.study.restatements import restatement_notes
from tidemill.study.study import Study
from tidemill.study.tables import BARS
from tidemill.validation.causality.proof import Effort, Proof, merged

CHECK = "causal"
FEATURES, PREDICTIONS, SIGNALS = "features/technical", "predictions/engines", "trading/signals"
ASSETS = (FEATURES, PREDICTIONS, SIGNALS)
_CODE = {FEATURES: code_of.feature_proof, PREDICTIONS: code_of.prediction_proof, SIGNALS: code_of.signal_proof}
_SHOWN = 20


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """The proof of one asset; `worked` is False when its definition was judged before. notes: on the sample of it."""

    asset: str
    version: str
    proof: Proof
    worked: bool
    notes: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """What a person wants to read beside the check."""
        return " ".join((self._outcome, *self.notes))

    @property
    def _outcome(self) -> str:
        if self.proof.holds:
            return f"Proven ({len(self.proof.proven)}): nothing changes with what was not known yet."
        first = self.proof.refuted[0]
        names = ", ".join(dict.fromkeys(found.feature for found in self.proof.refuted[:5]))
        return (
            f"{names} {'looks' if len(self.proof.refuted) == 1 else 'look'} ahead: {first.feature} of {first.symbol} "
            f"at {first.time:%Y-%m-%d %H:%M}: {first.why}."
        )


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Whether everything that a study computes is proven; `open` holds asset → why it is not, empty when all is."""

    open: dict[str, str]

    @property
    def proven(self) -> bool:
        return not self.open

    def __bool__(self) -> bool:
        return self.proven


def judge_causality(study: Study, asset: str) -> Judged:
    """The proof of one of ASSETS, from Postgres where its definition was judged before; else made now and kept there."""
    version, verdicts = definition(study, asset), Verdicts(study.workspace.database)
    notes = restatement_notes(study, sample_months(study))
    for known in study.workspace.call(verdicts.latest, asset, _dataset(study, asset), version):
        if known.check_name == CHECK:
            proof = msgspec.convert(known.details, Proof)
            return Judged(asset=asset, version=version, proof=proof, worked=False, notes=notes)
    proof = _PROOFS[asset](study)
    made = Verdict(
        asset=asset,
        dataset=_dataset(study, asset),
        data_version=version,
        check_name=CHECK,
        passed=proof.holds,
        details=msgspec.to_builtins(proof),
    )
    study.workspace.call(verdicts.write, [made])
    return Judged(asset=asset, version=version, proof=proof, worked=True, notes=notes)


def is_proven(study: Study) -> Standing:
    """What stands in Postgres for the definitions in force; nothing is computed. Missing or refuted: not to be promoted."""
    verdicts, missing = Verdicts(study.workspace.database), {}
    for asset in ASSETS:
        found = study.workspace.call(verdicts.latest, asset, _dataset(study, asset), definition(study, asset))
        known = [verdict for verdict in found if verdict.check_name == CHECK]
        if not known:
            missing[asset] = "no causality proof of this definition; materialize the asset with its checks"
        elif not known[0].passed:
            proof = msgspec.convert(known[0].details, Proof)
            missing[asset] = Judged(asset=asset, version="", proof=proof, worked=False).sentence
    return Standing(open=missing)


def definition(study: Study, asset: str) -> str:
    """Fingerprint of what decides an asset's values besides the data that come later, and of the sample."""
    decided: tuple[object, ...] = (study.features.fingerprint,)
    if asset != FEATURES:
        decided = (*decided, [study.engine_key(spec) for spec in study.engines], study.experiment.label)
        decided = (*decided, _engine_code(study))
    if asset == SIGNALS:
        decided = (study.experiment.strategy, _strategy_code(study), study.ensemble_key, *study.failed)
    manifests = study.lake.manifests(BARS, study.dataset.bars_key)
    sample = {month: manifests[month].data_version for month in sample_months(study)}
    return fingerprint(asset, _CODE[asset](), decided, sample, study.experiment.dataset)


def _dataset(study: Study, asset: str) -> str:
    return {FEATURES: study.features_key, PREDICTIONS: study.ensemble_key}.get(asset, study.key)


def _engine_code(study: Study) -> list[str]:
    from tidemill.models.registry import code_version

    return [code_version(study.registry.engines.find(spec.name)) for spec in study.engines]


def _strategy_code(study: Study) -> str:
    return study.registry.strategies.code_version(study.experiment.strategy.name)


def _prove_features(study: Study) -> Proof:
    from tidemill.steps.checks.samples import feature_sample, prove_adjusting, prove_index
    from tidemill.validation.causality.features import prove_features

    bars = feature_sample(study)
    effort = Effort(cuts=6, reach=4, span=64, warm=32, thorough=False)
    proof = prove_features(study.available, bars, interval=study.dataset.interval, effort=effort)
    return _together([proof, prove_adjusting(study), prove_index(study)])


def _prove_predictions(study: Study) -> Proof:
    from tidemill.steps.checks.samples import prove_engines

    return prove_engines(study)


def _prove_signals(study: Study) -> Proof:
    from tidemill.steps.checks.samples import prove_signals, prove_weighing

    return _together([prove_weighing(study), prove_signals(study)])


def _together(proofs: Sequence[Proof]) -> Proof:
    names = (name for proof in proofs for name in (*proof.proven, *(one.feature for one in proof.refuted)))
    return merged(proofs, tuple(dict.fromkeys(names)))


_PROOFS: dict[str, Callable[[Study], Proof]] = {
    FEATURES: _prove_features,
    PREDICTIONS: _prove_predictions,
    SIGNALS: _prove_signals,
}


def refuted_rows(proof: Proof) -> Sequence[dict[str, Any]]:
    """The first refutations as rows for a table: feature, symbol, time, why."""
    return [
        {"feature": one.feature, "symbol": one.symbol, "time": f"{one.time:%Y-%m-%d %H:%M}", "why": one.why}
        for one in proof.refuted[:_SHOWN]
    ]
