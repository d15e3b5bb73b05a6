"""The sentence classifier, with a tiny BERT of random weights that the test makes itself."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tidemill.domain.errors import InputError, IntegrityError
from tidemill.models.text.classifier import SentenceClassifier
from tidemill.models.text.registry import text_classifier

WORDS = ("profit", "loss", "shares", "rise", "fall", "bank", "growth", "fraud", "the", "of", "a", "in")
TEXTS = ["shares rise in the bank", "fraud", "the fall of profit " * 12, "", "growth of a loss", "shares fall " * 90]


def write_model(folder: Path, labels: tuple[str, ...] = ("positive", "negative", "neutral"), seed: int = 3) -> Path:
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder.mkdir(parents=True)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)), encoding="utf-8")
    BertTokenizerFast(str(vocabulary)).save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=5 + len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=128,
        initializer_range=1.0,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("text") / "tiny")


@pytest.fixture(scope="module")
def classifier(folder: Path) -> SentenceClassifier:
    return SentenceClassifier(folder)


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def reference(folder: Path, text: str) -> float:
    """The library used the plain way: one text, no padding."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    model = AutoModelForSequenceClassification.from_pretrained(str(folder), local_files_only=True).eval()
    with torch.inference_mode():
        chances = model(**tokenizer(text, truncation=True, max_length=128, return_tensors="pt")).logits.softmax(-1)[0]
    return float(chances[0] - chances[1])


def test_the_score_is_the_chance_of_positive_less_that_of_negative(classifier: SentenceClassifier, folder: Path) -> None:
    made = classifier.score(TEXTS)
    assert np.isnan(made[3])
    for number in (0, 1, 2, 4, 5):
        assert made[number] == pytest.approx(reference(folder, TEXTS[number]), abs=1e-5)
    assert len({round(float(value), 4) for value in made if value == value}) > 2


def test_a_texts_bits_do_not_depend_on_its_batch(classifier: SentenceClassifier) -> None:
    crowd = [*TEXTS, *(f"{first} of {second}" for first in WORDS for second in WORDS)]
    whole = classifier.score(crowd)
    alone = np.concatenate([classifier.score([text]) for text in crowd])
    assert np.array_equal(whole, alone, equal_nan=True)
    assert np.array_equal(classifier.score(crowd[::-1])[::-1], whole, equal_nan=True)


def test_labels_count_by_their_names_and_not_by_their_places(tmp_path: Path, classifier: SentenceClassifier) -> None:
    swapped = SentenceClassifier(write_model(tmp_path / "swapped", ("NEGATIVE", "Positive", "neutral")))
    texts = [text for text in TEXTS if text]
    assert swapped.score(texts) == pytest.approx(-classifier.score(texts), abs=1e-6)


def test_the_fingerprint_follows_the_content_of_the_folder(classifier: SentenceClassifier, own: Path, tmp_path: Path) -> None:
    assert SentenceClassifier(own).fingerprint == classifier.fingerprint
    assert SentenceClassifier(write_model(tmp_path / "other", seed=4)).fingerprint != classifier.fingerprint


def test_nothing_is_asked_of_a_network_and_no_model_is_loaded_before_the_first_text(folder: Path) -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise AssertionError('a connection was opened')\n"
        "socket.socket.connect = refuse\n"
        "from tidemill.models.text.registry import text_classifier\n"
        f"made = text_classifier('model:{folder}')\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
        "print(made.score(['profit']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.PT", "weights.pkl", "modeling_own.py", "tf_model.h5"])
def test_a_folder_with_what_could_hold_code_is_refused(own: Path, name: str) -> None:
    (own / name).write_bytes(b"\x80\x04")
    with pytest.raises(IntegrityError, match="may hold code"):
        SentenceClassifier(own)


def test_a_link_is_refused(own: Path, folder: Path) -> None:
    (own / "extra.json").symlink_to(folder / "config.json")
    with pytest.raises(IntegrityError, match="regular file"):
        SentenceClassifier(own)


def spoil(own: Path, **changes: object) -> None:
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"auto_map": {"AutoModel": "modeling.Own"}}, "code of its own"),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, "one positive and one negative"),
        ({"id2label": {"0": "positive", "1": "positive too"}}, "one positive and one negative"),
        ({"id2label": {"zero": "positive", "one": "negative"}}, "not numbered"),
        ({"id2label": None}, "names no labels"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(own: Path, changes: dict[str, object], text: str) -> None:
    spoil(own, **changes)
    with pytest.raises(IntegrityError, match=text):
        SentenceClassifier(own)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b" " * (2 << 20)])
def test_a_damaged_configuration_is_refused(own: Path, content: bytes) -> None:
    (own / "config.json").write_bytes(content)
    with pytest.raises(IntegrityError, match=r"config\.json"):
        SentenceClassifier(own)


def test_damaged_weights_are_refused_when_they_are_read(own: Path) -> None:
    (own / "model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00not a header")
    with pytest.raises(IntegrityError, match="cannot be read"):
        SentenceClassifier(own).score(["profit"])


def test_weights_without_a_head_are_refused(own: Path) -> None:
    from safetensors.numpy import load_file, save_file

    kept = {name: value for name, value in load_file(own / "model.safetensors").items() if "classifier" not in name}
    save_file(kept, own / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(IntegrityError, match="lack"):
        SentenceClassifier(own).score(["profit"])


def test_a_folder_without_weights_or_no_folder_is_refused(own: Path) -> None:
    with pytest.raises(InputError, match="no model folder"):
        text_classifier(f"model:{own / 'nowhere'}")
    (own / "model.safetensors").unlink()
    with pytest.raises(InputError, match="no safetensors"):
        text_classifier(f"model:{own}")
