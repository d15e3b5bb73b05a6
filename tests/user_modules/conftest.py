"""The README's examples, and files beside them."""

import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"
SECTION = "## Your own features, label, engine and strategy"


def example() -> str:
    """The one Python file of the README's section."""
    section = README.read_text(encoding="utf-8").partition(SECTION)[2].partition("\n## ")[0]
    (block,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return block


def estimator() -> str:
    """The README's engine with an estimator, which stands beside the file."""
    section = README.read_text(encoding="utf-8").partition(SECTION)[2].partition("\n## ")[0]
    (block,) = re.findall(r" *```py\n(.*?)```", section, re.DOTALL)
    return textwrap.dedent(block)


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(text)` puts a module into the test's own folder."""

    def put(text: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return put
