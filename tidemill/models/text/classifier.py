"""A sentence classifier in the manner of FinBERT, from a folder of this machine: configuration, tokenizer, safetensors weights.

    score = P(positive) - P(negative)

Nothing is downloaded and no code of the folder is run. Weights in any other format than safetensors are refused, since to read
a pickle is to execute it. A text's score does not depend on its batch: texts are cut to 128 tokens, padded to 32, 64 or 128 by
their own length alone, and scored in blocks of 16 on one thread.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tidemill.domain.errors import InputError, IntegrityError
from tidemill.models.base import Floats
from tidemill.models.sequence.threads import one_thread
from tidemill.provenance import fingerprint, library_version, source_version

LENGTHS = (32, 64, 128)
BLOCK = 16
_WEIGHTS = ".safetensors"
# Formats of weights that hold a pickle or code, and code itself.
_REFUSED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".msgpack", ".npy", ".npz", ".joblib", ".py", ".so")
_MAXIMUM_CONFIG_BYTES = 1 << 20
_READ_BYTES = 1 << 20


class SentenceClassifier:
    """The model in `folder`, loaded at the first text. Raises InputError or IntegrityError for a folder that is not fit.

    The configuration must name one label that begins with "positive" and one that begins with "negative", in any case.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        files = _checked_files(folder)
        self._signs = _signs(folder)
        digests = {file.name: _digest(file) for file in files}
        self.fingerprint = fingerprint(digests, source_version(__name__), library_version("transformers"))

    @property
    def name(self) -> str:
        return f"model:{self._folder.name}"

    def score(self, texts: Sequence[str]) -> Floats:
        """One number in [-1, 1] for each text; NaN for a text without a character."""
        filled = [number for number, text in enumerate(texts) if text.strip()]
        made = np.full(len(texts), np.nan)
        if not filled:
            return made
        encoded = self._tokenizer([texts[number] for number in filled], truncation=True, max_length=self._longest)["input_ids"]
        by_length: dict[int, list[int]] = {}
        for place, tokens in enumerate(encoded):
            by_length.setdefault(_padded_length(len(tokens)), []).append(place)
        with one_thread():
            for length, places in sorted(by_length.items()):
                for first in range(0, len(places), BLOCK):
                    block = places[first : first + BLOCK]
                    made[[filled[place] for place in block]] = self._block([encoded[place] for place in block], length)
        return made

    def _block(self, rows: list[list[int]], length: int) -> Floats:
        """Scores of up to BLOCK token lists, as one full block of `length` tokens each."""
        import torch

        tokens = torch.full((BLOCK, length), self._padding)
        attention = torch.zeros((BLOCK, length), dtype=torch.int64)
        attention[:, 0] = 1  # a row of padding alone would be all NaN
        for number, row in enumerate(rows):
            tokens[number, : len(row)] = torch.tensor(row)
            attention[number, : len(row)] = 1
        with torch.inference_mode():
            logits = self._model(input_ids=tokens, attention_mask=attention).logits
            scores = logits.softmax(-1).double() @ torch.tensor(self._signs, dtype=torch.float64)
        return np.asarray(scores[: len(rows)].numpy(), dtype=np.float64)

    @property
    def _padding(self) -> int:
        return int(self._tokenizer.pad_token_id or 0)

    @property
    def _longest(self) -> int:
        return min(LENGTHS[-1], int(getattr(self._model.config, "max_position_embeddings", LENGTHS[-1])))

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        try:
            # A folder, never a name on a hub: the code of a stranger's model is not run.
            return AutoTokenizer.from_pretrained(str(self._folder), local_files_only=True, trust_remote_code=False)  # nosec B615
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise IntegrityError(f"The tokenizer in {self._folder} cannot be read: {_first_line(exc)}. Restore it.") from exc

    @cached_property
    def _model(self) -> Any:
        from safetensors import SafetensorError
        from transformers import AutoModelForSequenceClassification

        try:
            loaded, report = AutoModelForSequenceClassification.from_pretrained(
                str(self._folder),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )  # nosec B615
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as exc:
            raise IntegrityError(f"The model in {self._folder} cannot be read: {_first_line(exc)}. Restore it.") from exc
        missing = sorted(report["missing_keys"])
        if missing:
            raise IntegrityError(
                f"The weights in {self._folder} lack {', '.join(missing[:3])}; they are not a sentence classifier's."
            )
        return loaded.float().eval()


def _checked_files(folder: Path) -> list[Path]:
    """The files of the folder, sorted; only regular ones, none that could hold code."""
    if not folder.is_dir():
        raise InputError(f"There is no model folder {folder}. Give one with config.json, a tokenizer and safetensors weights.")
    files = sorted(folder.iterdir())
    for file in files:
        if file.name.lower().endswith(_REFUSED):
            raise IntegrityError(
                f"The model in {folder} is refused: {file.name} may hold code. Keep safetensors weights only; a .bin can be "
                "converted where it is trusted."
            )
        if not file.is_dir() and (file.is_symlink() or not file.is_file()):
            raise IntegrityError(f"The model in {folder} is refused: {file.name} is not a regular file.")
    regular = [file for file in files if file.is_file()]
    if not any(file.name.endswith(_WEIGHTS) for file in regular):
        raise InputError(f"There are no safetensors weights in {folder}. Give a model whose weights are in that format.")
    return regular


def _signs(folder: Path) -> list[float]:
    """1 for the positive label, -1 for the negative, 0 for others, in the order of the model's outputs."""
    config = _config(folder)
    if "auto_map" in config:
        raise IntegrityError(f"The model in {folder} is refused: its configuration asks for code of its own.")
    labels = config.get("id2label")
    if not isinstance(labels, dict) or not all(isinstance(name, str) for name in labels.values()):
        raise IntegrityError(f"The configuration in {folder} names no labels. Add id2label with positive and negative.")
    try:
        names = [name.lower() for _, name in sorted(labels.items(), key=lambda item: int(item[0]))]
    except ValueError as exc:
        raise IntegrityError(f"The labels in {folder}/config.json are not numbered. Restore the file.") from exc
    signs = [float(name.startswith("positive")) - float(name.startswith("negative")) for name in names]
    if sorted(sign for sign in signs if sign) != [-1.0, 1.0]:
        raise IntegrityError(f"The labels in {folder} are {', '.join(names)[:120]}; one positive and one negative are needed.")
    return signs


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        with path.open("rb") as file:
            text = file.read(_MAXIMUM_CONFIG_BYTES + 1)
        found = json.loads(text) if len(text) <= _MAXIMUM_CONFIG_BYTES else None
    except (OSError, ValueError, RecursionError) as exc:
        raise IntegrityError(f"{path} cannot be read as a model's configuration. Restore it.") from exc
    if not isinstance(found, dict):
        raise IntegrityError(f"{path} is not a model's configuration. Restore it.")
    return found


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while part := stream.read(_READ_BYTES):
            digest.update(part)
    return digest.hexdigest()


def _padded_length(tokens: int) -> int:
    return next(length for length in LENGTHS if tokens <= length)


def _first_line(exc: BaseException) -> str:
    return (str(exc).splitlines() or [type(exc).__name__])[0][:200].rstrip(".")
