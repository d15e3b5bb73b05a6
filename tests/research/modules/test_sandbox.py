"""What a module's function may not do: each refusal is one sentence, and the next call goes on."""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from tests.features.conftest import random_panel
from tidemill.domain.errors import InputError
from tidemill.research.modules.sandbox import Sandbox
from tidemill.research.modules.wire import Limits

HEAD = "import polars as pl\nimport numpy as np\n"
GOOD = HEAD + "def features(bars):\n    return bars.select('symbol', 'open_time', own=pl.col('close') * 2)\n"


@pytest.fixture(scope="module")
def bars() -> pl.DataFrame:
    return random_panel(3, symbols=2, slots=40)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox(Limits(seconds=60.0, memory=2_048))
    yield made
    made.close()


@pytest.fixture(scope="module")
def hasty() -> Iterator[Sandbox]:
    made = Sandbox(Limits(seconds=1.0, memory=2_048))
    yield made
    made.close()


def call(sandbox: Sandbox, text: str, bars: pl.DataFrame) -> pl.DataFrame:
    return sandbox.call(Path("/nowhere/mine.py"), text, "features", "features", bars)


def body(text: str) -> str:
    return f"{HEAD}def features(bars):\n    {text}\n"


def test_a_function_answers_one_row_for_each_bar_in_their_order(sandbox: Sandbox, bars: pl.DataFrame) -> None:
    shuffled = GOOD.replace("* 2)", "* 2).sample(fraction=1.0, shuffle=True, seed=1)")
    expected = bars.select("symbol", "open_time", own=pl.col("close") * 2)
    assert call(sandbox, GOOD, bars).equals(expected)
    assert call(sandbox, shuffled, bars).equals(expected)
    assert call(sandbox, body("return bars['close'] * 2"), bars)["features"].equals(expected["own"], check_names=False)
    assert call(sandbox, body("return (bars['close'] * 2).to_numpy()"), bars)["features"].to_list() == expected["own"].to_list()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("open('/etc/passwd')", "wants to open '/etc/passwd'"),
        ("open('/tmp/tidemill_sandbox_test', 'w')", "wants to open '/tmp/tidemill_sandbox_test'"),
        ("import pathlib; pathlib.Path('/etc/passwd').read_text()", "wants to open '/etc/passwd'"),
        ("import os; os.listdir('/home')", "wants to list '/home'"),
        ("import os; os.remove('/tmp/tidemill_sandbox_test')", r"wants to change files \(os.remove\)"),
        ("import os; os.mkdir('/tmp/tidemill_sandbox_test')", r"wants to change files \(os.mkdir\)"),
        ("return pl.read_csv('/etc/passwd')", "wants to use read_csv of polars"),
        ("return pl.scan_parquet('x.parquet')", "wants to use scan_parquet of polars"),
        ("bars.write_parquet('/tmp/tidemill_sandbox_test')", "wants to use write_parquet of polars"),
        ("np.save('/tmp/tidemill_sandbox_test', [1])", "wants to open '/tmp/tidemill_sandbox_test.npy'"),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", "wants to use the network"),
        ("import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')", "wants to use the network"),
        ("import subprocess; subprocess.run(['true'])", "wants to start or signal a process"),
        ("import os; os.system('true')", "wants to start or signal a process"),
        ("import os; os.fork()", "wants to start or signal a process"),
        ("import os; os.kill(os.getppid(), 15)", "wants to start or signal a process"),
        ("np.ones((40_000, 40_000))", "MemoryError"),
        ("raise SystemExit(0)", "wants to end the program"),
        ("raise ValueError('a\\nb')", "ValueError: a b"),
        ("return unknown_name", "uses a name that does not exist"),
    ],
)
def test_what_a_function_may_not_do_is_one_sentence_with_its_line(
    sandbox: Sandbox, bars: pl.DataFrame, text: str, reason: str
) -> None:
    with pytest.raises(InputError, match=rf"The function features of mine.py .*{reason}") as refused:
        call(sandbox, body(text), bars)
    assert "on line 4" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not list(Path("/tmp").glob("tidemill_sandbox_test*"))
    assert call(sandbox, GOOD, bars).height == bars.height


@pytest.mark.parametrize("text", ["while True: pass", "import threading; threading.Event().wait()"])
def test_a_function_that_does_not_end_is_stopped_and_the_next_call_goes_on(
    hasty: Sandbox, bars: pl.DataFrame, text: str
) -> None:
    with pytest.raises(
        InputError, match=r"did not end within 1 s. Look for an endless loop, or raise the setting module_seconds"
    ):
        call(hasty, body(text), bars)
    assert call(hasty, GOOD, bars).height == bars.height


def test_a_file_whose_own_statements_do_not_end_or_read_a_file_is_refused(hasty: Sandbox) -> None:
    with pytest.raises(InputError, match=r"The module mine.py was stopped: it did not end within 1 s"):
        hasty.declare(Path("/nowhere/mine.py"), "while True: pass\n")
    with pytest.raises(InputError, match=r"The module mine.py wants to open '/etc/passwd' on line 1"):
        hasty.declare(Path("/nowhere/mine.py"), "text = open('/etc/passwd').read()\n")


def test_a_process_that_a_function_ends_is_replaced(sandbox: Sandbox, bars: pl.DataFrame) -> None:
    with pytest.raises(InputError, match="ended its process"):
        call(sandbox, body("import os; os._exit(3)"), bars)
    with pytest.raises(InputError, match="by signal 9, most likely for want of memory"):
        call(sandbox, body("import signal; signal.raise_signal(9)"), bars)
    assert call(sandbox, GOOD, bars).height == bars.height


def test_no_call_sees_what_an_earlier_one_left_in_the_module(sandbox: Sandbox, bars: pl.DataFrame) -> None:
    text = HEAD + "seen = []\ndef features(bars):\n    seen.append(1)\n    return bars.with_columns(n=len(seen)).select('n')\n"
    assert [call(sandbox, text, bars)["n"][0] for _ in range(3)] == [1, 1, 1]


def test_what_a_function_prints_or_asks_for_disturbs_nothing(sandbox: Sandbox, bars: pl.DataFrame) -> None:
    text = body("print('x' * 100_000); import sys, os; sys.stdin.read(); os.write(1, b'y'); return bars['close']")
    assert call(sandbox, text, bars).height == bars.height


def test_libraries_can_be_imported_inside_a_function(sandbox: Sandbox, bars: pl.DataFrame) -> None:
    text = body("import pandas, scipy.stats, zoneinfo; zoneinfo.ZoneInfo('Europe/Berlin'); return bars['close']")
    assert call(sandbox, text, bars).height == bars.height


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("return 1", "answers a int"),
        ("return bars['close'].head(3)", "answers 3 rows for"),
        ("return pl.concat([bars, bars])", "answers two rows for one bar"),
        ("return bars.with_columns(open_time=pl.lit('x'))", "answers times or symbols"),
    ],
)
def test_an_answer_that_is_no_frame_of_the_bars_is_refused(
    sandbox: Sandbox, bars: pl.DataFrame, text: str, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        call(sandbox, body(text), bars)


def test_secrets_of_the_environment_are_not_passed_on(
    sandbox: Sandbox, bars: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMILL_POSTGRES_DSN", "postgresql://x:secret@y/z")
    fresh = Sandbox(Limits(60.0, 2_048))
    text = body("import os; return bars.with_columns(n=pl.lit('TIDEMILL_POSTGRES_DSN' in os.environ)).select('n')")
    assert call(fresh, text, bars)["n"].to_list() == [False] * bars.height
    fresh.close()
