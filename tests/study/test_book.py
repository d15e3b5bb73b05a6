"""One book: whoever trades the same predictions over the same bars gets the same returns, to the bit."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import exchange_calendars
import msgspec
import polars as pl
import pytest

from tests.study.panels import SYMBOLS, daily_bars, small_experiment
from tests.study.running import STEPS
from tidemill import lab
from tidemill.config import Secret
from tidemill.domain.experiment import EngineSpec, Experiment, NeutraliseSpec, PredictionGuard, PromotionSpec, StrategySpec
from tidemill.evaluation.cross_validation import Plan, cross_validate
from tidemill.evaluation.search import score_of
from tidemill.steps.models.champion import challenge, challenge_fold
from tidemill.steps.models.engines import train
from tidemill.steps.performance.selection import book_trials
from tidemill.storage.trials import read_returns, read_trials
from tidemill.study.book import Span, book
from tidemill.study.book import tested as out_of_sample
from tidemill.study.rejections import rejections_of, tradable
from tidemill.study.scoring import predicted_by
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.workspace import Workspace

DAYS, TEST = 280, 30
MODULE = """
import polars as pl

def best(predictions, share=0.3):
    rank = pl.col("prediction").rank("ordinal", descending=True).over("open_time")
    count = pl.len().over("open_time")
    weight = pl.when(rank <= count * share).then(0.2).when(rank > count * (1 - share)).then(-0.2).otherwise(0.0)
    return predictions.select("symbol", "open_time", weight=weight)

strategy("my_best", best)
"""
SIZED = {"window": 40, "least": 20, "every": 10, "quantile": 0.4}
STRATEGIES: dict[str, dict[str, Any]] = {
    "quantile": {"quantile": 0.4},
    "long_only_top_k": {"k": 2},
    "inverse_volatility": SIZED,
    "mean_variance": SIZED,
    "sma_cross": {"fast": 5, "slow": 15},
    "my_best": {},
}
NEUTRAL, SPLIT, STRICT = (None, "sector", "beta"), (False, True), (False, True)
CASES = list(product(STRATEGIES, NEUTRAL, SPLIT, STRICT))
# Every strategy, every way to be neutral, with and without the rest; all of them together are long.
FEW = {
    ("quantile", "beta", False, True),
    ("long_only_top_k", "sector", True, False),
    ("inverse_volatility", None, True, True),
    ("mean_variance", "beta", True, False),
    ("sma_cross", None, True, True),
    ("my_best", "sector", False, True),
}


class Home(NamedTuple):
    workspace: Workspace
    folder: Path

    def experiment(self, *, split: bool, **changes: Any) -> Experiment:
        values: dict[str, Any] = {
            "modules": (str(self.folder / "mine.py"),),
            "promotion": PromotionSpec(book="ridge", bars=TEST),
        }
        return small_experiment(self.folder / ("split" if split else "whole"), **(values | changes))


def _panel(split: bool) -> pl.DataFrame:
    """Sessions of New York, so that beta can be neutral; with `split`, one symbol halves inside the last test window."""
    calendar = exchange_calendars.get_calendar("XNYS", start="2021-01-04")
    sessions = [session.date() for session in calendar.sessions[:DAYS]]
    bars = daily_bars(DAYS)
    days = dict(zip(bars["date"].unique().sort(), sessions, strict=True))
    moved = bars.with_columns(pl.col("date").replace_strict(days, return_dtype=pl.Date))
    return moved if not split else _halved(moved, sessions[DAYS - 12])


def _halved(bars: pl.DataFrame, since: date) -> pl.DataFrame:
    factor = pl.when((pl.col("symbol") == "CCC") & (pl.col("date") >= since)).then(0.5).otherwise(1.0)
    return bars.with_columns(pl.col(name) * factor for name in ("open", "high", "low", "close"))


@pytest.fixture
def home(tmp_path: Path, migrated_dsn: Secret, redis_url: Secret, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TIDEMILL_POSTGRES_DSN", migrated_dsn.reveal())
    monkeypatch.setenv("TIDEMILL_REDIS_URL", redis_url.reveal())
    monkeypatch.setenv("TIDEMILL_CONNECTIONS", "4")
    for split in SPLIT:
        folder = tmp_path / ("split" if split else "whole")
        folder.mkdir()
        _panel(split).write_parquet(folder / "base.parquet")
    (tmp_path / "mine.py").write_text(MODULE)
    sectors = "".join(f"{symbol},{'ab'[at // 3]}\n" for at, symbol in enumerate(SYMBOLS))
    (tmp_path / "sectors.csv").write_text(f"symbol,sector\n{sectors}")
    yield Home(lab._workspace(), tmp_path)
    lab.close()


def _ran(home: Home, experiment: Experiment) -> Study:
    study = study_of(home.workspace, experiment)
    for name, step in STEPS.items():
        if name == "predictions":
            for spec in experiment.engines:
                train(study, spec.name)
        if name not in ("momentum", "ridge"):
            step(study)
    return study


def _counted(study: Study, trial: str) -> list[tuple[datetime, float]]:
    """The returns that the ledger keeps of a trial."""
    rows = study.workspace.call(read_trials, study.workspace.database, trial_ids=[trial])
    return read_returns(study.lake, rows).select("time", "return").rows()


def _newest(study: Study, kind: str) -> str:
    rows = study.workspace.call(read_trials, study.workspace.database, experiment=study.experiment.name)
    return str(rows.filter(pl.col("kind") == kind)["trial_id"][-1])


def _rows(frame: pl.DataFrame) -> list[tuple[datetime, float]]:
    return frame.select(pl.col("time").cast(pl.Datetime("us", "UTC")), "return").drop_nulls().rows()


def _finite(rows: list[tuple[datetime, float]]) -> list[tuple[datetime, float]]:
    return [row for row in rows if row[1] == row[1]]


def _case(home: Home, strategy: str, by: str | None, split: bool, strict: bool) -> Study:
    params = STRATEGIES[strategy]
    neutral = {
        None: None,
        "sector": NeutraliseSpec(by="sector", sector_file=str(home.folder / "sectors.csv")),
        "beta": NeutraliseSpec(by="beta", window=40, least=20),
    }[by]
    rules = PredictionGuard(distance=0.75, history=60, range=0.05) if strict else PredictionGuard()
    spec = StrategySpec(name=strategy, params=params, neutralise=neutral)
    return _ran(home, home.experiment(split=split, strategy=spec, validation=rules))


def _check(home: Home, strategy: str, by: str | None, split: bool, strict: bool) -> None:
    study = _case(home, strategy, by, split, strict)
    last = study.folds[-1]
    assert (rejections_of(study, "ridge").filter(pl.col("open_time") >= last.test_start).height > 0) == strict
    counting = tradable(study, "ridge", predicted_by(study, "ridge"))
    whole = book(study, counting, out_of_sample(study)).returns
    assert (book(study, counting, out_of_sample(study)).with_suspected is not None) == split
    assert _counted(study, book_trials(study)["ridge"]) == _finite(_rows(whole)), "the run"
    validated = cross_validate(study, "ridge", Plan(splitter="walk_forward"))
    assert _counted(study, validated.trial) == _finite(_rows(whole)), "cross-validation"
    expected = _finite(_rows(book(study, counting, Span(last.test_start, last.test_end)).returns))
    spec = next(one for one in study.experiment.engines if one.name == "ridge")
    searched = score_of(study, spec, [last], until=None, before=study.folds[:-1])
    assert _counted(study, searched.trial) == expected, "search"
    assert msgspec.structs.replace(challenge_fold(study), number=last.number) == last
    challenge(study, None)
    assert _counted(study, _newest(study, "promotion")) == expected, "promotion"
    mine = lab.book(study.experiment, "ridge", start=last.test_start.isoformat(), end=last.test_end.isoformat())
    assert _finite(_rows(mine.returns)) == expected, "lab"


def test_run_promotion_search_cross_validation_and_lab_trade_one_book(home: Home) -> None:
    for case in CASES:
        if case in FEW:
            _check(home, *case)


@pytest.mark.long
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_they_do_whatever_the_strategy_is_neutral_to_and_whatever_counts(home: Home, strategy: str) -> None:
    for case in CASES:
        if case[0] == strategy:
            _check(home, *case)


@pytest.mark.parametrize("weighing", ["equal", "skill"])
def test_a_promoted_ensemble_has_the_weights_that_the_experiment_asks_for(home: Home, weighing: str) -> None:
    policy = PromotionSpec(book="ensemble", bars=TEST)
    engines = (EngineSpec(name="momentum"), EngineSpec(name="mean_reversion"), EngineSpec(name="ridge"))
    study = _ran(home, home.experiment(split=True, ensemble=weighing, promotion=policy, engines=engines))
    last = study.folds[-1]
    counting = tradable(study, "ensemble", predicted_by(study, "ensemble"))
    expected = _finite(_rows(book(study, counting, Span(last.test_start, last.test_end)).returns))
    outcome = challenge(study, None)
    assert (len(set(outcome.weights.values())) == 1) == (weighing == "equal")
    assert sum(outcome.weights.values()) == pytest.approx(1.0)
    assert _counted(study, _newest(study, "promotion")) == expected
    mine = lab.book(study.experiment, start=last.test_start.isoformat(), end=last.test_end.isoformat())
    assert _finite(_rows(mine.returns)) == expected


def test_labels_are_null_across_a_suspected_action_and_nowhere_else(home: Home) -> None:
    whole, split = (study_of(home.workspace, home.experiment(split=each)) for each in (False, True))
    for study, name in product((whole, split), ("bars", "features", "labels")):
        STEPS[name](study)
    frames = [study.lake.scan("labels", study.labels_key).sort("symbol", "open_time").collect() for study in (whole, split)]
    both = frames[0].join(frames[1], on=("symbol", "open_time"), suffix="_split")
    lost = both.filter(pl.col("label").is_not_null() & pl.col("label_split").is_null())
    jump = _panel(True).filter(pl.col("symbol") == "CCC")["date"].sort()[DAYS - 12]
    at = datetime(jump.year, jump.month, jump.day, tzinfo=UTC)
    # Entered at the open of the next bar and left three bars later: three bars have the jump between the two.
    assert lost["symbol"].unique().to_list() == ["CCC"]
    assert lost.height == 3
    assert lost["open_time"].max() < at
    assert not both.filter(pl.col("label_split") < -0.4).height
