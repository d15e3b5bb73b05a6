"""What a person gets wrong costs one sentence and exit code 1 (2 where the use itself is wrong), never a traceback."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from tests.cli.conftest import Tidemill
from tests.study.panels import daily_bars

INJECTION = "AAPL'; DROP TABLE bars;--"
TRAVERSAL = "../../etc/passwd"

EXPERIMENT = """
name: mine
dataset: {source: sample}
engines: [{name: momentum}]
"""


@pytest.fixture
def bars_in_store(home: Path, panel_file: Path, tidemill: Tidemill) -> Path:
    assert tidemill("data", "import", panel_file).code == 0
    return home


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [INJECTION, TRAVERSAL, "..", "A/B", "", " ", "A" * 40, "Ä", "A\x00B", "-rf"])
def test_what_is_no_symbol_is_refused_and_touches_nothing(bars_in_store: Path, tidemill: Tidemill, name: str) -> None:
    assert "is not a symbol" in tidemill("data", "show", "--", name).error
    assert tidemill("data", "show", "AAA", "--limit", 1).code == 0


def test_an_unknown_symbol_names_the_datasets(bars_in_store: Path, tidemill: Tidemill) -> None:
    assert "'ZZZ'" in tidemill("data", "show", "ZZZ").error
    assert "panel 1d" in tidemill("data", "show", "ZZZ").error


def test_an_empty_store_says_how_to_fill_it(home: Path, tidemill: Tidemill) -> None:
    assert "tidemill data import" in tidemill("data", "show", "AAA").error
    assert "tidemill data import" in tidemill("data", "gaps").error
    assert "tidemill data import" in tidemill("data", "export", "--venue", "x", "--interval", "1d", "--output", "x.csv").error
    assert "tidemill run" in tidemill("performance", "report").error
    assert "tidemill run" in tidemill("models", "list").out


@pytest.mark.parametrize("venue", ["nowhere", TRAVERSAL, INJECTION])
def test_an_unknown_venue_names_those_that_there_are(bars_in_store: Path, tidemill: Tidemill, venue: str) -> None:
    assert "panel 1d" in tidemill("data", "show", "AAA", "--venue", venue).error
    assert "panel 1d" in tidemill("data", "gaps", "--venue", venue).error
    assert "panel.1d" in tidemill("data", "export", "--venue", venue, "--interval", "1d", "--output", "x.parquet").error


def test_a_venue_to_import_under_is_made_a_name_that_leaves_no_folder(home: Path, panel_file: Path, tidemill: Tidemill) -> None:
    answer = tidemill("data", "import", panel_file, "--venue", TRAVERSAL, "--json").json
    assert answer["venue"] == "etc_passwd"
    assert not (home.parent / "etc").exists()


@pytest.mark.parametrize("source", ["yahoo", "file:", TRAVERSAL, "Sample"])
def test_an_unknown_source_names_the_choices(home: Path, tidemill: Tidemill, source: str) -> None:
    for command in (("run",), ("data", "sync")):
        error = tidemill(*command, "--source", source).error
        assert "binance" in error or "names no path" in error


def test_a_source_file_that_is_not_there_is_said_before_anything_starts(work: Path, tidemill: Tidemill) -> None:
    assert "nowhere.csv does not exist" in tidemill("run", "--source", "file:nowhere.csv").error
    assert not (work / "home").exists()


@pytest.mark.parametrize("model", ["unknown", TRAVERSAL, "../artifacts", INJECTION])
def test_an_unknown_model_says_how_to_list_them(home: Path, tidemill: Tidemill, model: str) -> None:
    assert "models list" in tidemill("models", "show", model).error


def test_a_key_of_the_cache_that_is_none_is_refused(home: Path, tidemill: Tidemill) -> None:
    assert "is not a key of the cache" in tidemill("cache", "clear", "--pattern", TRAVERSAL).error


def test_unknown_features_strategies_and_parameters_name_the_choices(panel_file: Path, tidemill: Tidemill) -> None:
    compute = ("features", "compute", "--input", panel_file, "--output", "f.parquet", "--set")
    assert "classic" in tidemill(*compute, "nonsense").error
    assert "classic" in tidemill(*compute, TRAVERSAL).error
    assert "No feature was given" in tidemill(*compute, ",").error
    assert "classic" in tidemill("features", "list", "--set", "rsi_14").error
    assert "classic" in tidemill("features", "explain", "nonsense").error
    backtest = ("backtest", "--input", panel_file, "--strategy")
    assert "sma_cross" in tidemill(*backtest, "nonsense").error
    assert "fast, slow" in tidemill(*backtest, "sma_cross", "--param", "speed=3").error
    assert "fast" in tidemill(*backtest, "sma_cross", "--param", "fast=9", "slow=3").error
    assert "works on predictions" in tidemill(*backtest, "quantile").error


# --- dates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("data", "show", "AAA"), ("data", "sync", "--source", "sample"), ("run",)])
def test_dates_in_the_wrong_order_and_in_the_future_are_refused(home: Path, tidemill: Tidemill, command: tuple[str]) -> None:
    assert "Swap them" in tidemill(*command, "--start", "2021-03-01", "--end", "2021-02-01").error
    assert "Swap them" in tidemill(*command, "--start", "2021-03-01", "--end", "2021-03-01").error
    assert "is in the future" in tidemill(*command, "--start", "2999-01-01").error


@pytest.mark.parametrize(
    ("option", "value"),
    [("--start", "yesterday"), ("--start", "2021-02-30"), ("--as-of", ""), ("--interval", "1month"), ("--limit", "0")],
)
def test_a_value_that_cannot_be_read_is_a_wrong_use(work: Path, tidemill: Tidemill, option: str, value: str) -> None:
    answer = tidemill("data", "show", "AAA", option, value)
    assert (answer.code, answer.out) == (2, "")
    assert f"Invalid value for '{option}'" in answer.err
    assert "Traceback" not in answer.err


def test_a_range_without_bars_says_where_there_are_some(bars_in_store: Path, tidemill: Tidemill) -> None:
    for options in (("--start", "2023-01-01"), ("--end", "2001-01-01"), ("--as-of", "2001-01-01")):
        assert "from 2021-01-04 to 2021-05-03" in tidemill("data", "show", "AAA", *options).error


# --- files ------------------------------------------------------------------------------------------------------------

READERS: dict[str, Callable[[str], tuple[str, ...]]] = {
    "import": lambda path: ("data", "import", path),
    "resample": lambda path: ("data", "resample", "--input", path, "--interval", "1w", "--output", "out.parquet"),
    "features": lambda path: ("features", "compute", "--input", path, "--output", "out.parquet"),
    "features, streaming": lambda path: (
        "features",
        "compute",
        "--input",
        path,
        "--output",
        "out.csv",
        "--execution",
        "stream",
    ),
    "backtest": lambda path: ("backtest", "--input", path, "--strategy", "sma_cross"),
    "weights": lambda path: ("backtest", "--input", "panel.csv", "--weights", path),
    "performance": lambda path: ("performance", "metrics", "--input", path, "--json"),
}
CONTENTS: dict[str, tuple[bytes, str]] = {
    "empty.csv": (b"", "is empty"),
    "blank.csv": (b"\n\n", "is empty"),
    "header.csv": (b"symbol,date,open,high,low,close,volume,weight,return\n", "holds no rows"),
    "latin.csv": (b"symbol,date,open,high,low,close,volume,weight,return\nCAF\xc9,2024-01-02,1,1,1,1,1,1,1\n", "not UTF-8"),
    "columns.csv": (b"a,b\n1,2\n", "lacks the column"),
    "twice.csv": (b"symbol,symbol,date,open,high,low,close,volume,weight,return\n", "twice"),
    "empty.parquet": (b"", "is empty"),
    "noise.parquet": (b"PAR1 this is no parquet PAR1", "is not a readable Parquet file"),
    "cut.csv.gz": (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03cut off", "cannot be read to its end"),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_is_no_table_is_refused(home: Path, panel_file: Path, tidemill: Tidemill, reader: str) -> None:
    for name, (content, reason) in CONTENTS.items():
        Path(name).write_bytes(content)
        error = tidemill(*READERS[reader](name)).error
        assert reason in error or (name == "twice.csv" and "holds no rows" in error), (name, error)
        assert name in error
    for name in ("nowhere.csv", "."):
        assert tidemill(*READERS[reader](name)).code == 1
    assert not list(home.glob("out.*"))
    assert not list(home.glob(".out*"))


@pytest.mark.parametrize("command", ["resample", "features"])
def test_an_output_that_cannot_be_written_is_said_before_the_work(panel_file: Path, tidemill: Tidemill, command: str) -> None:
    given = READERS[command](str(panel_file))[:-1]
    assert "does not exist" in tidemill(*given, "nowhere/out.parquet").error
    assert "is a folder" in tidemill(*given, ".").error
    assert "is not a format" in tidemill(*given, "out.xlsx").error
    assert "cannot be written" in tidemill(*given, "/proc/tidemill.parquet").error
    assert "cannot be written" in tidemill(*given, "/proc/tidemill.csv").error


def test_a_folder_for_results_is_made_and_one_that_cannot_be_is_said_before_the_work(
    home: Path, panel_file: Path, tidemill: Tidemill
) -> None:
    given = ("backtest", "--input", panel_file, "--strategy", "sma_cross", "--output")
    assert tidemill(*given, "new/folder").code == 0
    assert sorted(path.name for path in Path("new/folder").iterdir()) == [
        "equity.parquet",
        "positions.parquet",
        "trades.parquet",
    ]
    assert "is a file" in tidemill(*given, panel_file).error
    assert "is a file" in tidemill(*given, panel_file / "inside").error
    assert "cannot be written" in tidemill(*given, "/proc/tidemill").error


def test_a_weight_a_date_or_a_return_that_cannot_be_read_is_named_by_its_line(panel_file: Path, tidemill: Tidemill) -> None:
    def told(command: str, text: str) -> str:
        Path("bad.csv").write_text(text)
        return tidemill(*READERS[command]("bad.csv")).error

    assert "line 3, has a return that is not a number" in told("performance", "date,return\n2024-01-02,0.1\n2024-01-03,x\n")
    assert "line 2, has no readable date" in told("performance", "date,return\nsoon,0.1\n")
    assert "line 2, has no symbol" in told("weights", "symbol,date,weight\n,2021-01-05,0.1\n")
    assert "line 2, has no readable open_time" in told("weights", "symbol,date,weight\nAAA,soon,0.1\n")
    twice = "symbol,date,weight\nAAA,2021-01-05,0.1\nAAA,2021-01-05,0.2\n"
    assert "line 3, repeats a symbol and time" in told("weights", twice)
    assert "'ZZZ'" in told("weights", "symbol,date,weight\nZZZ,2021-01-05,0.1\n")


# --- inputs without information -------------------------------------------------------------------------------------------


def flat(panel: pl.DataFrame, value: float | None) -> pl.DataFrame:
    return panel.with_columns(pl.lit(value, pl.Float64).alias(name) for name in ("open", "high", "low", "close", "volume"))


@pytest.mark.parametrize("engine", ["batch", "stream"])
def test_features_of_nothing_of_a_constant_and_of_one_row_are_finite_or_missing(
    work: Path, panel: pl.DataFrame, tidemill: Tidemill, engine: str
) -> None:
    for bars in (flat(panel, None), flat(panel, 5.0), flat(panel, float("nan")), panel.head(1)):
        bars.write_parquet("bars.parquet")
        options = ("--input", "bars.parquet", "--output", "out.parquet", "--engine", engine, "--set", "classic,alpha30")
        answer = tidemill("features", "compute", *options, "--json")
        assert answer.json["rows"] == bars.height
        values = pl.read_parquet("out.parquet").drop("symbol", "open_time")
        assert not values.select(pl.any_horizontal(pl.all().is_infinite().any())).item()


def test_a_backtest_of_nothing_of_a_constant_and_of_one_row(home: Path, panel: pl.DataFrame, tidemill: Tidemill) -> None:
    given = ("backtest", "--input", "bars.csv", "--strategy", "sma_cross", "--param", "fast=2", "slow=5", "--json")
    flat(panel, 5.0).write_csv("bars.csv")
    assert tidemill(*given).json["final_equity"] == 1_000_000.0
    flat(panel, None).write_csv("bars.csv")
    assert "holds no usable bar" in tidemill(*given).error
    panel.head(1).write_csv("bars.csv")
    assert "has two bars" in tidemill(*given).error


@pytest.mark.parametrize("cells", [["nan"] * 5, [""] * 5, ["0.01"] * 5, ["0.01"], ["inf", "-inf"], ["-1"]])
def test_metrics_of_nothing_of_a_constant_and_of_one_return_are_numbers_or_null(
    work: Path, tidemill: Tidemill, cells: list[str]
) -> None:
    lines = [f"2024-01-{day:02},{cell}" for day, cell in enumerate(cells, 2)]
    Path("returns.csv").write_text("\n".join(["date,return", *lines]) + "\n")
    found = tidemill("performance", "metrics", "--input", "returns.csv", "--json").json
    assert len(found) == 15
    assert all(value is None or isinstance(value, float) for value in found.values())


# --- experiments and settings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("colour: red", "colour"),
        ("seed: many", "seed"),
        ("seed: -1", "seed is -1"),
        ("costs: {fee_bps: -1}", "fee_bps is -1"),
        ("costs: {slippage_bps: .nan}", "slippage_bps is nan"),
        ("costs: {capital: .inf}", "capital is inf"),
        ("label: {horizon: 0}", "horizon is 0"),
        ("splits: {train: 100, test: 0}", "test is 0"),
        ("splits: {train: 100, test: 4}", "horizon is 5; it must be at most splits.test (4 bar times)"),
        ("features: {sets: [nonsense]}", "classic"),
        ("features: {names: [../../etc]}", "../../etc"),
        ("strategy: {name: nonsense}", "quantile"),
        ("strategy: {name: quantile, params: {speed: 1}}", "'speed'"),
        ("strategy: {name: quantile, params: {gross: .nan}}", "gross"),
        ("strategy: {name: quantile, params: {gross: 50}}", "gross is 50; it must be at most 10"),
        ("strategy: {name: quantile, params: {max_weight: 5}}", "max_weight is 5; it must be at most 1"),
        ("strategy: {name: long_only_top_k, params: {k: 0}}", "k is 0; it must be at least 1"),
        ("strategy: {name: mean_variance, params: {every: 0}}", "every is 0; it must be at least 1"),
        ("benchmark: ../../etc", "is not a symbol"),
        ("name: [1, 2]", "name"),
        ("name: twice", "given twice"),
        ("\tname: x", "not valid YAML"),
        ("seed: &a [*a]", "experiment"),
        ("splits: {train: 60, test: 20}", "splits.train"),
        ("label: {horizon: 20000}", "label.horizon is 20000; without splits of your own it must be at most 16128"),
        ("features: {sets: [], names: [rsi_14]}", "needs the features ROC60 and ROC5 and STD20, or roc_10 and natr_14."),
        ("features: {sets: [], names: [roc_10, natr_41]}", "hold no natr_14. Add what is missing"),
        ("features: {sets: [], names: [roc_10, natr_41]}", "For natr_14: Did you mean natr_41?"),
        ("features: {sets: [clasic]}", "Did you mean classic?"),
        ("features: {fear_greed: 'file:nowhere.csv'}", "does not exist"),
        ("strategy: {name: quantil}", "Did you mean quantile?"),
        ("strategy: {neutralise: {by: weather}}", "strategy.neutralise.by is 'weather'; it must be one of"),
        ("strategy: {neutralise: {by: sector}}", "strategy.neutralise cannot be applied: Neutralising by sector needs"),
        ("strategy: {neutralise: {by: sector, sector_file: nowhere.csv}}", "strategy.neutralise.sector_file cannot be used"),
        ("strategy: {neutralise: {by: sector, sector_file: mine.yaml}}", "strategy.neutralise.sector_file cannot be used"),
        ("strategy: {neutralise: {by: sector, sectors: {AAPL: ''}}}", "names no sector for AAPL"),
        ("strategy: {neutralise: {by: sector, sectors: {A: x}, sector_file: f.csv}}", "Keep one of them"),
        ("strategy: {neutralise: {by: beta, sectors: {A: x}}}", "which uses no sectors"),
        ("strategy: {neutralise: {by: beta, least: 90, window: 80}}", "least"),
        ("strategy: {neutralise: {by: beta, window: 1}}", "strategy.neutralise.window is 1"),
        ("promotion: {book: lightgmb}", "no book to promote named 'lightgmb'"),
        ("promotion: {book: momentun}", "Did you mean momentum?"),
        ("promotion: {bars: 4}", "promotion.bars is 4; it must be at least label.horizon (5)"),
        ("limits: defalt", "limits is 'defalt'; it must be default or a group of fields. Did you mean default?"),
        ("limits: {position: 10}", "limits.position is 10; it must be at most 1"),
        ("limits: {drawdown: {block: 0.5}}", "each must be at least the one before it"),
        ("promotion: {confidence: 1.5}", "promotion.confidence is 1.5; it must be below 1"),
        ("validation: {missing: 1.5}", "validation.missing is 1.5; it must be at most 1"),
        ("validation: {mising: 0.5}", "There is no field validation.mising. Did you mean missing?"),
        ("risk: {decay: 1}", "risk.decay is 1; it must be below 1"),
        ("risk: {least: 300, window: 200}", "risk.least is 300; it must be at most risk.window (200)"),
        ("risk: {garsch: true}", "Did you mean garch?"),
        ("news: {source: reuters}", "feed:URL"),
        ("news: {source: 'file:nowhere.csv'}", "There is no news file nowhere.csv"),
        ("news: {source: 'file:mine.yaml'}", "neither CSV"),
        ("news: {source: 'feed:https://x', classifier: lexikon}", "Did you mean lexicon?"),
        ("news: {source: 'feed:https://x', classifier: 'model:nowhere'}", "there is no folder nowhere"),
        ("news: {source: 'feed:https://x', half_life: -1}", "news.half_life is -1; it must be above 0"),
        ("news: {source: 'feed:https://x', aliases: {AAPL: ['']}}", "empty name for AAPL"),
    ],
)
def test_a_wrong_experiment_is_refused_before_any_work(work: Path, tidemill: Tidemill, change: str, reason: str) -> None:
    Path("mine.yaml").write_text(f"{EXPERIMENT}{change}\n")
    assert reason in tidemill("run", "--experiment", "mine.yaml").error
    assert not (work / "home").exists()


@pytest.mark.parametrize(
    ("engines", "reason"),
    [
        ("[]", "names no engine"),
        ("[{name: oracle}]", "ridge"),
        ("[{name: ridge}, {name: ridge}]", "twice"),
        ("[{name: ensemble}]", "Leave it out"),
        ("[{name: ridge, params: {speed: 1}}]", "speed"),
        ("[{name: lightgbm, params: {num_leaves: many}}]", "lightgbm"),
        ("[{name: transformer, params: {passes: -1}}]", "passes"),
        ("[{name: transformer, params: {passes: .nan}}]", "passes"),
        ("[{name: transformer, params: {layers: 400}}]", "layers"),
    ],
)
def test_a_wrong_engine_or_parameter_is_refused_before_any_work(
    work: Path, tidemill: Tidemill, engines: str, reason: str
) -> None:
    Path("mine.yaml").write_text(EXPERIMENT.replace("[{name: momentum}]", engines))
    assert reason in tidemill("run", "--experiment", "mine.yaml").error


@pytest.mark.parametrize(
    ("dataset", "reason"),
    [
        ("{source: yahoo}", "binance"),
        ("{source: sample, interval: 1month}", "bar interval"),
        ("{source: sample, symbols: [../AAPL]}", "is not a symbol"),
        ("{source: sample, start: soon}", "dataset.start"),
        ("{source: sample, start: 2012-01-01, end: 2011-01-01}", "Swap them"),
        ("{source: sample, start: 2999-01-01}", "future"),
        ("{source: binanse}", "Did you mean binance or"),
    ],
)
def test_a_wrong_dataset_is_refused_before_any_work(work: Path, tidemill: Tidemill, dataset: str, reason: str) -> None:
    Path("mine.yaml").write_text(EXPERIMENT.replace("{source: sample}", dataset))
    assert reason in tidemill("run", "--experiment", "mine.yaml").error


def test_an_experiment_file_that_cannot_be_read_is_named(work: Path, tidemill: Tidemill) -> None:
    Path("latin.yaml").write_bytes(b"name: caf\xe9\n")
    assert "not UTF-8" in tidemill("run", "--experiment", "latin.yaml").error
    for name in ("nowhere.yaml", "."):
        assert "cannot be read" in tidemill("run", "--experiment", name).error
    Path("empty.yaml").write_text("")
    assert "is not an experiment" in tidemill("run", "--experiment", "empty.yaml").error


@pytest.mark.parametrize(
    ("text", "reason"),
    [("colour: red", "colour"), ("connections: many", "connections"), ("- a\n- b", "key: value"), ("a: [", "not valid YAML")],
)
def test_a_wrong_settings_file_is_refused_by_every_command(
    work: Path, tidemill: Tidemill, monkeypatch: pytest.MonkeyPatch, text: str, reason: str
) -> None:
    Path("tidemill.yaml").write_text(text)
    assert reason in tidemill("config", "check", "tidemill.yaml").error
    assert reason in tidemill("config", "show").error
    assert reason in tidemill("models", "list").error
    Path("tidemill.yaml").unlink()
    monkeypatch.setenv("TIDEMILL_CONFIG", "nowhere.yaml")
    assert "nowhere.yaml does not exist" in tidemill("config", "show").error


def test_an_input_with_symbols_that_cannot_be_keys_is_quarantined(home: Path, tidemill: Tidemill) -> None:
    good = daily_bars(20, ("AAA",))
    bad = good.with_columns(pl.lit(INJECTION).alias("symbol"))
    pl.concat([good, bad]).write_csv("mixed.csv")
    answer = tidemill("data", "import", "mixed.csv", "--json").json
    assert (answer["inserted"], answer["reasons"]) == (20, {"bad_symbol": 20})
