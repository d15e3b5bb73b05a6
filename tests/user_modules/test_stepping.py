"""The process in which a module is stepped: one file, run once, for as long as its owner lives."""

import gc
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.features.conftest import random_panel
from tidemill.domain.errors import InputError
from tidemill.user_modules.stepping import stepping
from tidemill.user_modules.wire import Limits, Request

HEAD = "import polars as pl\nimport numpy as np\nruns = []\n"
GUARDED = Limits(seconds=30.0, memory=4_096)
FREE = Limits(seconds=30.0, memory=4_096, guarded=False)


class Owner:
    """What a decider in force is to a chain."""


@pytest.fixture(scope="module")
def bars() -> pl.DataFrame:
    return random_panel(3, symbols=2, slots=40)


def body(text: str) -> str:
    return f"def features(bars):\n    {text}\n"


def step(text: str, bars: pl.DataFrame, owner: Owner, limits: Limits = GUARDED) -> pl.DataFrame:
    file = Request(path="/nowhere/mine.py", text=HEAD + text)
    asked = Request(path=file.path, text=file.text, kind="features", name="features", by_tail=3, newest=1)
    return stepping(owner, file, limits).call(asked, bars)


def score(predict: str, owner: Owner, model: dict[str, Any], limits: Limits = FREE) -> Any:
    text = f"{HEAD}def predict(model, frame):\n    {predict}\nengine('mine', lambda training: 0, predict)\n"
    file = Request(path="/nowhere/mine.py", text=text)
    asked = Request(path=file.path, text=text, kind="engine", name="mine", second=True)
    return stepping(owner, file, limits).apply(asked, (model, pl.DataFrame({"a": [1.0, 2.0]})), {})


def told(column: str) -> str:
    return f"return bars.select('symbol', 'open_time', {column})"


PID = body(f"import os; {told('n=pl.lit(os.getpid())')}")
COUNTING = body(f"runs.append(1); {told('n=pl.lit(len(runs)), rows=pl.len().over(pl.col.symbol)')}")


def test_the_file_runs_once_and_each_owner_has_a_process_of_its_own(bars: pl.DataFrame) -> None:
    first, second = Owner(), Owner()
    assert [step(COUNTING, bars, owner)["n"][0] for owner in (first, first, second, first)] == [1, 2, 1, 3]
    answer = step(COUNTING, bars, second)
    newest = bars.filter(pl.col("open_time") == bars["open_time"].max())
    assert answer.select("symbol", "open_time").equals(newest.select("symbol", "open_time"))
    assert set(answer["rows"]) == {3}


def test_it_ends_with_its_owner(bars: pl.DataFrame) -> None:
    owner = Owner()
    pid = int(step(PID, bars, owner)["n"][0])
    assert runs(pid)
    del owner
    gc.collect()
    assert not runs(pid)


def test_a_model_goes_to_it_once_and_another_one_replaces_it() -> None:
    owner, seen = Owner(), "runs.append(id(model)); return model['w'] * len(set(runs)) + frame['a'].to_numpy()"
    first, second = {"w": np.ones(1)}, {"w": np.full(1, 10.0)}
    assert [score(seen, owner, dict(first)).tolist() for _ in range(3)] == [[2.0, 3.0]] * 3
    assert score(seen, owner, second).tolist() == [21.0, 22.0]
    assert score(seen, owner, first).tolist()[0] >= 3.0


def test_a_process_that_died_between_two_bars_is_replaced(bars: pl.DataFrame) -> None:
    owner, predict = Owner(), "import os; return model['w'] + [os.getpid(), 0]"
    model = {"w": np.ones(1)}
    pid = int(score(predict, owner, model)[0]) - 1
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert score(predict, owner, model)[1] == 1.0


REFUSED = [
    ("import os; os.fork()", r"wants to start or signal a process \(os.fork\) on line 6"),
    ("import threading; threading.Thread(target=threading.Event().wait).start()", "leaves a thread running"),
    (
        "import threading; t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()",
        "failed on line 6: ZeroDivisionError",
    ),
    ("while True: pass", "was stopped: it did not end within 2 s"),
    ("np.ones(1 << 29)", "failed on line 6: MemoryError"),
    ("open('/tmp/tidemill_stepping_test', 'w')", "wants to open '/tmp/tidemill_stepping_test' on line 6"),
    ("pl.read_csv('/etc/passwd')", "wants to use read_csv of polars on line 6"),
    ("import socket; socket.create_connection(('127.0.0.1', 9))", "wants to use the network"),
    ("import os; os._exit(3)", "ended its process. A function must return"),
    ("import signal; signal.raise_signal(9)", "ended its process by signal 9, most likely for want of memory"),
]


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_what_a_step_may_not_do_is_one_sentence_and_the_next_one_goes_on(bars: pl.DataFrame, text: str, reason: str) -> None:
    owner, limits = Owner(), Limits(seconds=2.0, memory=4_096)
    wrong = body(f"if bars['close'][0] < 0:\n        {text}\n    import os; {told('n=pl.lit(os.getpid())')}")
    first = int(step(wrong, bars, owner, limits)["n"][0])
    with pytest.raises(InputError, match=rf"^(A thread of t|T)he function features of mine.py {reason}") as refused:
        step(wrong, bars.with_columns(close=pl.lit(-1.0)), owner, limits)
    assert "\n" not in str(refused.value)
    assert not list(Path("/tmp").glob("tidemill_stepping_test*"))
    again = int(step(wrong, bars, owner, limits)["n"][0])
    assert again == first or not runs(first)
    del owner, refused  # what was raised holds the frames that it passed
    gc.collect()
    assert not runs(again)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("while True: pass", r"predict of the engine mine of mine.py was stopped: it did not end within 2 s"),
        ("import os; os.fork() or os._exit(0); import time; time.sleep(0.2); os._exit(4)", r"ended its process"),
        ("import os; os.fork() and os._exit(0); import time; time.sleep(600)", r"ended its process"),
        ("raise MemoryError('4 GiB')", r"predict of the engine mine of mine.py failed on line 5: MemoryError"),
    ],
)
def test_an_engine_that_does_not_answer_a_step_is_told_and_leaves_no_process(text: str, reason: str) -> None:
    owner, limits, begun = Owner(), Limits(seconds=2.0, memory=4_096, guarded=False), time.monotonic()
    with pytest.raises(InputError, match=reason):
        score(text, owner, {"w": np.ones(1)}, limits)
    assert time.monotonic() - begun < 60.0
    assert score("return frame['a']", owner, {"w": np.ones(1)}, limits).tolist() == [1.0, 2.0]


def test_a_process_that_an_engine_forked_answers_nothing() -> None:
    owner, model = Owner(), {"w": np.ones(1)}
    twice = "import os; os.fork(); return frame['a'].to_numpy() * (1 + len(runs) + (runs.append(1) or 0))"
    assert [score(twice, owner, model).tolist() for _ in range(3)] == [[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]]


def test_a_file_that_fails_at_its_start_says_so_at_each_step(bars: pl.DataFrame) -> None:
    owner = Owner()
    for _ in range(2):
        with pytest.raises(InputError, match=r"The module mine\.py wants to open '/etc/passwd' on line 4"):
            step("open('/etc/passwd')\n" + COUNTING, bars, owner)


def runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
