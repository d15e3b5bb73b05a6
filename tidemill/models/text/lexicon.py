"""Sentiment by counting words: no download, no training, the same answer for ever. The words are in lexicon.yaml.

    score = (positive - negative) / (positive + negative + 1)

so a text without such words scores 0, one word ±0.5, and many that agree come near ±1. A negator among the three words before
one that points turns it round (Das and Chen, 2007; Loughran and McDonald, 2011), within its sentence.
"""

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

import msgspec
import numpy as np

from tidemill.models.base import Floats
from tidemill.provenance import fingerprint, source_version

NAME = "lexicon"
REACH = 3
_SHORTEST_BEGINNING = 2
_SENTENCE = re.compile(r"[.!?;:\n]+\s|\s[-–—]\s|\bbut\b|\bthough\b|\bhowever\b")
_WORD = re.compile(r"[a-z]+(?:[-'][a-z]+)*")


class Words(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The lists of lexicon.yaml; each is words with white space between them."""

    positive: str
    negative: str
    neutral: str
    negators: str
    diminishers: str


class _Listed:
    """Words, and beginnings of words, of one list."""

    def __init__(self, text: str) -> None:
        entries = text.split()
        self.whole = frozenset(entry for entry in entries if not entry.endswith("*"))
        self.beginnings = frozenset(entry[:-1] for entry in entries if entry.endswith("*"))

    def beginning(self, word: str) -> int:
        """Length of the longest beginning of `word` that is listed; 0 when there is none."""
        return next((end for end in range(len(word), _SHORTEST_BEGINNING - 1, -1) if word[:end] in self.beginnings), 0)

    def __contains__(self, word: str) -> bool:
        return word in self.whole or self.beginning(word) > 0


class Lexicon:
    """Scores texts by the words of lexicon.yaml. Safe to share between threads."""

    def __init__(self) -> None:
        import yaml

        text = files(__package__).joinpath("lexicon.yaml").read_text(encoding="utf-8")
        words = msgspec.convert(yaml.safe_load(text), Words)
        self.fingerprint = fingerprint(text, source_version(__name__))
        self._positive, self._negative, self._neutral = (
            _Listed(part) for part in (words.positive, words.negative, words.neutral)
        )
        self._negators, self._diminishers = _Listed(words.negators), _Listed(words.diminishers)
        self._polarity = cache(self._looked_up)

    @property
    def name(self) -> str:
        return NAME

    def score(self, texts: Sequence[str]) -> Floats:
        """One number in (-1, 1) for each text; NaN for a text without a single word."""
        return np.array([self._score(text) for text in texts], dtype=np.float64)

    def _score(self, text: str) -> float:
        positive = negative = seen = 0
        for sentence in _SENTENCE.split(text.lower().replace("’", "'")):
            words = _WORD.findall(sentence)
            seen += len(words)
            for place, word in enumerate(words):
                sign = self._polarity(word)
                if sign and self._turned(sign, words[max(0, place - REACH) : place]):
                    sign = -sign
                positive += sign > 0
                negative += sign < 0
        return (positive - negative) / (positive + negative + 1) if seen else float("nan")

    def _turned(self, sign: int, before: list[str]) -> bool:
        negators = sum(word in self._negators or word.endswith("n't") for word in before)
        return negators % 2 == 1 or (sign < 0 and negators == 0 and any(word in self._diminishers for word in before))

    def _looked_up(self, word: str) -> int:
        """1, -1 or 0. The list that has the word itself decides, else the one with the longest beginning of it."""
        if word in self._neutral.whole:
            return 0
        if word in self._positive.whole or word in self._negative.whole:
            return 1 if word in self._positive.whole else -1
        up, down, out = (part.beginning(word) for part in (self._positive, self._negative, self._neutral))
        if out >= max(up, down):
            return 0
        return 1 if up > down else -1
