"""What a causality proof answers, apart from the machinery that finds it: who only reads verdicts loads no compiled code."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

# Stands beside every verdict.
CANNOT_SEE = (
    "A proof computes again on other bars: it cannot see what a function takes from the day of the run, "
    "nor a constant that was worked out elsewhere from later bars."
)

DULL = "it is constant or unknown on the bars on which it was proven, and not in the data"


class Effort(msgspec.Struct, frozen=True, kw_only=True):
    """How much is tried.

    cuts: of all symbols; where they come in several batches, about twice as many in all. reach: bars before an altered one
    that the comb looks at. warm, span: slots of a window before those altered, and slots altered. every_bar: whether comb and
    windows run at all; altered, slots: on a panel of up to so many rows, and of these windows up to so many slots. living: rows
    of a feature at which its window's own value is another one, that are cut; 0 for none. compared: slots of the windows whose
    own values are looked at. batch: rows computed at once where symbols do not depend on each other.
    """

    cuts: int = 6
    reach: int = 8
    warm: int = 64
    span: int = 64
    every_bar: bool = True
    altered: int = 12_000
    slots: int = 256
    living: int = 200
    compared: int = 8_192
    batch: int = 160_000


class Refutation(msgspec.Struct, frozen=True):
    """A value that changed with what was not known yet: feature, symbol, open time of its bar, and what changed it.

    fails: no value changed; there was none, since the computation fails on what was known.
    """

    feature: str
    symbol: str
    time: datetime
    why: str
    fails: bool = False


class Unjudged(msgspec.Struct, frozen=True):
    """A feature of which neither was shown: nothing speaks against it, and nothing was tried where it lives."""

    feature: str
    why: str


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Features in their order. runs: computations made. longer: proven, but reading further back than their stated look-back.

    cross_sectional: features that change with the other symbols of the panel. unjudged: neither proven nor refuted. silent:
    proven, but constant or null on all the bars of the proof: as soon as they live, they are not judged. bars: fingerprint of
    those, where the proof is kept.
    """

    proven: tuple[str, ...]
    refuted: tuple[Refutation, ...]
    runs: int = 0
    longer: tuple[str, ...] = ()
    cross_sectional: tuple[str, ...] = ()
    unjudged: tuple[Unjudged, ...] = ()
    silent: tuple[str, ...] = ()
    bars: str = ""

    @property
    def holds(self) -> bool:
        return not self.refuted and not self.unjudged

    @property
    def ahead(self) -> tuple[Refutation, ...]:
        """Those of the refuted that look ahead."""
        return tuple(one for one in self.refuted if not one.fails)

    @property
    def failing(self) -> tuple[Refutation, ...]:
        """Those of the refuted that fail on what was known."""
        return tuple(one for one in self.refuted if one.fails)

    @property
    def names(self) -> tuple[str, ...]:
        """Every feature that it says something of."""
        found = (*self.proven, *(one.feature for one in self.refuted), *(one.feature for one in self.unjudged))
        return tuple(dict.fromkeys(found))

    def without_judging(self, why: dict[str, str]) -> "Proof":
        """The same, but the proven features of `why` are not judged, for the reason given there."""
        lost = tuple(Unjudged(name, why[name]) for name in self.proven if name in why)
        gone = {one.feature for one in lost}
        return msgspec.structs.replace(
            self,
            proven=tuple(name for name in self.proven if name not in gone),
            unjudged=(*self.unjudged, *lost),
            silent=tuple(name for name in self.silent if name not in gone),
        )


def merged(proofs: Sequence[Proof], names: tuple[str, ...]) -> Proof:
    """One proof of several, in the order of `names`: what any of them refutes is refuted, what any leaves open is open."""
    every = [found for proof in proofs for found in reversed(proof.refuted)]
    # What looks ahead weighs more than what fails.
    refuted = {found.feature: found for found in sorted(every, key=lambda found: not found.fails)}
    unjudged = {found.feature: found for proof in proofs for found in proof.unjudged if found.feature not in refuted}
    seen = {name for proof in proofs for name in proof.proven}
    proven = tuple(name for name in names if name in seen and name not in refuted and name not in unjudged)

    def told(given: str) -> set[str]:
        return {name for proof in proofs for name in getattr(proof, given)}

    return Proof(
        proven=proven,
        refuted=tuple(refuted[name] for name in names if name in refuted),
        runs=sum(proof.runs for proof in proofs),
        longer=tuple(name for name in names if name in told("longer") - set(refuted)),
        cross_sectional=tuple(name for name in names if name in told("cross_sectional")),
        unjudged=tuple(unjudged[name] for name in names if name in unjudged),
        silent=tuple(name for name in proven if name in told("silent")),
    )
