"""Bar by bar through the chain: the features, predictions, rejections and signals of a run, to the bit."""

from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest

from tests.databases import new_database
from tests.study.accounts import Kept, Recorder, backtested, booked, require_same_account
from tests.study.chained import stepped, terms_of
from tests.study.panels import SECTORS, small_experiment, stocks
from tests.study.running import STEPS
from tidemill.config import Settings
from tidemill.domain.experiment import EngineSpec, Experiment, NeutraliseSpec, PredictionGuard, SplitSpec, StrategySpec
from tidemill.embedded import Servers
from tidemill.steps.models.engines import train
from tidemill.steps.predictions.validity import validate_predictions
from tidemill.study.rejections import rejections_of
from tidemill.study.scheduled import book_by
from tidemill.study.scoring import predictions_of
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.tables import ENSEMBLE, SIGNALS
from tidemill.study.workspace import Workspace, open_workspace


@pytest.fixture(scope="module")
def workspace(servers: Servers, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """One for all: bars, features and models are made once."""
    with new_database(servers.postgres_dsn, migrated) as dsn:
        home = tmp_path_factory.mktemp("home")
        with open_workspace(Settings(home=home, postgres_dsn=dsn, redis_url=servers.redis_url, connections=4)) as opened:
            yield opened


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chain") / "panel.parquet"
    stocks().write_parquet(path)
    return path


@pytest.mark.parametrize(
    ("strategy", "book"),
    [
        (StrategySpec(name="quantile", params={"every": 3, "quantile": 0.4}), None),
        (StrategySpec(name="long_only_top_k", params={"k": 2}), "ridge"),
        (
            StrategySpec(name="quantile", params={"quantile": 0.5}, neutralise=NeutraliseSpec(by="sector", sectors=SECTORS)),
            None,
        ),
        (StrategySpec(name="inverse_volatility", params={"every": 4, "window": 30}), "momentum"),
        (StrategySpec(name="quantile", params={"every": 2}, neutralise=NeutraliseSpec(by="beta", window=30, least=10)), None),
        (StrategySpec(name="sma_cross", params={"fast": 3, "slow": 8}), None),
    ],
)
def test_the_chain_gives_what_a_run_stored(workspace: Workspace, panel: Path, strategy: StrategySpec, book: str | None) -> None:
    rules = PredictionGuard(distance=1.2, range=0.2, history=150, disagreement=0.8)
    study = ran(workspace, small_experiment(panel, strategy=strategy, ensemble="skill", validation=rules))
    assert {*study.adjustments["kind"]} == {"split", "dividend"}
    found = walked(study, book)

    stored = study.feature_frame.select("symbol", "open_time", *study.available.names)
    assert framed(found.features, stored).equals(stored.sort("symbol", "open_time").fill_nan(None))
    for name, rows in found.predictions.items():
        expected = predictions_of(study, name).select("symbol", "open_time", "prediction")
        assert framed(rows, expected).equals(expected.sort("symbol", "open_time")), name
    told = rejections_of(study).filter(pl.col("book").is_in(list(found.predictions)))
    assert found.rejected == set(told.select("book", "symbol", "open_time").iter_rows())
    assert 0 < len(found.rejected) < sum(map(len, found.predictions.values())) // 2
    signals = study.lake.scan(SIGNALS, study.key, partitions=[book or ENSEMBLE]).select("symbol", "open_time", "weight")
    expected = signals.drop_nulls("weight").collect().sort("symbol", "open_time")
    assert framed(found.weights, expected).equals(expected)
    assert expected.filter(pl.col("weight") != 0.0).height > 20
    assert require_same_account(found.account, booked(backtested(study, expected))) > 10


@pytest.mark.parametrize("limits", ["default", None])
def test_the_account_of_the_chain_is_that_of_the_book(workspace: Workspace, panel: Path, limits: str | None) -> None:
    strategy = StrategySpec(name="quantile", params={"every": 3, "quantile": 0.4})
    study = ran(workspace, small_experiment(panel, strategy=strategy, limits=limits))
    terms = terms_of(study, "ridge")
    terms = [*(before._replace(end=after.start) for before, after in pairwise(terms)), terms[-1]]
    expected = book_by(study, terms)
    expected = expected.with_suspected or expected
    slots = stepped(study, terms, trading=True, reload_at=frozenset({150, 200, 240}))
    steps = [wanted.traded for _, wanted in slots if wanted.traded]
    assert [step.equity for step in steps[:-1]] == expected.equity["equity"].to_list()[:-1]
    assert sum(len(step.changes) for step in steps) > 10
    assert sum(step.costs for step in steps[:-1]) > 0.0


@pytest.mark.parametrize("name", ["gru", "transformer"])
def test_an_engine_that_remembers_begins_at_every_border_with_the_bars_that_it_looks_back_at(
    workspace: Workspace, panel: Path, name: str
) -> None:
    quick = EngineSpec(name=name, params={"minimum_steps": 2, "maximum_steps": 3})
    study = ran(
        workspace, small_experiment(panel, engines=(EngineSpec(name="ridge"), quick), splits=SplitSpec(train=100, test=29))
    )
    found = walked(study, name)
    for book, rows in found.predictions.items():
        expected = predictions_of(study, book).select("symbol", "open_time", "prediction")
        assert expected["prediction"].is_not_null().sum() > 400
        assert framed(rows, expected).equals(expected.sort("symbol", "open_time")), book


def ran(workspace: Workspace, experiment: Experiment) -> Study:
    """A study whose predictions were judged, too."""
    study = study_of(workspace, experiment)
    for name, step in STEPS.items():
        if name in {"momentum", "ridge"}:
            continue
        if name == "predictions":
            for spec in experiment.engines:
                train(study, spec.name)
        step(study)
        if name == "combined":
            validate_predictions(study)
    return study


def framed(rows: list[tuple[object, ...]], like: pl.DataFrame) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=like.schema, orient="row").sort("symbol", "open_time").fill_nan(None)


class Walked(NamedTuple):
    features: list[tuple[object, ...]]
    predictions: dict[str, list[tuple[object, ...]]]
    rejected: set[tuple[str, str, datetime]]
    weights: list[tuple[object, ...]]
    account: Kept


def walked(study: Study, book: str | None, reload_at: frozenset[int] = frozenset({50, 111, 160, 161, 240})) -> Walked:
    """What the chain says of the bars that there are; predictions, weights and the account from the first test window on."""
    names = [*(spec.name for spec in study.experiment.engines), ENSEMBLE] if book is None else [book]
    symbols, since = sorted(study.bars["symbol"].unique()), study.folds[0].test_start
    features: list[tuple[object, ...]] = []
    predictions: dict[str, list[tuple[object, ...]]] = {name: [] for name in names}
    rejected: set[tuple[str, str, datetime]] = set()
    weights: list[tuple[object, ...]] = []
    recorder = Recorder(symbols)
    present = set(study.bars.select("symbol", "open_time").iter_rows())
    for time, wanted in stepped(study, terms_of(study, book or ENSEMBLE), trading=True, reload_at=reload_at):
        there = [(at, symbol) for at, symbol in enumerate(symbols) if (symbol, time) in present]
        features.extend((symbol, time, *wanted.features[at]) for at, symbol in there)
        if time < since:
            continue
        for place, name in enumerate(names):
            predictions[name].extend((symbol, time, wanted.predictions[at, place]) for at, symbol in there)
            rejected.update((name, symbol, time) for at, symbol in there if wanted.rejected[at, place])
        asked = np.flatnonzero(~np.isnan(wanted.weights))
        weights.extend((symbols[at], time, wanted.weights[at]) for at in asked)
        assert wanted.traded is not None
        recorder.take(time, wanted.traded)
    return Walked(features, predictions, rejected, weights, recorder.kept())
