"""Text classifiers by what an experiment calls them: `lexicon`, or `model:FOLDER`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tidemill.domain.errors import UnknownNameError
from tidemill.models.base import Floats

MODEL = "model:"


class TextClassifier(Protocol):
    """Scores texts from -1, bad news, to 1, good news. `fingerprint` changes with whatever could change a score."""

    fingerprint: str

    @property
    def name(self) -> str: ...

    def score(self, texts: Sequence[str]) -> Floats:
        """One number for each text; NaN for a text with nothing to read."""
        ...


def require_classifier(name: str) -> None:
    """UnknownNameError unless `name` is that of a classifier. Nothing is loaded."""
    if name != "lexicon" and (not name.startswith(MODEL) or name == MODEL):
        raise UnknownNameError("text classifier", name, ("lexicon", "model:FOLDER"))


def text_classifier(name: str) -> TextClassifier:
    """The classifier `lexicon` or `model:FOLDER`. UnknownNameError for another name; a folder's own errors for a bad folder."""
    require_classifier(name)
    if name.startswith(MODEL):
        from tidemill.models.text.classifier import SentenceClassifier

        return SentenceClassifier(Path(name.removeprefix(MODEL)).expanduser())
    from tidemill.models.text.lexicon import Lexicon

    return Lexicon()
