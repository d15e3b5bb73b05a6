"""What a module's function may not do: each refusal is one sentence, and the next call goes on."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from tests.features.conftest import random_panel
from tidemill.calendars import ALWAYS
from tidemill.domain.errors import FunctionError, InputError
from tidemill.domain.market import Instrument
from tidemill.user_modules.sandbox import Sandbox
from tidemill.user_modules.wire import Limits, Request

HEAD = "import polars as pl\nimport numpy as np\n"
BY_DUCKDB = "wants to use a file by way of duckdb"
GOOD = HEAD + "def features(bars):\n    return bars.select('symbol', 'open_time', own=pl.col('close') * 2)\n"


@pytest.fixture(scope="module")
def bars() -> pl.DataFrame:
    return random_panel(3, symbols=2, slots=40)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox(Limits(seconds=60.0, memory=4_096))
    yield made
    made.close()


@pytest.fixture(scope="module")
def hasty() -> Iterator[Sandbox]:
    made = Sandbox(Limits(seconds=1.0, memory=2_048))
    yield made
    made.close()


def call(sandbox: Sandbox, text: str, bars: pl.DataFrame, path: str = "/nowhere/mine.py") -> pl.DataFrame:
    return sandbox.call(Request(path=path, text=text, kind="features", name="features"), bars)


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
        ("return pl.io.read_csv(source='/etc/passwd')", "wants to use read_csv of polars"),
        ("return pl.read_csv(has_header=False, source='/etc/passwd')", "wants to use read_csv of polars"),
        ("import pathlib; return pl.read_parquet([pathlib.Path('x.parquet')])", "wants to use read_parquet of polars"),
        ("return pl.sql(\"SELECT * FROM read_csv('/etc/passwd')\").collect()", "wants to use read_csv in SQL of polars"),
        ("return pl.SQLContext(b=bars).execute('SELECT * FROM READ_PARQUET (1)')", "wants to use read_parquet in SQL"),
        ("return bars.sql('SELECT * FROM \"scan_csv\"(1)')", "wants to use scan_csv in SQL of polars"),
        ("bars.lazy().sink_csv('/tmp/tidemill_sandbox_test')", "wants to use sink_csv of polars"),
        ("import pandas; pandas.read_csv('/etc/passwd')", "wants to use read_csv of pandas"),
        ("import pandas as pd; pd.read_parquet('x.parquet')", "wants to use read_parquet of pandas"),
        ("from pandas import read_feather; read_feather(path='x')", "wants to use read_feather of pandas"),
        ("__import__('pandas').read_orc('x')", "wants to use read_orc of pandas"),
        ("bars.to_pandas().to_parquet('/tmp/tidemill_sandbox_test')", "wants to (open|use)"),
        ("import pyarrow.parquet as pq; pq.read_table('x.parquet')", "wants to use read_table of pyarrow"),
        ("import pyarrow.parquet as pq; pq.ParquetFile('x.parquet')", "wants to use ParquetFile of pyarrow"),
        ("from pyarrow import csv; csv.read_csv('/etc/passwd')", "wants to use read_csv of pyarrow"),
        ("import pyarrow.dataset as ds; ds.dataset('/etc')", "wants to use dataset of pyarrow"),
        ("import pyarrow as pa; pa.memory_map('/etc/passwd')", "wants to use memory_map of pyarrow"),
        ("import pyarrow as pa; pa.OSFile('/etc/passwd')", "wants to use OSFile of pyarrow"),
        ("import pyarrow.ipc; pyarrow.ipc.open_file('/etc/passwd')", "wants to use open_file of pyarrow"),
        ("from pyarrow import fs; fs.LocalFileSystem().open_input_file('/etc/passwd')", "wants to use LocalFileSystem"),
        (
            "import duckdb; duckdb.sql(\"SELECT * FROM read_csv('/etc/passwd')\").fetchall()",
            BY_DUCKDB,
        ),
        ("import duckdb; duckdb.sql(\"SELECT * FROM '/etc/x.parquet'\").fetchall()", BY_DUCKDB),
        ("import duckdb; duckdb.read_csv('/etc/passwd')", BY_DUCKDB),
        ("import duckdb; duckdb.connect('/etc/x.db')", "wants to use connect of duckdb"),
        (
            "import duckdb; duckdb.connect().execute(\"SELECT * FROM read_text('/etc/passwd')\").fetchall()",
            BY_DUCKDB,
        ),
        ("return pl.scan_parquet('x.parquet')", "wants to use scan_parquet of polars"),
        ("return pl.LazyFrame.deserialize('x.plan').collect()", "wants to use deserialize of polars"),
        ("return pl.DataFrame.deserialize('x.frame')", "wants to use deserialize of polars"),
        ("import torch; return torch.from_file('x.bin', size=1)", "wants to use from_file of torch"),
        ("import torch; return torch.UntypedStorage.from_file('x.bin', False, 8)", "wants to use from_file of torch"),
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
        hasty.declare(Request(path="/nowhere/mine.py", text="while True: pass\n"))
    with pytest.raises(InputError, match=r"The module mine.py wants to open '/etc/passwd' on line 1"):
        hasty.declare(Request(path="/nowhere/mine.py", text="text = open('/etc/passwd').read()\n"))


def test_a_process_that_a_function_ends_is_replaced(sandbox: Sandbox, bars: pl.DataFrame) -> None:
    with pytest.raises(InputError, match="ended its process"):
        call(sandbox, body("import os; os._exit(3)"), bars)
    with pytest.raises(InputError, match="by signal 9, most likely for want of memory"):
        call(sandbox, body("import signal; signal.raise_signal(9)"), bars)
    assert call(sandbox, GOOD, bars).height == bars.height


def test_no_call_sees_what_an_earlier_one_left_in_the_module(sandbox: Sandbox, bars: pl.DataFrame) -> None:
    text = HEAD + "seen = []\ndef features(bars):\n    seen.append(1)\n    return bars.with_columns(n=len(seen)).select('n')\n"
    assert [call(sandbox, text, bars)["n"][0] for _ in range(3)] == [1, 1, 1]


REMEMBERS = """
    where = {where}
    seen = getattr(where, "seen", 0) + 1
    where.seen = seen
    return bars.select("symbol", "open_time", n=pl.lit(seen))
"""


@pytest.mark.parametrize("where", ["np", "pl.DataFrame", "features", "__import__('sys')", "__import__('os').environ.__class__"])
def test_no_call_sees_what_an_earlier_one_left_in_a_library(sandbox: Sandbox, bars: pl.DataFrame, where: str) -> None:
    text = HEAD + "def features(bars):" + REMEMBERS.format(where=where)
    assert [call(sandbox, text, bars)["n"][0] for _ in range(3)] == [1, 1, 1]


PATCHES = "np.sqrt = lambda x: x * 0.0\n{indent}pl.Expr.abs = lambda self: self * 0.0\n"
HONEST = HEAD + (
    "def features(bars):\n"
    "    return bars.select('symbol', 'open_time', root=np.sqrt(bars['close'].to_numpy()), size=(-pl.col('close')).abs())\n"
)


@pytest.mark.parametrize("at_import", [True, False])
def test_a_library_that_one_module_patches_is_the_real_one_for_every_other_call(
    sandbox: Sandbox, bars: pl.DataFrame, at_import: bool
) -> None:
    inside = "" if at_import else "    " + PATCHES.format(indent="    ")
    outside = PATCHES.format(indent="") if at_import else ""
    patching = HONEST.replace("    return", inside + "    return").replace("def features", outside + "def features")
    before = call(sandbox, HONEST, bars)
    patched = call(sandbox, patching, bars, "/nowhere/other.py")
    assert patched["root"].fill_nan(0.0).fill_null(0.0).sum() == patched["size"].fill_nan(0.0).fill_null(0.0).sum() == 0.0
    assert call(sandbox, HONEST, bars).equals(before, null_equal=True)
    assert before["root"].fill_nan(0.0).fill_null(0.0).sum() > 0.0


LEFT = "import threading, time; threading.Thread(target=lambda: time.sleep(600)).start()"
FAILING = "import threading; t = threading.Thread(target=lambda: {}); t.start(); t.join(); return bars['close']"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LEFT, r"The function features of mine.py leaves a thread running \(Thread-1 .*Wait for its end"),
        (
            FAILING.format("open('/etc/passwd')"),
            "A thread of the function .* wants to open '/etc/passwd' on line 4",
        ),
        (FAILING.format("np.ones(1 << 31)"), "A thread of the function features of mine.py failed on line 4: MemoryError"),
        (FAILING.format("exit(1)"), "A thread of the function features of mine.py wants to end the program on line 4"),
        (FAILING.format("1 / 0").replace("t.join()", "t.join(); 2 / 0"), "The function features of mine.py failed on line 4"),
        (
            "import _thread, time; _thread.start_new_thread(lambda: 1 / 0, ()); time.sleep(0.3); return bars['close']",
            "A thread of the function features of mine.py failed on line 4: ZeroDivisionError",
        ),
        (
            "import threading\n    for _ in range(9000): threading.Thread(target=threading.Event().wait).start()",
            "start new thread",
        ),
    ],
)
def test_a_thread_that_fails_or_is_left_running_is_one_sentence(
    sandbox: Sandbox, bars: pl.DataFrame, text: str, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        call(sandbox, body(text if "return" in text else f"{text}\n    return bars['close']"), bars)
    assert call(sandbox, GOOD, bars).height == bars.height


def test_threads_that_end_within_the_call_are_allowed(sandbox: Sandbox, bars: pl.DataFrame) -> None:
    text = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "    with ThreadPoolExecutor(4) as pool:\n        return list(pool.map(float, bars['close']))"
    )
    assert call(sandbox, body(text), bars)["features"].to_list() == bars["close"].to_list()


def test_functions_of_two_files_are_kept_apart_and_errors_name_their_own_lines(sandbox: Sandbox, bars: pl.DataFrame) -> None:
    other, wrong = "/nowhere/other/mine.py", body("bars['close']\n    raise ValueError('other')")
    doubled, tripled = GOOD, GOOD.replace("* 2", "* 3")
    for _ in range(2):
        assert call(sandbox, doubled, bars)["own"].equals(bars["close"] * 2, check_names=False)
        answer = call(sandbox, tripled, bars, other)
        assert answer["own"].equals(bars["close"] * 3, check_names=False)
        with pytest.raises(InputError, match="on line 5: ValueError: other"):
            call(sandbox, wrong, bars, other)


def test_what_a_function_prints_or_asks_for_disturbs_nothing(sandbox: Sandbox, bars: pl.DataFrame) -> None:
    text = body("print('x' * 100_000); import sys, os; sys.stdin.read(); os.write(1, b'y'); return bars['close']")
    assert call(sandbox, text, bars).height == bars.height


def test_what_is_given_in_memory_can_be_read_and_written(sandbox: Sandbox, bars: pl.DataFrame) -> None:
    text = body(
        "import duckdb, io, pandas, pyarrow.parquet\n"
        "    sector = pl.read_csv(b'symbol,sector\\nA,7\\n')['sector'][0]\n"
        "    more = pandas.read_csv(io.StringIO('a,b\\n1,2\\n'))['b'][0]\n"
        "    buffer = io.BytesIO(); bars.write_parquet(buffer); buffer.seek(0)\n"
        "    rows = pyarrow.parquet.read_table(buffer).num_rows\n"
        "    total = bars.sql('SELECT count(*) AS n FROM self')['n'][0]\n"
        "    total += duckdb.sql('SELECT count(*) FROM bars').fetchall()[0][0]\n"
        "    total += duckdb.connect().sql('SELECT count(*) FROM bars').fetchall()[0][0]\n"
        "    return bars.select('symbol', 'open_time', n=pl.lit(sector + more + rows + total))"
    )
    assert call(sandbox, text, bars)["n"][0] == 7 + 2 + 4 * bars.height


def test_libraries_can_be_imported_inside_a_function(sandbox: Sandbox, bars: pl.DataFrame) -> None:
    text = body("import pandas, scipy.stats, zoneinfo; zoneinfo.ZoneInfo('Europe/Berlin'); return bars['close']")
    assert call(sandbox, text, bars).height == bars.height


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("return 1", "returned a value of type int; it must return a polars DataFrame or Series"),
        ("return bars['close'].head(3)", "returned 3 rows for"),
        ("return pl.concat([bars, bars])", "returned two rows for one bar"),
        ("return bars.with_columns(open_time=pl.lit('x'))", "returned a symbol or open_time of another type"),
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


@pytest.mark.parametrize(
    "loop", ["while True: pass", pytest.param("import threading; threading.Event().wait()", marks=pytest.mark.long)]
)
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


ESTIMATOR = HEAD + (
    "from sklearn.linear_model import Ridge\n"
    "def fit(training, *, features, alpha=1.0):\n"
    "    return Ridge(alpha=alpha).fit(training.select(features).to_numpy(), training['close'].to_numpy())\n"
    "def predict(model, frame, *, features):\n    return model.predict(frame.select(features).to_numpy())\n"
    "def save(model):\n    {save}\n"
    "def load(stored):\n    {load}\n"
    "engine('mine', fit, predict{given})\n"
)
KEPT = {
    "save": "return {'coef': model.coef_, 'intercept': model.intercept_}",
    "load": "model = Ridge(); model.coef_, model.intercept_ = stored['coef'], stored['intercept'][0]; return model",
    "given": ", save=save, load=load",
}


def estimator_request(second: bool = False, **body: str) -> Request:
    text = ESTIMATOR.format(**KEPT | body)
    return Request(path="/nowhere/mine.py", text=text, kind="engine", name="mine", second=second)


AS_TEXT = {
    "save": "import json; return json.dumps([*model.coef_.tolist(), float(model.intercept_)])",
    "load": "import json; model = Ridge(); *w, model.intercept_ = json.loads(stored); model.coef_ = np.array(w); return model",
}
AS_BYTES = {
    "save": "return np.append(model.coef_, model.intercept_).astype('<f4').tobytes()[:-1] + b'\\0'",
    "load": "a = np.frombuffer(stored, '<f4'); model = Ridge(); model.coef_, model.intercept_ = a[:-1], a[-1]; return model",
}


@pytest.fixture(scope="module")
def unguarded() -> Iterator[Sandbox]:
    made = Sandbox(Limits(seconds=60.0, memory=512, guarded=False))
    yield made
    made.close()


@pytest.mark.parametrize(("stored", "error"), [({}, 1e-12), (AS_TEXT, 1e-12), (AS_BYTES, 1.0)])
def test_an_estimator_is_stored_by_save_and_comes_back_by_load(
    unguarded: Sandbox, stored: dict[str, str], error: float
) -> None:
    from sklearn.linear_model import Ridge

    rows = pl.DataFrame({"open": [1.0, 2.0, 3.0, 5.0], "volume": [2.0, 1.0, 4.0, 3.0], "close": [2.0, 3.0, 5.0, 9.0]})
    asked = {"features": ("open", "volume"), "alpha": 0.5}
    model = unguarded.apply(estimator_request(**stored), (rows,), asked)
    assert all(array.dtype == np.float64 for array in model.values())
    told = unguarded.apply(estimator_request(True, **stored), (model, rows), {"features": ("open", "volume")})
    x, y = rows.select("open", "volume").to_numpy(), rows["close"].to_numpy()
    assert np.abs(told - Ridge(alpha=0.5).fit(x, y).predict(x)).max() < error


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"save": "return model.nothing"}, r"save of the engine mine of mine.py failed on line 9: AttributeError"),
        ({"load": "return Ridge(stored['absent'])"}, r"load of the engine mine of mine.py failed on line 11: KeyError"),
    ],
)
def test_what_save_and_load_raise_names_them_and_their_line(unguarded: Sandbox, body: dict[str, str], reason: str) -> None:
    rows = pl.DataFrame({"open": [1.0, 2.0], "close": [2.0, 3.0]})

    def stored_and_used() -> None:
        model = unguarded.apply(estimator_request(**body), (rows,), {"features": ("open",), "alpha": 0.5})
        unguarded.apply(estimator_request(True, **body), (model, rows), {"features": ("open",)})

    with pytest.raises(InputError, match=reason) as refused:
        stored_and_used()
    assert not isinstance(refused.value, FunctionError)


def test_one_of_save_and_load_alone_is_refused(unguarded: Sandbox) -> None:
    with pytest.raises(InputError, match=r"The engine 'mine' has one of save and load\. Give both, or none"):
        unguarded.declare(msgspec.structs.replace(estimator_request(given=", save=save"), kind="", name=""))


def test_what_an_engine_prints_is_shown(bars: pl.DataFrame, capfd: pytest.CaptureFixture[str]) -> None:
    talking = Sandbox(Limits(seconds=60.0, memory=512, guarded=False))
    talking.apply(engine_request(fit="print('epoch 1'); return {'n': 1.0}"), (bars,), {"features": ()})
    talking.close()
    assert "epoch 1" in capfd.readouterr().err


def test_a_process_that_an_engine_leaves_running_ends_with_the_sandbox(bars: pl.DataFrame) -> None:
    leaving = Sandbox(Limits(seconds=60.0, memory=512, guarded=False))
    text = "import subprocess; return {'pid': subprocess.Popen(['sleep', '600']).pid}"
    pid = int(leaving.apply(engine_request(fit=text), (bars,), {"features": ()})["pid"][0])
    leaving.close()
    deadline = time.monotonic() + 10.0
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
