"""The process in which a module is stepped: one file, run once, for as long as its owner lives."""

import gc
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.features.conftest import random_panel
from tidemill.domain.errors import InputError
from tidemill.user_modules.stepping import Stepping, stepping
from tidemill.user_modules.wire import Limits, Request

HEAD = "import polars as pl\nimport numpy as np\nruns = []\n"
NEWEST = "bars.select('symbol', 'open_time', "


class Owner:
    pass


@pytest.fixture(scope="module")
def bars() -> pl.DataFrame:
    return random_panel(3, symbols=2, slots=40)


def step(text: str, bars: pl.DataFrame, limits: Limits, owner: Owner) -> pl.DataFrame:
    file = Request(path="/nowhere/mine.py", text=HEAD + text)
    asked = Request(path=file.path, text=file.text, kind="features", name="features", by_tail=3, newest=1)
    return stepping(owner, file, limits).call(asked, bars)


def body(text: str) -> str:
    return f"def features(bars):\n    {text}\n"


GUARDED = Limits(seconds=30.0, memory=4_096)
COUNTING = body(f"runs.append(1); return {NEWEST}n=pl.lit(len(runs)), rows=pl.len().over('symbol'))")


def test_the_file_runs_once_and_each_owner_has_a_process_of_its_own(bars: pl.DataFrame) -> None:
    first, second = Owner(), Owner()
    told = [step(COUNTING, bars, GUARDED, owner)["n"][0] for owner in (first, first, second, first)]
    assert told == [1, 2, 1, 3]
    answer = step(COUNTING, bars, GUARDED, second)
    newest = bars.filter(pl.col("open_time") == bars["open_time"].max())
    assert answer.select("symbol", "open_time").equals(newest.select("symbol", "open_time"))
    assert set(answer["rows"]) == {3}


def test_it_ends_with_its_owner(bars: pl.DataFrame) -> None:
    owner = Owner()
    pid = int(step(body(f"import os; return {NEWEST}pid=pl.lit(os.getpid()))"), bars, GUARDED, owner)["pid"][0])
    assert runs(pid)
    del owner
    gc.collect()
    assert not runs(pid)


def runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
