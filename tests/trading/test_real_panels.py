"""The whole chain over real bars, stepped by processes that are stopped and begun anew: what a run stored, to the bit.

Of the S&P panel 250 days and 40 of its 505 symbols, of Binance's hourly one 60 days and 14 of its 136 pairs, so that all
shipped strategies, with all ways to be neutral, take minutes. The deciders are the rows that the run wrote; every column of
`stepping.said_by` is compared.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl
import pytest

from tests.conftest import SHARED, skip_or_fail
from tests.study.running import run_signals
from tests.study.stepping import Task, differing, step_apart, stored_by
from tests.user_modules.conftest import example
from tidemill.config import Settings
from tidemill.domain.experiment import (
    DatasetSpec,
    EngineSpec,
    Experiment,
    FeatureSpec,
    LabelSpec,
    NeutraliseSpec,
    PredictionGuard,
    SplitSpec,
    StrategySpec,
)
from tidemill.experiments.tracked import id_of
from tidemill.strategies.registry import SHIPPED
from tidemill.study.study import Study
from tidemill.study.tables import ENSEMBLE
from tidemill.study.workspace import Workspace

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
LONG = {"long_only_top_k", "sma_cross"}
# Tight enough that each of the rules rejects something.
RULES = PredictionGuard(missing=0.3, distance=2.0, range=0.2, history=1000, disagreement=0.7)


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
    (tmp_path / "mine.py").write_text(example())
    books, studies = {}, {}
    for experiment, book in experiments(panel, tmp_path / "mine.py"):
        books[id_of(experiment)], studies[id_of(experiment)] = book, run_signals(workspace, experiment)
    study = next(iter(studies.values()))
    first = study.times.search_sorted(study.folds[0].test_start)
    tested = len(study.times) - first
    assert tested >= panel.slots
    stops = sorted(np.random.default_rng(11).choice(np.arange(first, len(study.times) - 1), STOPS, replace=False).tolist())
    said = stepped(books, [study.times[at] for at in stops], settings, tmp_path)
    for id_, frame in said.items():
        _compare(studies[id_], books[id_], frame)


def experiments(panel: Panel, module: Path) -> Iterator[tuple[Experiment, str]]:
    """Every shipped strategy with every way to be neutral, and one with a module's feature and engine; each with its book."""
    assert {*STRATEGIES} == {*SHIPPED}
    sectors = {symbol: f"sector {at % 5}" for at, symbol in enumerate(panel.dataset.symbols[:-3])}
    neutral = [None, NeutraliseSpec(by="sector", sectors=sectors)]
    neutral += [NeutraliseSpec(by="beta", window=60, least=30)] if panel.shorts else []
    for name, (params, book) in STRATEGIES.items():
        for how in neutral:
            if how is not None and panel.shorts and name in LONG:
                continue  # where something can be short a long side alone is closed, and nothing is left to compare
            yield _experiment(panel, StrategySpec(name=name, params=params, neutralise=how)), book
    own = (EngineSpec(name="momentum"), EngineSpec(name="my_engine"))
    features = FeatureSpec(sets=("classic",), names=("my_gap",))
    yield _experiment(panel, StrategySpec(), engines=own, features=features, modules=(str(module),)), ENSEMBLE


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


def stepped(books: dict[str, str], stops: Sequence[object], settings: Settings, folder: Path) -> dict[str, pl.DataFrame]:
    """Experiment → what its book's chain said of every slot, by a process for each stretch between two stops."""
    parts: dict[str, list[str]] = {experiment: [] for experiment in books}
    for at, (before, until) in enumerate(pairwise([None, *stops, None])):
        tasks = []
        for experiment, book in books.items():
            state, save = (folder / f"{experiment}-{number}.state" for number in (at, at + 1))
            said = folder / f"{experiment}-{at}.parquet"
            parts[experiment].append(str(said))
            tasks.append(Task(experiment, book, str(state) if before else None, until, str(save) if until else None, str(said)))
        step_apart(tasks, settings, folder)
    return {experiment: pl.concat(map(pl.read_parquet, files)) for experiment, files in parts.items()}


def _compare(study: Study, book: str, said: pl.DataFrame) -> None:
    name, since = study.experiment.name, study.folds[0].test_start
    names = [column.removeprefix("prediction ") for column in said.columns if column.startswith("prediction ")]
    said = said.sort("symbol", "open_time")
    assert said.height == study.bars.height, name
    assert differing(said, stored_by(study, names, book), since) == {}, name
    tested = said.filter(pl.col("open_time") >= since)
    assert tested.filter(pl.col("weight").is_finite() & (pl.col("weight") != 0.0)).height > 100, name
    assert tested[f"rejected {book}"].sum() > 0, name
    assert tested.filter(pl.col("weight").is_finite())["confidence"].n_unique() > 1, name
