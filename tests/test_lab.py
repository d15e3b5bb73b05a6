"""The research surface: every function, inside and outside a running event loop, and the same numbers as the command line."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from tests.study.panels import before_day, daily_bars, small_experiment
from tidemill import lab
from tidemill.calendars import calendar_named
from tidemill.config import Secret, load_settings
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.experiment import (
    CostSpec,
    DatasetSpec,
    FeatureSpec,
    LabelSpec,
    NeutraliseSpec,
    NewsSpec,
    PredictionGuard,
    PromotionSpec,
    RiskSpec,
    StrategySpec,
)
from tidemill.domain.intervals import Interval
from tidemill.experiments.files import to_text
from tidemill.experiments.tracked import id_of


@pytest.fixture
def home(tmp_path: Path, migrated_dsn: Secret, redis_url: Secret, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home on an empty database; what the lab holds open is closed after the test, as at the end of Python."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TIDEMILL_POSTGRES_DSN", migrated_dsn.reveal())
    monkeypatch.setenv("TIDEMILL_REDIS_URL", redis_url.reveal())
    monkeypatch.setenv("TIDEMILL_CONNECTIONS", "4")
    yield tmp_path
    lab.close()


@pytest.fixture
def folder(home: Path) -> Path:
    made = home / "panel"
    made.mkdir()
    before_day(daily_bars(), 328).write_parquet(made / "base.parquet")
    return made


def command(*arguments: str) -> str:
    """What the command line answers, in a process of its own."""
    call = [sys.executable, "-P", "-m", "tidemill.cli.main", *arguments]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_bars_are_fetched_once_and_chosen_by_symbol_and_date(folder: Path) -> None:
    source = f"file:{folder}"
    whole = lab.bars(source)
    assert whole.height == 6 * 328
    assert lab.bars(source).equals(whole)
    some = lab.bars(source, symbols=["AAA", "CCC"], start="2021-02-01", end="2021-02-11")
    assert some["symbol"].unique().sort().to_list() == ["AAA", "CCC"]
    assert some.height == 20
    assert lab.bars(source, symbols="AAA,CCC", start="2021-02-01", end="2021-02-11").equals(some)


def test_stored_bars_are_read_without_a_look_at_their_source(folder: Path) -> None:
    source = f"file:{folder}"
    with pytest.raises(InputError, match="fetch=False"):
        lab.bars(source, fetch=False)
    whole = lab.bars(source)
    daily_bars().write_parquet(folder / "base.parquet")
    assert lab.bars(source, fetch=False).equals(whole)
    grown = lab.bars(source)
    assert grown.height > whole.height
    assert lab.bars(source, fetch=False).equals(grown)


def test_raw_bars_are_those_that_the_command_line_shows(folder: Path) -> None:
    raw = lab.bars(f"file:{folder}", adjusted=False)
    shown = json.loads(command("data", "show", "BBB", "--limit", "30", "--json"))
    assert [row["close"] for row in shown] == raw.filter(pl.col("symbol") == "BBB")["close"].tail(30).to_list()


def test_features_have_the_bits_of_the_command_line(home: Path) -> None:
    bars = daily_bars(80, ("AAA", "BBB"))
    bars.write_parquet("bars.parquet")
    command("features", "compute", "--input", "bars.parquet", "--output", "out.parquet", "--set", "rsi_14,ROC5")
    given = bars.select(
        "symbol", pl.col("date").cast(pl.Datetime("us", "UTC")).alias("open_time"), pl.exclude("symbol", "date")
    )
    assert lab.features(given, "rsi_14", "ROC5").equals(pl.read_parquet("out.parquet"), null_equal=True)
    assert lab.features(given).width > 30
    with pytest.raises(UnknownNameError, match="classic"):
        lab.features(given, "nonsense")


def test_a_backtest_of_weights_has_the_figures_of_the_command_line(home: Path) -> None:
    bars = daily_bars(80, ("AAA", "BBB"))
    bars.write_parquet("bars.parquet")
    weights = pl.DataFrame({"symbol": ["AAA", "BBB"], "date": bars["date"][:2], "weight": [0.5, 0.4]})
    weights.write_csv("weights.csv")
    options = ("--input", "bars.parquet", "--weights", "weights.csv", "--fee-bps", "5", "--slippage-bps", "5", "--json")
    told = json.loads(command("backtest", *options))
    given = bars.select(
        "symbol", pl.col("date").cast(pl.Datetime("us", "UTC")).alias("open_time"), pl.exclude("symbol", "date")
    )
    result = lab.backtest(given, weights)
    assert result.equity["equity"].to_list() == told["equity"]
    assert result.fees == told["fees"]
    crossing = lab.backtest(given, strategy="sma_cross", params={"fast": 2, "slow": 5})
    assert crossing.trades.height > 0
    with pytest.raises(InputError, match="either"):
        lab.backtest(given)


def test_backtests_and_sweeps_of_coins_and_stocks_count_a_year_of_both(home: Path) -> None:
    days = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=at) for at in range(120)]
    bars = daily_bars(120, ("BTC", "KO")).with_columns(pl.Series("open_time", days * 2).cast(pl.Datetime("us", "UTC")))
    sessions = calendar_named("XNYS").slots(Interval.parse("1d"), days[0], days[-1] + timedelta(days=1))
    mixed = bars.filter((pl.col("symbol") == "BTC") | pl.col("open_time").is_in(sessions.implode())).drop("date")
    weights = pl.DataFrame({"symbol": ["BTC", "KO"], "open_time": [days[4]] * 2, "weight": [0.3, 0.3]})
    for given, year in ((mixed, 365.0), (mixed.filter(symbol="BTC"), 365.0), (mixed.filter(symbol="KO"), 252.0)):
        held = weights.join(given, on="symbol", how="semi")
        trial = lab.backtest(given, held).trial
        own = lab.metrics(lab.backtest(given, held).returns["return"].to_numpy(), year)
        counted = lab.trials().filter(trial=trial)
        assert counted["sharpe"][0] == pytest.approx(own["sharpe"])
        runs = lab.sweep(given, "sma_cross", {"fast": [2], "slow": [5]})
        crossed = lab.backtest(given, strategy="sma_cross", params={"fast": 2, "slow": 5})
        assert runs["trial"][0] == crossed.trial
        assert runs["sharpe"][0] == pytest.approx(lab.metrics(crossed.returns["return"].to_numpy(), year)["sharpe"])


def test_metrics_have_the_figures_of_the_command_line(home: Path) -> None:
    returns = [0.01, -0.02, 0.005, 0.013]
    lines = [f"2024-01-{day:02},{value}" for day, value in enumerate(returns, 2)]
    Path("returns.csv").write_text("\n".join(["date,return", *lines]) + "\n")
    told = json.loads(command("performance", "metrics", "--input", "returns.csv", "--periods-per-year", "365", "--json"))
    assert lab.metrics(returns, 365) == told


def test_the_lake_answers_a_query_and_nothing_but_queries(folder: Path) -> None:
    lab.bars(f"file:{folder}")
    counts = lab.sql("SELECT symbol, count(*) AS bars FROM bars GROUP BY symbol ORDER BY symbol")
    assert counts.rows() == [(symbol, 328) for symbol in ("AAA", "BBB", "CCC", "DDD", "EEE", "FFF")]
    for query in ("DROP TABLE bars", "COPY bars TO 'x.csv'", "SELECT * FROM '/etc/passwd'", "SELECT 1; SELECT 2", "nonsense"):
        with pytest.raises(InputError):
            lab.sql(query)


def test_predictions_and_results_are_there_after_a_run_and_say_so_before(folder: Path) -> None:
    from tests.study.running import run
    from tidemill.study.workspace import open_workspace

    experiment = small_experiment(folder)
    Path("mine.yaml").write_text(to_text(experiment))
    for before in (lambda: lab.predictions(experiment), lambda: lab.result(experiment)):
        with pytest.raises(InputError, match="tidemill run"):
            before()
    with open_workspace(load_settings()) as workspace:
        run(workspace, experiment)
    frame = lab.predictions(experiment)
    assert frame.columns == ["symbol", "open_time", "engine", "prediction", "fold", "model_id", "known_at"]
    assert frame.height > 0
    assert lab.predictions("mine.yaml").equals(frame)
    assert lab.predictions("small").equals(frame), "of an experiment that was run, by its name"
    assert lab.result(id_of(experiment)[:8]).key == lab.result(experiment).key
    assert lab.book("small", "ridge").trades.height > 0
    _served_signals_say_what_is_served()
    assert set(lab.predictions(Path("mine.yaml"), engine="ridge")["engine"]) == {"ridge"}
    with pytest.raises(UnknownNameError, match="ridge"):
        lab.predictions(experiment, engine="oracle")
    result = lab.result("mine.yaml")
    told = json.loads(command("performance", "report", "--json"))
    assert told["metrics"] == json.loads(json.dumps(result.metrics))
    assert Path(told["path"]) == result.path
    assert lab.bars(experiment).height == 6 * 328


def _served_signals_say_what_is_served() -> None:
    assert lab.signals("small").height > 0
    only = r"only the signals of ensemble, the book that it would trade, .* write promotion: {book: ridge} and run it again"
    with pytest.raises(InputError, match=only):
        lab.signals("small", "ridge")
    with pytest.raises(UnknownNameError, match="no book in this experiment named 'oracle'"):
        lab.signals("small", "oracle")


@pytest.mark.parametrize("use", [lab.signals, lab.result, lab.book, lab.predictions])
def test_what_is_no_experiment_is_told_what_is_one(home: Path, use: Callable[[object], object]) -> None:
    with pytest.raises(InputError, match=r"7 is no experiment\. Give an Experiment, a YAML file, a source, or the name or id"):
        use(7)
    with pytest.raises(UnknownNameError, match="There is no experiment that was run named 'nowhere'"):
        use("nowhere")


def test_an_experiment_that_comes_along_is_meant_by_its_name(folder: Path) -> None:
    with pytest.raises(InputError, match="'all-engines' has no result yet"):
        lab.result("all_engines")


async def test_it_works_inside_a_running_event_loop(folder: Path) -> None:
    bars = lab.bars(f"file:{folder}", symbols=["AAA"])
    assert lab.features(bars, "ROC5").height == 328
    assert lab.sql("SELECT count(*) AS n FROM bars")["n"].item() >= 328


def test_names_that_are_none_are_refused(home: Path) -> None:
    for source in ("yahoo", "../../etc", "file:nowhere.csv", "file:"):
        with pytest.raises(InputError):
            lab.bars(source)
    with pytest.raises(InputError, match="bar interval"):
        lab.bars("sample", interval="1month")
    with pytest.raises(InputError, match="Swap them"):
        lab.bars("sample", start="2012-01-01", end="2011-01-01")
    with pytest.raises(UnknownNameError, match="AAPL"):
        lab.bars("sample", symbols=["NOPE"])
    with pytest.raises(InputError):
        lab.bars(small_experiment(home, dataset=DatasetSpec(source="sample", symbols=("../x",))))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"label": LabelSpec(horizon=-3)}, r"label\.horizon is -3; it must be at least 1"),
        ({"costs": CostSpec(fee_bps=float("nan"))}, r"costs\.fee_bps is nan"),
        ({"features": FeatureSpec(sets=(), names=("ROC5",))}, "momentum needs the features"),
        ({"validation": PredictionGuard(range=-1.0)}, r"validation\.range is -1"),
        ({"promotion": PromotionSpec(book="oracle")}, r"promotion\.book"),
        ({"risk": RiskSpec(least=300, window=200)}, r"risk\.least is 300"),
        ({"news": NewsSpec(source="file:nowhere.csv")}, r"nowhere\.csv"),
        ({"strategy": StrategySpec(neutralise=NeutraliseSpec(by="sector"))}, r"strategy\.neutralise"),
    ],
)
def test_an_experiment_made_in_python_is_refused_before_a_bar_is_stored(
    folder: Path, change: dict[str, object], reason: str
) -> None:
    wrong = small_experiment(folder, **change)
    for use in (lab.bars, lab.predictions, lab.result):
        with pytest.raises(InputError, match=reason):
            use(wrong)
    assert not (folder.parent / "home").exists()


def test_the_sample_is_there_without_servers_beforehand_and_none_is_held_afterwards(tmp_path: Path, new_home: object) -> None:
    settings = new_home()  # type: ignore[operator]  # a fixture of the root conftest
    code = "from tidemill import lab; bars = lab.bars('sample'); print(bars['symbol'].n_unique(), bars.height > 10_000)"
    unset = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMILL_")}
    environment = {**unset, "TIDEMILL_HOME": str(settings.home), "TIDEMILL_KEEPER_LINGER": "60"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=environment,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout) == (0, "5 True\n"), done.stderr


def test_functions_and_features_are_proven_without_a_home() -> None:
    frame = daily_bars(120, ("AAA", "BBB")).with_columns(
        pl.col("date").cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias("open_time")
    )

    def tomorrow(bars: pl.DataFrame) -> pl.DataFrame:
        return bars.select("symbol", "open_time", tomorrow=pl.col("close").shift(-1).over("symbol"))

    proof = lab.prove(frame.drop("date"), "KMID", "roc_10", tomorrow, lookback=1)
    assert proof.proven == ("KMID", "roc_10")
    assert [found.feature for found in proof.refuted] == ["tomorrow"]
