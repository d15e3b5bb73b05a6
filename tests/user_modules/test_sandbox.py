"""What a module's function may not do: each refusal is one sentence, and the next call goes on."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.features.conftest import random_panel
from tidemill.calendars import ALWAYS
from tidemill.domain.errors import InputError
from tidemill.domain.market import Instrument
from tidemill.user_modules.sandbox import Sandbox
from tidemill.user_modules.wire import Limits, Request

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


def test_an_interrupt_while_a_function_works_leaves_nothing_of_it_to_the_next_call(bars: pl.DataFrame) -> None:
    patient = Sandbox(Limits(seconds=20.0, memory=2_048))
    assert call(patient, GOOD, bars).height == bars.height
    with pytest.raises(KeyboardInterrupt), interrupted_after(1.0):
        call(patient, body("import threading; threading.Event().wait()"), bars)
    assert call(patient, GOOD, bars).height == bars.height
    patient.close()


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """What ctrl-C does to the main thread."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


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


def test_functions_of_two_files_are_kept_apart_and_errors_name_their_own_lines(sandbox: Sandbox, bars: pl.DataFrame) -> None:
    other, wrong = Path("/nowhere/other/mine.py"), body("bars['close']\n    raise ValueError('other')")
    doubled, tripled = GOOD, GOOD.replace("* 2", "* 3")
    for _ in range(2):
        assert call(sandbox, doubled, bars)["own"].equals(bars["close"] * 2, check_names=False)
        answer = sandbox.call(other, tripled, "features", "features", bars)
        assert answer["own"].equals(bars["close"] * 3, check_names=False)
        with pytest.raises(InputError, match="on line 5: ValueError: other"):
            sandbox.call(other, wrong, "features", "features", bars)


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


ENGINE = HEAD + (
    "def fit(training, *, features, rate=0.5):\n    {fit}\n"
    "def predict(model, frame):\n    {predict}\n"
    "engine('mine', fit, predict)\n"
    "def weigh(frame, instruments, share=0.5):\n    {weigh}\n"
    "strategy('mine', weigh)\n"
)
FINE = {
    "fit": "return {'w': np.ones(len(features)) * rate, 'n': training.height}",
    "predict": "return frame['close'] * model['w'][0]",
    "weigh": "return frame.select('symbol', 'open_time', weight=share * len(instruments))",
}


def engine_request(second: bool = False, kind: str = "engine", **body: str) -> Request:
    return Request(path="/nowhere/mine.py", text=ENGINE.format(**FINE | body), kind=kind, name="mine", second=second)


@pytest.fixture(scope="module")
def impatient() -> Iterator[Sandbox]:
    made = Sandbox(Limits(seconds=1.0, memory=512, guarded=False))
    yield made
    made.close()


def test_engines_and_strategies_get_what_they_would_get_in_the_program(impatient: Sandbox, bars: pl.DataFrame) -> None:
    model = impatient.apply(engine_request(), (bars,), {"features": ("a", "b"), "rate": 0.25})
    assert {name: array.tolist() for name, array in model.items()} == {"w": [0.25, 0.25], "n": [float(bars.height)]}
    scored = impatient.apply(engine_request(second=True), (model, bars), {})
    assert scored.tolist() == (bars["close"] * 0.25).fill_null(float("nan")).to_list() or np.array_equal(
        scored, (bars["close"] * 0.25).to_numpy(), equal_nan=True
    )
    venue = {"A": Instrument(venue="x", symbol="A", calendar=ALWAYS)}
    weights = impatient.apply(engine_request(kind="strategy"), (bars,), {"instruments": venue, "share": 0.5})
    assert weights.equals(bars.select("symbol", "open_time", weight=pl.lit(0.5)))


@pytest.mark.parametrize("loop", ["while True: pass", "import threading; threading.Event().wait()"])
@pytest.mark.parametrize(
    ("part", "said"),
    [("fit", "fit of the engine mine"), ("predict", "predict of the engine mine"), ("weigh", "The strategy mine")],
)
def test_an_engine_or_a_strategy_that_does_not_end_is_stopped_and_the_next_call_goes_on(
    impatient: Sandbox, bars: pl.DataFrame, part: str, said: str, loop: str
) -> None:
    kind = "strategy" if part == "weigh" else "engine"
    asked = {"fit": (bars,), "predict": ({"w": np.ones(1)}, bars), "weigh": (bars,)}[part]
    named = {"fit": {"features": ("a",)}, "predict": {}, "weigh": {"instruments": {}}}[part]
    with pytest.raises(InputError, match=rf"{said} of mine.py was stopped: .* within 1 s.* raise the setting engine_seconds"):
        impatient.apply(engine_request(part == "predict", kind, **{part: loop}), asked, named)  # type: ignore[arg-type]  # by kind
    assert impatient.apply(engine_request(), (bars,), {"features": ("a",)})["w"].tolist() == [0.5]


def test_an_engine_may_read_files_and_an_answer_that_is_none_is_a_bare_object(impatient: Sandbox, bars: pl.DataFrame) -> None:
    reading = engine_request(fit="return {'n': len(open('/etc/passwd').read()) > 0}")
    assert impatient.apply(reading, (bars,), {"features": ()})["n"].tolist() == [1.0]
    for answer in ("return 'much'", "return {1: 2.0}", "return {'a': 'b'}", "return bars_of_nobody"):
        request = engine_request(fit=answer)
        if "nobody" in answer:
            with pytest.raises(
                InputError, match=r"fit of the engine mine of mine.py uses a name that does not exist on line 4"
            ):
                impatient.apply(request, (bars,), {"features": ()})
        else:
            assert type(impatient.apply(request, (bars,), {"features": ()})) is object
