"""The whole chain over real bars, stepped by processes that are stopped and begun anew: what a run stored, to the bit.

Of the S&P panel 250 days and 40 of its 505 symbols, of Binance's hourly one 60 days and 14 of its 136 pairs, so that all
shipped strategies, with all ways to be neutral, take minutes. The deciders are the rows that the run wrote. Every column of
`stepping.said_by` is compared, and of the account every fill, round trip, equity, exposure and cost, with the book of the run.

That book takes the profit and loss across suspected corporate actions out, which a session books as they come: there what the
run keeps beside it is compared (`BacktestResult.with_suspected`). Neither panel tells of splits or dividends.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl
import pytest

from tests.conftest import SHARED, skip_or_fail
from tests.study.accounts import (
    Kept,
    backtested,
    booked,
    differing_columns,
    joined,
    require_same_account,
    require_same_state,
    require_same_totals,
)
from tests.study.running import run_signals
from tests.study.stepping import Task, differing, step_apart, stored_by
from tidemill.config import Settings
from tidemill.domain.experiment import (
    DatasetSpec,
    DrawdownSpec,
    EngineSpec,
    Experiment,
    FeatureSpec,
    LabelSpec,
    LimitsSpec,
    NeutraliseSpec,
    PredictionGuard,
    SplitSpec,
    StrategySpec,
)
from tidemill.experiments.tracked import id_of
from tidemill.steps.trading.backtest import run_backtests
from tidemill.strategies.registry import SHIPPED
from tidemill.study.deciders import known_to, terms_of
from tidemill.study.study import Study
from tidemill.study.tables import ENSEMBLE, EQUITY, POSITIONS, SIGNALS, TRADES
from tidemill.study.workspace import Workspace
from tidemill.trading.saved import load_chain

pytestmark = [pytest.mark.long, pytest.mark.timeout(2_400)]

STOPS = 10
ENGINES = (
    EngineSpec(name="momentum"),
    EngineSpec(name="ridge"),
    EngineSpec(name="lightgbm", params={"trees": 30}),
    EngineSpec(name="gru", params={"minimum_steps": 2, "maximum_steps": 4}),
)
# Strategy → parameters with which it trades often here, and the book that it trades.
STRATEGIES: dict[str, tuple[dict[str, object], str]] = {
    "quantile": ({"every": 3}, ENSEMBLE),
    "long_only_top_k": ({"k": 6, "every": 4}, "gru"),
    "inverse_volatility": ({"window": 40, "least": 20}, "lightgbm"),
    "mean_variance": ({"window": 60, "least": 40, "every": 10, "refit": 2}, ENSEMBLE),
    "sma_cross": ({"fast": 5, "slow": 20}, "momentum"),
}
# Linear under `quantile` and not neutral: its links go together in one compiled call, where those of the others go one by one.
FUSED = "ridge"
LONG = {"long_only_top_k", "sma_cross"}
# Tight enough that each of the rules rejects something.
RULES = PredictionGuard(missing=0.3, distance=2.0, range=0.2, history=1000, disagreement=0.7)


# Tight enough that each of them binds somewhere; a book that has lost too much adds nothing from then on.
LIMITS = LimitsSpec(position=0.15, gross=0.8, net=0.6, drawdown=DrawdownSpec(block=0.03, reduce=0.05, flatten=0.5), collar=0.01)
# Functions of features, an engine that sees times, one that looks back, and a strategy.
MODULE = """
import numpy as np
import polars as pl

def rolled(bars):
    own = pl.col("close") / pl.col("close").rolling_mean(8).over("symbol") - 1
    return bars.select("symbol", "open_time", my_mean=own, my_rank=pl.col("volume").rank().over("open_time"))

features(rolled, by_tail=9, columns=["my_mean", "my_rank"])
feature("my_gap", close / mean(close, 20) - 1, unit="ratio", about="distance to the mean of 20 bars")

def known(frame, features):
    return frame.select(pl.col(features).fill_nan(0.0)).to_numpy()

def fit(training, *, features, penalty=10.0):
    x = known(training.with_columns(pl.col(features).fill_null(float("nan"))), features)
    return {"weights": np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ training["label"].to_numpy())}

def predict(model, frame, *, features):
    hour = frame["open_time"].dt.hour().to_numpy() + frame["open_time"].dt.weekday().to_numpy()
    return (known(frame, features) * model["weights"]).sum(axis=1) * (1.0 + hour / 100.0)

engine("my_engine", fit, predict)

def recall(model, frame, *, features):
    seen = frame.with_columns(pl.col(features).fill_nan(0.0).rolling_mean(5, min_samples=1).over("symbol"))
    return (known(seen, features) * model["weights"]).sum(axis=1)

def load(stored):
    return {"weights": stored["kept"]}

engine("my_memory", fit, recall, save=lambda model: {"kept": model["weights"]}, load=load, by_tail=6)

def best(predictions, held=4):
    mean = pl.col("prediction").rolling_mean(3, min_samples=1).over("symbol")
    rank = mean.rank("ordinal", descending=True).over("open_time")
    return predictions.select("symbol", "open_time", weight=pl.when(rank <= held).then(0.8 / held).otherwise(0.0))

strategy("my_strategy", best, by_tail=4)
"""


class Panel(NamedTuple):
    """A real panel: where it lies below the shared data, what is taken of it, and whether its symbols can be sold short."""

    file: str
    dataset: DatasetSpec
    splits: SplitSpec
    slots: int
    shorts: bool


# Late listings, a halt, a wrong tick and suspected actions are among them.
STOCKS = """
    A AAPL ADM AMGN AXP BA BAC BHF BHGE BMY C CAT DHR DUK DXC EBAY ES GE GM GS
    HD IBM ICE JNJ JPM KO LNT MMM MSFT NI O ORCL PFE PG PYPL T VRTX WFC WMT XOM
"""
PAIRS = "1000SATS AVAX BOME BTC DOGE ENA ETH ETHFI LINK NOT SOL TRX WIF XRP"


def symbols(names: str, quote: str = "") -> tuple[str, ...]:
    return tuple(f"{name}{quote}" for name in names.split())


SP500 = Panel(
    "sp500_daily_2013_2018/sp500_daily.parquet",
    DatasetSpec(interval="1d", start="2016-02-01", symbols=symbols(STOCKS)),
    SplitSpec(train=230, test=45),
    slots=250,
    shorts=True,
)
BINANCE = Panel(
    "binance_spot_2024_1h/binance_spot_1h.parquet",
    DatasetSpec(interval="1h", start="2024-03-23", end="2024-06-01", symbols=symbols(PAIRS, "USDT")),
    SplitSpec(train=240, test=240),
    slots=60 * 24,
    shorts=False,
)


@pytest.mark.parametrize("panel", [pytest.param(SP500, id="sp500"), pytest.param(BINANCE, id="binance")])
def test_a_chain_that_is_stopped_at_ten_random_bars_gives_what_the_run_stored(
    workspace: Workspace, settings: Settings, tmp_path: Path, panel: Panel
) -> None:
    if not (SHARED / panel.file).is_file():
        skip_or_fail("data", f"no real data at {SHARED / panel.file}")
    (tmp_path / "mine.py").write_text(MODULE)
    books, studies = {}, {}
    for experiment, book in experiments(panel, tmp_path / "mine.py"):
        books[id_of(experiment)], studies[id_of(experiment)] = book, run_signals(workspace, experiment)
        run_backtests(studies[id_of(experiment)])
    study = next(iter(studies.values()))
    first = study.times.search_sorted(study.folds[0].test_start)
    tested = len(study.times) - first
    assert tested >= panel.slots
    stops = sorted(np.random.default_rng(11).choice(np.arange(first, len(study.times) - 1), STOPS, replace=False).tolist())
    said = stepped(books, [study.times[at] for at in [*stops, -1]], settings, tmp_path)
    held = sum(_compare(studies[id_], books[id_], *one) for id_, one in said.items())
    assert held > STOPS * len(books)


def experiments(panel: Panel, module: Path) -> Iterator[tuple[Experiment, str]]:
    """Every shipped strategy with every way to be neutral, and one with a module's feature and engine; each with its book."""
    assert {*STRATEGIES} == {*SHIPPED}
    sectors = {symbol: f"sector {at % 5}" for at, symbol in enumerate(panel.dataset.symbols[:-3])}
    neutral = [None, NeutraliseSpec(by="sector", sectors=sectors)]
    neutral += [NeutraliseSpec(by="beta", window=60, least=30)] if panel.shorts else []
    for name, (params, book) in STRATEGIES.items():
        for at, how in enumerate(neutral):
            if how is not None and panel.shorts and name in LONG:
                continue  # where something can be short a long side alone is closed, and nothing is left to compare
            limits = {"limits": LIMITS} if at % 2 == 0 else {}
            made = _experiment(panel, StrategySpec(name=name, params=params, neutralise=how), **limits)
            yield made, FUSED if how is None and name == "quantile" else book
    own = tuple(map(_named, ("momentum", "my_engine", "my_memory")))
    features = FeatureSpec(sets=("classic",), names=("my_gap", "my_mean", "my_rank"))
    strategy = StrategySpec(name="my_strategy")
    yield _experiment(panel, strategy, engines=own, features=features, modules=(str(module),)), ENSEMBLE


def _named(name: str) -> EngineSpec:
    return EngineSpec(name=name)


def _experiment(panel: Panel, strategy: StrategySpec, **changes: object) -> Experiment:
    values: dict[str, object] = {
        "name": f"{strategy.name} {strategy.neutralise.by if strategy.neutralise else 'as it is'}",
        "dataset": msgspec.structs.replace(panel.dataset, source=f"file:{SHARED / panel.file}"),
        "features": FeatureSpec(sets=("alpha30", "classic")),
        "label": LabelSpec(horizon=5),
        "engines": ENGINES,
        "splits": panel.splits,
        "validation": RULES,
        "strategy": strategy,
        **changes,
    }
    return Experiment(**values)  # type: ignore[arg-type]  # any field


class Said(NamedTuple):
    """What a book's chain said of every slot, what its account came to, and the files of its state after each stop."""

    bars: pl.DataFrame
    account: Kept
    states: dict[datetime, Path]


def stepped(books: dict[str, str], stops: Sequence[datetime], settings: Settings, folder: Path) -> dict[str, Said]:
    """Experiment → what its book came to, by a process for each stretch up to the next stop."""
    tasks: dict[str, list[Task]] = {experiment: [] for experiment in books}
    for at, until in enumerate(stops):
        for experiment, book in books.items():
            state, save = (str(folder / f"{experiment}-{number}.state") for number in (at, at + 1))
            said = str(folder / f"{experiment}-{at}.parquet")
            tasks[experiment].append(Task(experiment, book, state if at else None, until, save, said))
        step_apart([own[-1] for own in tasks.values()], settings, folder)
    return {experiment: _said(own) for experiment, own in tasks.items()}


def _said(tasks: Sequence[Task]) -> Said:
    account = joined(Kept(*map(pl.read_parquet, task.accounts)) for task in tasks)
    states = {task.until: Path(task.save) for task in tasks if task.until and task.save}
    return Said(pl.concat(pl.read_parquet(task.said) for task in tasks), account, states)


def _compare(study: Study, book: str, said: pl.DataFrame, account: Kept, states: dict[datetime, Path]) -> int:
    """How many positions were held at the stops."""
    name, since = study.experiment.name, study.folds[0].test_start
    names = [column.removeprefix("prediction ") for column in said.columns if column.startswith("prediction ")]
    said = said.sort("symbol", "open_time")
    assert said.height == study.bars.height, name
    assert differing(said, stored_by(study, names, book), since) == {}, name
    tested = said.filter(pl.col("open_time") >= since)
    assert tested.filter(pl.col("weight").is_finite() & (pl.col("weight") != 0.0)).height > 100, name
    assert tested[f"rejected {book}"].sum() > 0, name
    assert tested.filter(pl.col("weight").is_finite())["confidence"].n_unique() > 1, name
    return _compare_account(study, book, account, states)


def _compare_account(study: Study, book: str, account: Kept, states: dict[datetime, Path]) -> int:
    """With the rows of the book that the run wrote."""
    result = backtested(study, study.lake.scan(SIGNALS, study.key, partitions=[book]).collect())
    for table, frame in ((EQUITY, result.equity), (POSITIONS, result.positions), (TRADES, result.trades)):
        keys = [column for column, kind in frame.schema.items() if kind != pl.Float64]
        stored = study.lake.scan(table, study.key, partitions=[book]).select(frame.columns).collect()
        assert differing_columns(stored.sort(keys), frame.sort(keys)) == [], (study.experiment.name, table)
    assert require_same_account(account, booked(result)) > 10, study.experiment.name
    decider, held = terms_of(study, id_of(study.experiment), book)[0].decider, 0
    for time, path in states.items():
        own = load_chain(path, decider, known_to(study)).state.account
        assert own is not None
        if time < study.times[-1]:
            held += require_same_state(own, result, time)
        else:
            require_same_totals(own, result)
    return held
