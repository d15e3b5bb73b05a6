"""Where the formulas of the shipped features come from, for people. Standard library only."""

import re
from collections.abc import Mapping

_SOURCES: Mapping[str, str] = {
    "alpha158": "qlib, Alpha158",
    "alpha30": "qlib, Alpha158",
    "classic": "TA-Lib 0.6; Wilder (1978), Kaufman, Mulloy (1994)",
    "cross": "qlib, CSRankNorm and CSZScoreNorm, over one row of symbols",
    "calendar": "open_time, UTC",
    "regime": "own definition",
    "fear_greed": "alternative.me, Fear & Greed Index, known one day after its stamp",
}
_HMM = "Hamilton (1989); fitted as in Rabiner (1989)"
_NUMBERS = re.compile(r"[0-9.]+")


def feature_source(name: str, sets: Mapping[str, tuple[str, ...]]) -> str:
    """The source of a feature by the set that holds it, or one that differs from it in numbers alone; empty where none does.

    sets: the sets and their names.
    """
    if name.startswith("hmm_"):
        return _HMM
    stem = _NUMBERS.sub("#", name)
    for known, names in sets.items():
        if name in names or stem in {_NUMBERS.sub("#", other) for other in names}:
            return _SOURCES.get(known, "")
    return ""
