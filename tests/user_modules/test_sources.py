"""Which part of a file a declaration depends on."""

import ast

import pytest

from tidemill.user_modules.sources import Source

TEXT = """
import numpy as np
import polars as pl
K = 3
TABLE = {}
TABLE["a"] = 1
TABLE.update(b=2)
OTHER = 5

def helper(x):
    return x * K

def used(bars):
    return helper(bars)

def reads_table(bars):
    return TABLE

if K > 2:
    def branched(bars):
        return np.abs(bars)
else:
    branched = None

@staticmethod
def decorated(bars):
    return OTHER

features(used)
label("a", reads_table, horizon=K)
features(branched)
for window in (5, 10):
    features(decorated)
"""
LINES = {
    name: next(number for number, line in enumerate(TEXT.splitlines(), 1) if line.strip() == text)
    for name, text in {
        "used": "features(used)",
        "table": 'label("a", reads_table, horizon=K)',
        "branched": "features(branched)",
        "loop": "features(decorated)",
    }.items()
}


def version(name: str, old: str = "", new: str = "") -> str:
    assert not old or old in TEXT
    text = TEXT.replace(old, new) if old else TEXT
    return Source(ast.parse(text)).version(LINES[name])


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("K = 3", "K = 4", {"used", "table", "branched"}),
        ("return x * K", "return x + K", {"used"}),
        ('TABLE["a"] = 1', 'TABLE["a"] = 2', {"table"}),
        ("b=2", "b=3", {"table"}),
        ("OTHER = 5", "OTHER = 6", {"loop"}),
        ("@staticmethod", "@classmethod", {"loop"}),
        ("(5, 10)", "(5, 20)", {"loop"}),
        ("branched = None", "branched = 0", {"branched"}),
        ("import numpy as np", "import numpy.linalg as np", {"branched"}),
        ("import polars as pl", "import polars as pd", set()),
        ("return TABLE", "return TABLE  # a comment", set()),
        ("horizon=K", "horizon=K + 0", {"table"}),
    ],
)
def test_a_declaration_depends_on_what_it_names_directly_or_through_others(old: str, new: str, changed: set[str]) -> None:
    assert {name for name in LINES if version(name) != version(name, old, new)} == changed


def test_layout_does_not_count() -> None:
    spaced = TEXT.replace("    return x * K", "    return (x\n            * K)").replace("features(used)", "features( used )")
    line = next(number for number, text in enumerate(spaced.splitlines(), 1) if "features( used" in text)
    assert Source(ast.parse(spaced)).version(line) == version("used")
