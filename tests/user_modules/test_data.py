"""Data files of a module: what is read, what is refused, and that a changed one makes stale what names it and nothing else."""

from pathlib import Path

import polars as pl
import pytest

from tests.features.conftest import random_panel
from tests.study.panels import small_experiment
from tests.study.running import STEPS, worked
from tests.user_modules.conftest import Write
from tidemill import lab
from tidemill.domain.errors import InputError
from tidemill.domain.experiment import EngineSpec, Experiment, FeatureSpec
from tidemill.features.api import compute, feature_set
from tidemill.features.declaration import shipped
from tidemill.steps.models.engines import train
from tidemill.study.sources import study_of
from tidemill.study.workspace import Workspace
from tidemill.user_modules import data
from tidemill.user_modules.loading import Module, load_module

TEXT = """
import polars as pl

SCALES = data("scales.csv")


def scaled(bars):
    return bars.join(SCALES, on="symbol", how="left", maintain_order="left").select(
        "symbol", "open_time", my_scaled=pl.col("close") * pl.col("scale")
    )


def plain(bars):
    return bars.select("symbol", "open_time", my_plain=pl.col("close") * 2)


features(scaled, lookback=1, columns=["my_scaled"])
features(plain, lookback=1, columns=["my_plain"])
"""
SCALES = "symbol,scale\nS0,2.0\nS1,3.0\n"


def sources(module: Module) -> dict[str, str]:
    return {name: feature.expression.key for name, feature in module.own.features.items()}


def put(folder: Path, text: str = SCALES, name: str = "scales.csv") -> None:
    (folder / name).write_text(text)


def test_what_depends_on_a_data_file_is_known(write: Write, tmp_path: Path) -> None:
    put(tmp_path)
    put(tmp_path, name="other.csv")
    assert load_module(write(TEXT)).reads == {("features", "my_scaled"): ("scales.csv",)}
    more = """
OTHER = data("other.csv")

def fit(training):
    return {"a": 1.0}

def predict(model, frame):
    return frame.join(OTHER, on="symbol", how="left")["scale"].fill_null(0.0).to_numpy()

engine("my_engine", fit, predict)
HIGHEST = float(SCALES["scale"].max())
feature("my_high", close * HIGHEST, unit="", about="a test")
"""
    assert load_module(write(TEXT + more)).reads == {
        ("features", "my_scaled"): ("scales.csv",),
        ("features", "my_high"): ("scales.csv",),
        ("engines", "my_engine"): ("other.csv",),
    }
    without = TEXT.replace('data("scales.csv")', "pl.DataFrame({'symbol': ['S0'], 'scale': [1.0]})")
    assert load_module(write(without)).reads == {}


def test_a_data_file_is_a_frame_and_its_content_counts_for_what_names_it_alone(write: Write, tmp_path: Path) -> None:
    put(tmp_path)
    first = load_module(write(TEXT))
    assert load_module(tmp_path / "mine.py") is first
    put(tmp_path, SCALES.replace("3.0", "4.0"))
    second = load_module(tmp_path / "mine.py")
    assert {name for name, key in sources(first).items() if key != sources(second)[name]} == {"my_scaled"}
    bars = random_panel(1, symbols=2, slots=30)
    names = bars["symbol"].unique().sort().to_list()
    put(tmp_path, f"symbol,scale\n{names[0]},2.0\n{names[1]},5.0\n")
    made = load_module(tmp_path / "mine.py")
    frame, _ = compute(bars, feature_set("my_scaled", known=shipped().joined(made.own.features)))
    expected = bars["close"] * bars["symbol"].replace_strict({names[0]: 2.0, names[1]: 5.0}, return_dtype=pl.Float64)
    assert (frame["my_scaled"] - expected).fill_nan(0.0).abs().max() == 0.0


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".arrow"])
def test_each_kind_of_file_can_be_read_in_a_function_too(write: Write, tmp_path: Path, ending: str) -> None:
    frame = pl.DataFrame({"n": [1, 2, 3]})
    {".csv": frame.write_csv, ".parquet": frame.write_parquet, ".arrow": frame.write_ipc}[ending](tmp_path / f"n{ending}")
    text = f"def f(bars):\n    return bars['close'] * data('n{ending}')['n'].sum()\nfeatures(f, columns=['f'])\n"
    made = load_module(write(text))
    bars = random_panel(1, symbols=1, slots=10)
    assert compute(bars, feature_set("f", known=shipped().joined(made.own.features)))[0]["f"].equals(
        bars["close"] * 6, check_names=False
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("data('absent.csv')\n", r"The data file .*absent\.csv of mine\.py cannot be read \(No such file or directory\)"),
        ("data('wide.xlsx')\n", r"The data file wide\.xlsx of mine\.py must end in \.csv, \.parquet or \.arrow"),
        ("data('wrong.parquet')\n", r"on line 1: The data file wrong\.parquet cannot be read: "),
        ("name = 'scales' + '.csv'\ndata(name)\n", r"on line 2: data\('scales\.csv'\) is not known\. Write the path itself"),
        ("data('large.csv')\n", r"The data file large\.csv of mine\.py is larger than 1 MiB"),
        ("open('scales.csv')\ndata('scales.csv')\n", r"wants to open 'scales\.csv' on line 1"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str
) -> None:
    put(tmp_path)
    put(tmp_path, "no parquet", "wrong.parquet")
    put(tmp_path, "a,b\n" * 500_000, "large.csv")
    monkeypatch.setattr(data, "MAXIMUM_BYTES", 1 << 20)
    with pytest.raises(InputError, match=reason) as refused:
        load_module(write(text))
    assert "\n" not in str(refused.value)


def test_a_file_that_changes_while_its_module_is_in_use_is_refused(write: Write, tmp_path: Path) -> None:
    put(tmp_path)
    made = load_module(write(TEXT))
    put(tmp_path, SCALES.replace("3.0", "4.0"))
    with pytest.raises(InputError, match=r"The data file scales\.csv was changed while it was in use"):
        compute(random_panel(1, symbols=1, slots=10), feature_set("my_scaled", known=shipped().joined(made.own.features)))


def test_a_module_may_use_the_word_for_something_else(write: Write) -> None:
    text = "def data(name):\n    return len(name)\nN = data('absent.csv')\nfeature('own_n', close * N)\n"
    assert load_module(write(text)).features == ("own_n",)


def test_a_notebook_reads_the_file_that_is_there(write: Write, tmp_path: Path) -> None:
    put(tmp_path)
    bars = random_panel(1, symbols=1, slots=10)
    symbol = bars["symbol"][0]
    for scale in (2.0, 7.0):
        put(tmp_path, f"symbol,scale\n{symbol},{scale}\n")
        made = lab.load(write(TEXT))
        assert (lab.features(bars, *made.features)["my_scaled"] / bars["close"] - scale).fill_nan(0.0).abs().max() < 1e-12


FIRST_STEPS = ("bars", "instruments", "features", "labels", "momentum", "ridge")


def run(workspace: Workspace, experiment: Experiment) -> set[str]:
    study = study_of(workspace, experiment)
    reports = {name: STEPS[name](study) for name in FIRST_STEPS}
    return worked({**reports, "my_engine": train(study, "my_engine")})


ENGINE = """
FACTOR = data("factor.csv")["factor"][0]


def fit(training):
    return {"factor": FACTOR}


def predict(model, frame):
    return frame["ROC5"] * model["factor"][0]


engine("my_engine", fit, predict)
"""


def test_a_changed_data_file_makes_exactly_its_dependents_stale(workspace: Workspace, folder: Path, tmp_path: Path) -> None:
    module = tmp_path / "modules" / "mine.py"
    module.parent.mkdir()
    module.write_text(TEXT + ENGINE)
    symbols = pl.read_parquet(folder / "base.parquet")["symbol"].unique().sort().to_list()
    scales = "symbol,scale\n" + "".join(f"{symbol},2.0\n" for symbol in symbols)
    put(module.parent, scales)
    put(module.parent, "factor\n1.5\n", "factor.csv")
    experiment = small_experiment(
        folder,
        features=FeatureSpec(sets=(), names=("ROC5", "roc_10", "natr_14", "my_scaled", "my_plain")),
        engines=(EngineSpec(name="momentum"), EngineSpec(name="ridge"), EngineSpec(name="my_engine")),
        modules=(str(module),),
    )
    assert run(workspace, experiment) >= {"bars", "features", "labels", "momentum", "ridge", "my_engine"}
    assert run(workspace, experiment) == set()
    put(module.parent, "factor\n2.5\n", "factor.csv")
    assert run(workspace, experiment) == {"my_engine"}
    put(module.parent, scales.replace("2.0", "3.0"))
    assert run(workspace, experiment) == {"features", "momentum", "ridge", "my_engine"}
    assert run(workspace, experiment) == set()
