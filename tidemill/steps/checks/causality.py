"""Is what a study computes causal? Its features, predictions and signals, each proven once for the code and definitions that
decide them.

A verdict belongs to a *definition*: the code, the experiment's part that decides the asset, and the data version of a sample,
the first months of the dataset, the newest month excepted. So a new bar leaves it as it is: a run with nothing new, or one new
day, reads one row of Postgres for each asset. History that is restated inside the sample is judged again, and so is everything
when the dataset has twice as many months.

Features are proven on all bars that there are, by the function that `tidemill features prove` calls too. Those that were
constant or null on them are not judged as soon as they live, and proven anew by the next run. Predictions and signals are
proven on the sample, so that a run waits seconds at most; `tidemill models prove` refits every fold of a study and compares
the artifact with the stored one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import polars as pl

from tidemill.provenance import fingerprint
from tidemill.steps.checks.sample_months import sample_months
from tidemill.storage.verdicts import Verdict, Verdicts
from tidemill.study import code as code_of
from tidemill.study.restatements import restatement_notes
from tidemill.study.study import Study
from tidemill.study.tables import BARS
from tidemill.study.tables import FEATURES as STORED
from tidemill.validation.causality.proof import CANNOT_SEE, DULL, Proof, Refutation, merged

CHECK = "causal"
FEATURES, PREDICTIONS, SIGNALS = "features/technical", "predictions/engines", "trading/signals"
ASSETS = (FEATURES, PREDICTIONS, SIGNALS)
_CODE = {FEATURES: code_of.feature_proof, PREDICTIONS: code_of.prediction_proof, SIGNALS: code_of.signal_proof}
_SHOWN = 20


class ProofResult(msgspec.Struct, frozen=True, kw_only=True):
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
        proof = self.proof
        if proof.holds:
            return f"Proven ({len(proof.proven)}): nothing changes with what was not known yet. {CANNOT_SEE}"
        told = (
            _refutation_sentence(proof.ahead, "looks ahead", "look ahead"),
            _refutation_sentence(proof.failing, "fails", "fail"),
            not_judged(proof),
        )
        return " ".join(filter(None, told))


def _refutation_sentence(found: Sequence[Refutation], one: str, several: str) -> str:
    """What was refuted in one way, as a sentence with the first value of it; empty for nothing."""
    if not found:
        return ""
    first, names = found[0], ", ".join(dict.fromkeys(each.feature for each in found[:5]))
    where = f"{first.feature} of {first.symbol} at {first.time:%Y-%m-%d %H:%M}"
    return f"{names} {one if len(found) == 1 else several}: {where}: {first.why}."


def not_judged(proof: Proof) -> str:
    """Which features are neither proven nor refuted, and why the first is not; empty for none."""
    if not proof.unjudged:
        return ""
    names, first = ", ".join(one.feature for one in proof.unjudged[:5]), proof.unjudged[0]
    return f"Not judged: {names}; of {first.feature}, {first.why}."


class OpenProofs(msgspec.Struct, frozen=True, kw_only=True):
    """Whether everything that a study computes is proven; `open` holds asset → why it is not, empty when all is."""

    open: dict[str, str]

    @property
    def proven(self) -> bool:
        return not self.open

    def __bool__(self) -> bool:
        return self.proven


def judge_causality(study: Study, asset: str) -> ProofResult:
    """The proof of one of ASSETS, from Postgres where its definition was judged before; else made now and kept there."""
    version = definition(study, asset)
    known = _stored(study, asset, version)
    notes = restatement_notes(study, sample_months(study))
    bars = _bars_fingerprint(study)
    # What is not judged is tried again as soon as there are other bars.
    if known is not None and (not known.unjudged or known.bars == bars):
        return ProofResult(asset=asset, version=version, proof=known, worked=False, notes=notes)
    proof = _PROOFS[asset](study)
    proof = msgspec.structs.replace(proof.without_judging(_came_to_life(study, asset, proof)), bars=bars)
    made = Verdict(
        asset=asset,
        dataset=_dataset(study, asset),
        data_version=version,
        check_name=CHECK,
        passed=proof.holds,
        details=msgspec.to_builtins(proof),
    )
    study.workspace.call(Verdicts(study.workspace.database).write, [made])
    return ProofResult(asset=asset, version=version, proof=proof, worked=True, notes=notes)


def is_proven(study: Study) -> OpenProofs:
    """What stands in Postgres for the definitions in force; nothing is computed. What is missing, refuted or not judged is not
    to be promoted.
    """
    missing = {}
    for asset in ASSETS:
        proof = _stored(study, asset, definition(study, asset))
        if proof is None:
            missing[asset] = "no causality proof of this definition; materialize the asset with its checks"
        elif not proof.holds:
            missing[asset] = ProofResult(asset=asset, version="", proof=proof, worked=False).sentence
    return OpenProofs(open=missing)


def unjudged_notes(study: Study) -> tuple[str, ...]:
    """One sentence for each asset of which something is neither proven nor refuted, for the report."""
    stored = {asset: _stored(study, asset, definition(study, asset)) for asset in ASSETS}
    told = {asset: not_judged(proof) for asset, proof in stored.items() if proof is not None}
    return tuple(f"{asset}, does it look ahead? {words} Nothing is promoted on it." for asset, words in told.items() if words)


def _stored(study: Study, asset: str, version: str) -> Proof | None:
    """The proof in Postgres of a definition, as it stands beside the bars of now; None where there is none."""
    verdicts = Verdicts(study.workspace.database)
    for known in study.workspace.call(verdicts.latest, asset, _dataset(study, asset), version):
        if known.check_name == CHECK:
            proof = msgspec.convert(known.details, Proof)
            return proof.without_judging(_came_to_life(study, asset, proof))
    return None


def _bars_fingerprint(study: Study) -> str:
    manifests = study.lake.manifests(BARS, study.dataset.bars_key)
    return fingerprint({month: manifest.data_version for month, manifest in manifests.items()})


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
    doubled = len(manifests).bit_length()
    return fingerprint(asset, _CODE[asset](), decided, sample, doubled, study.experiment.dataset)


def _came_to_life(study: Study, asset: str, proof: Proof) -> dict[str, str]:
    """Feature → why it is not judged, of those that were dull on the bars of their proof and are not among what is stored."""
    silent = [name for name in proof.silent if asset == FEATURES and name in study.available.names]
    if not silent or not study.lake.manifests(STORED, study.features_key):
        return {}
    scan = study.lake.scan(STORED, study.features_key).select(silent)
    counts = scan.select(pl.all().drop_nulls().drop_nans().n_unique()).collect().row(0, named=True)
    return {name: DULL for name, count in counts.items() if count > 1}


def _dataset(study: Study, asset: str) -> str:
    return {FEATURES: study.features_key, PREDICTIONS: study.ensemble_key}.get(asset, study.key)


def _engine_code(study: Study) -> list[str]:
    from tidemill.models.registry import code_version

    return [code_version(study.registry.engines.find(spec.name)) for spec in study.engines]


def _strategy_code(study: Study) -> str:
    return study.registry.strategies.code_version(study.experiment.strategy.name)


def _prove_features(study: Study) -> Proof:
    from tidemill.steps.checks.samples import prove_adjusting, prove_index
    from tidemill.steps.features.context import with_context
    from tidemill.validation.causality.features import prove_features

    bars = with_context(study, study.adjusted, study.available)
    proof = prove_features(study.available, bars, interval=study.dataset.interval)
    return _together([proof, prove_adjusting(study), prove_index(study)])


def _prove_predictions(study: Study) -> Proof:
    from tidemill.steps.checks.samples import prove_engines

    return prove_engines(study)


def _prove_signals(study: Study) -> Proof:
    from tidemill.steps.checks.samples import prove_signals, prove_weighing

    return _together([prove_weighing(study), prove_signals(study)])


def _together(proofs: Sequence[Proof]) -> Proof:
    names = (name for proof in proofs for name in proof.names)
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
