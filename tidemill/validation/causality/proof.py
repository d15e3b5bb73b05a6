"""What a causality proof answers, apart from the machinery that finds it: who only reads verdicts loads no compiled code."""

from collections.abc import Sequence
from datetime import datetime

import msgspec


class Effort(msgspec.Struct, frozen=True, kw_only=True):
    """How much is tried.

    cuts: for each batch of symbols. reach: bars before an altered one that the comb looks at. warm, span: slots of a window
    before those altered, and slots altered. every_bar: whether comb and windows run at all. thorough: whether windows also run
    where each of them costs a fit. batch: rows computed at once where symbols do not depend on each other.
    """

    cuts: int = 6
    reach: int = 8
    warm: int = 64
    span: int = 64
    every_bar: bool = True
    thorough: bool = True
    batch: int = 80_000


class Refutation(msgspec.Struct, frozen=True):
    """A value that changed with what was not known yet: feature, symbol, open time of its bar, and what changed it."""

    feature: str
    symbol: str
    time: datetime
    why: str


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Features in their order. runs: computations made. longer: proven, but reading further back than their stated look-back.

    cross_sectional: features that change with the other symbols of the panel.
    """

    proven: tuple[str, ...]
    refuted: tuple[Refutation, ...]
    runs: int = 0
    longer: tuple[str, ...] = ()
    cross_sectional: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return not self.refuted


def merged(proofs: Sequence[Proof], names: tuple[str, ...]) -> Proof:
    """One proof of several, in the order of `names`; what any of them refutes is refuted."""
    refuted = {found.feature: found for proof in proofs for found in reversed(proof.refuted)}
    seen = {name for proof in proofs for name in proof.proven}
    longer = {name for proof in proofs for name in proof.longer}
    crossing = {name for proof in proofs for name in proof.cross_sectional}
    return Proof(
        proven=tuple(name for name in names if name in seen and name not in refuted),
        refuted=tuple(refuted[name] for name in names if name in refuted),
        runs=sum(proof.runs for proof in proofs),
        longer=tuple(name for name in names if name in longer and name not in refuted),
        cross_sectional=tuple(name for name in names if name in crossing),
    )
