"""Challenger against champion on a panel with a planted signal: promotion, its refusals, its undoing."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from tests.databases import new_database
from tests.study.changed_code import change_line
from tests.study.panels import before_day, daily_bars, small_experiment
from tests.study.running import STEPS
from tidemill.config import Settings
from tidemill.domain.errors import InputError, StopError
from tidemill.domain.experiment import (
    CostSpec,
    DrawdownSpec,
    EngineSpec,
    Experiment,
    LabelSpec,
    LimitsSpec,
    NeutraliseSpec,
    PromotionSpec,
    SplitSpec,
    StrategySpec,
)
from tidemill.domain.intervals import Interval
from tidemill.domain.limits_reached import LimitsReached
from tidemill.embedded import Servers
from tidemill.experiments.tracked import id_of
from tidemill.quality.expectations import SuiteName
from tidemill.quality.flags import FLAG_SCHEMA
from tidemill.quality.validity import no_rejections
from tidemill.queries.deciders import decider_named
from tidemill.queries.results import result_of
from tidemill.queries.trials import list_trials
from tidemill.steps.checks.causality import ASSETS, OpenProofs, judge_causality
from tidemill.steps.checks.suites import judge_suite
from tidemill.steps.market_data.bars import sync_bars
from tidemill.steps.models.champion import challenge, challenge_fold, consider, nominee
from tidemill.steps.performance.drift import last_drift, measure_drift
from tidemill.steps.upstream import bring_up_to_date
from tidemill.storage import champions
from tidemill.storage.champions import Champion
from tidemill.study.book import Span
from tidemill.study.book import book as run_again
from tidemill.study.deciders import Term, terms_of
from tidemill.study.losses import confirm
from tidemill.study.rejections import tradable
from tidemill.study.scheduled import book_by, figures_of
from tidemill.study.scoring import predicted_by
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.tables import ENSEMBLE, EQUITY, FLAGS, PREDICTIONS, REFUSALS, TRADES, partition_of
from tidemill.study.workspace import Workspace, open_workspace

CHECKED: dict[SuiteName, str] = {
    "bars": "market_data/bars",
    "features": "features/technical",
    "predictions": "predictions/engines",
}
POLICY = PromotionSpec(book="ridge", bars=60, confidence=0.9)
FOUR_FOLDS = SplitSpec(train=90, test=60, min_folds=3)


def trending(days: int = 330) -> pl.DataFrame:
    """Six symbols whose returns carry on for some days: a signal that a model of past returns must find."""
    base, frames = daily_bars(days), []
    for number, part in enumerate(base.partition_by("symbol", maintain_order=True)):
        random = np.random.default_rng((17, number))
        drift = np.zeros(days)
        for day in range(1, days):
            drift[day] = 0.97 * drift[day - 1] + random.normal(0.0, 0.003)
        close = 50.0 * np.exp(np.cumsum(drift + random.normal(0.0, 0.004, days)))
        opened = np.concatenate(([50.0], close[:-1]))
        prices = {
            "open": opened,
            "high": np.maximum(opened, close) * 1.001,
            "low": np.minimum(opened, close) * 0.999,
            "close": close,
        }
        frames.append(part.with_columns(pl.Series(name, values.round(6)) for name, values in prices.items()))
    return pl.concat(frames)


@pytest.fixture(scope="module")
def trend_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("promotion") / "trend"
    made.mkdir()
    trending().write_parquet(made / "base.parquet")
    return made


@pytest.fixture(scope="module")
def opened(servers: Servers, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """One workspace for all: what the tests share is computed once."""
    home = tmp_path_factory.mktemp("home")
    with new_database(servers.postgres_dsn, migrated) as dsn:
        settings = Settings(home=home, postgres_dsn=dsn, redis_url=servers.redis_url, connections=4)
        with open_workspace(settings) as made:
            yield made


@pytest.fixture
def workspace(opened: Workspace) -> Iterator[Workspace]:
    """The shared one, without a champion before and after each test."""
    yield opened
    opened.call(opened.database.execute, "TRUNCATE champions")
    for dataset in opened.lake.datasets("challenges"):
        opened.lake.drop("challenges", dataset)


def finished(workspace: Workspace, experiment: Experiment, *, proven: bool = True) -> Study:
    """A study after a whole run, judged as the graph judges it."""
    study = study_of(workspace, experiment)
    for step in STEPS.values():
        step(study)
    for suite, asset in CHECKED.items():
        judge_suite(study, suite, asset)
    for asset in ASSETS if proven else ():
        judge_causality(study, asset)
    return study


def current(study: Study) -> Champion | None:
    return study.workspace.call(champions.current, study.workspace.database, study.dataset.key)


@pytest.fixture(scope="module")
def experiment(trend_folder: Path) -> Experiment:
    return small_experiment(trend_folder, promotion=POLICY, limits="default")


def test_a_challenger_that_beats_cash_becomes_the_first_champion_and_can_be_taken_back(
    workspace: Workspace, experiment: Experiment
) -> None:
    study = finished(workspace, experiment)
    report = consider(study)
    champion = current(study)
    assert champion is not None, report.notes
    assert champion.source == "policy"
    assert champion.evidence["low"] > 0.0
    assert champion.evidence["challenger"]["costs"] > 0.0
    assert champion.trained_until <= challenge_fold(study).test_start
    assert report.worked
    assert not consider(study).worked
    kinds = workspace.call(list_trials, workspace.database)["kind"].to_list()
    assert kinds.count("promotion") == 1, "a challenge is a trial, counted once"
    undone, back = workspace.call(champions.undo, workspace.database, study.dataset.key, "a test")
    assert (undone.id, back) == (champion.id, None)


def test_an_experiment_without_limits_is_refused_before_any_work(workspace: Workspace, experiment: Experiment) -> None:
    free = study_of(workspace, msgspec.structs.replace(experiment, limits=msgspec.UNSET))
    with pytest.raises(InputError, match=r"small cannot be promoted: it states no limits\. Write `limits: default` in it"):
        consider(free)


def test_the_champion_is_judged_under_the_limits_of_the_challenger(workspace: Workspace, experiment: Experiment) -> None:
    """One that was promoted under other limits, or before there were any, is compared on equal terms."""
    free = finished(workspace, msgspec.structs.replace(experiment, limits=msgspec.UNSET))
    alone = challenge(free, None)
    champion = workspace.call(champions.promote, workspace.database, nominee(free, alone), instead_of=None)
    tight = msgspec.structs.replace(experiment, limits=LimitsSpec(position=0.02))
    judged = challenge(finished(workspace, tight), champion)
    assert judged.champion == judged.challenger
    assert judged.champion != alone.challenger
    assert judged.advantage == 0.0


def test_an_equal_challenger_does_not_replace_the_champion(workspace: Workspace, experiment: Experiment) -> None:
    study = finished(workspace, experiment)
    consider(study)
    champion = current(study)
    assert champion is not None
    again = challenge(study, champion)
    assert again.advantage == 0.0
    assert again.champion == again.challenger, "the same model on the same bars"
    assert not again.wins
    # Another experiment with the same book: nothing can be said, and asked again that is still so.
    other = finished(
        workspace, msgspec.structs.replace(experiment, promotion=msgspec.structs.replace(experiment.promotion, confidence=0.8))
    )
    first, second = consider(other), consider(other)
    assert (first.worked, second.worked) == (True, False)
    assert first.notes == second.notes
    assert "of which nothing can be said" in second.notes[0]


def test_costs_that_eat_the_signal_leave_no_champion(workspace: Workspace, experiment: Experiment) -> None:
    dear = msgspec.structs.replace(experiment, costs=CostSpec(fee_bps=2_000.0))
    study = finished(workspace, dear)
    report = consider(study)
    assert current(study) is None
    assert "must lie above zero" in report.notes[0]
    assert "nothing has beaten cash" in report.notes[1]


def test_what_is_not_proven_causal_is_not_promoted(workspace: Workspace, experiment: Experiment) -> None:
    other = msgspec.structs.replace(experiment, strategy=StrategySpec(name="long_only_top_k", params={"k": 2}))
    study = finished(workspace, other, proven=False)
    report = consider(study)
    assert current(study) is None
    assert "no causality proof" in report.notes[0]


def test_a_refuted_strategy_is_not_promoted(
    workspace: Workspace, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = finished(workspace, experiment)
    refuted = OpenProofs(open={"trading/signals": "looks ahead at 2021-05-01."})
    monkeypatch.setattr("tidemill.steps.checks.causality.is_proven", lambda _: refuted)
    assert consider(study).notes[0] == "Not promoted: trading/signals: looks ahead at 2021-05-01."
    assert current(study) is None


def test_what_was_not_checked_as_it_is_now_is_not_promoted_until_it_is(workspace: Workspace, experiment: Experiment) -> None:
    finished(workspace, experiment)
    shorter = msgspec.structs.replace(experiment, dataset=msgspec.structs.replace(experiment.dataset, end="2021-11-20"))
    study = study_of(workspace, shorter)
    for step in STEPS.values():
        step(study)
    assert "never checked as it is now" in consider(study).notes[0]
    assert current(study) is None
    assert not consider(study).worked
    for suite, asset in CHECKED.items():
        judge_suite(study, suite, asset)
    refused = consider(study)
    assert refused.worked
    assert "never checked" not in refused.notes[0]
    for asset in ASSETS:
        judge_causality(study, asset)
    promoted = consider(study)
    assert promoted.worked
    assert "Not promoted: features" not in promoted.notes[0]
    assert not consider(study).worked


def test_nothing_of_a_source_that_lost_much_is_promoted_until_that_is_confirmed(workspace: Workspace, tmp_path: Path) -> None:
    file, prices = tmp_path / "lossy.parquet", trending()
    prices.with_columns(pl.format("{}X", "symbol").alias("symbol")).vstack(prices).write_parquet(file)
    experiment = small_experiment(file, promotion=POLICY, limits="default")
    sync_bars(study_of(workspace, experiment))
    prices.write_parquet(file)
    report = consider(finished(workspace, experiment))
    assert "The source lost 50 % of its bars" in report.notes[0]
    assert "`tidemill data confirm lossy --interval 1d`" in report.notes[0]
    assert current(study_of(workspace, experiment)) is None
    assert confirm(workspace, "lossy", Interval.parse("1d")) is not None
    consider(study_of(workspace, experiment))
    assert current(study_of(workspace, experiment)) is not None


def test_a_champion_is_not_judged_on_bars_it_was_trained_on(workspace: Workspace, experiment: Experiment) -> None:
    study = finished(workspace, experiment)
    consider(study)
    champion = current(study)
    assert champion is not None
    longer = msgspec.structs.replace(experiment, promotion=msgspec.structs.replace(POLICY, bars=90))
    with pytest.raises(StopError, match="inside of the bars"):
        challenge(study_of(workspace, longer), champion)


def test_a_champion_of_another_label_is_judged_as_after_a_run_of_its_own(workspace: Workspace, tmp_path: Path) -> None:
    """Its experiment is not the one that runs: what it is judged by is brought up to date with the bars of that one."""
    file, prices = tmp_path / "grown.parquet", trending()
    before_day(prices, 270).write_parquet(file)
    other = study_of(workspace, small_experiment(file, promotion=POLICY, limits="default", label=LabelSpec(horizon=5)))
    bring_up_to_date(other)
    champion = workspace.call(champions.promote, workspace.database, nominee(other, challenge(other, None)), instead_of=None)
    prices.write_parquet(file)
    experiment = small_experiment(file, promotion=POLICY, limits="default")
    bring_up_to_date(study_of(workspace, experiment))
    judged = challenge(study_of(workspace, experiment), champion).champion
    assert judged is not None
    assert judged.rank_ic is not None
    bring_up_to_date(study_of(workspace, other.experiment))
    assert challenge(study_of(workspace, experiment), champion).champion == judged


# --- what is compared again -----------------------------------------------------------------------------------------------


def compared(workspace: Workspace, experiment: Experiment, **changes: object) -> Study:
    """A study that was compared, and would not be again while nothing changes. It is refused, since it was never proven."""
    finished(workspace, experiment)
    study = study_of(workspace, msgspec.structs.replace(experiment, **{"costs": CostSpec(fee_bps=3.0), **changes}))
    assert consider(study).worked
    assert not works_again(study)
    return study


def works_again(study: Study) -> bool:
    return consider(study_of(study.workspace, study.experiment)).worked


@pytest.mark.parametrize(
    ("module", "again"),
    [
        ("tidemill.models.ridge", True),
        ("tidemill.strategies.quantile", True),
        ("tidemill.study.fitting", True),
        ("tidemill.matching.kernel", True),
        ("tidemill.market.news_feeds", False),
        ("tidemill.reports.sentences", False),
    ],
)
def test_other_code_is_compared_again(
    workspace: Workspace, experiment: Experiment, monkeypatch: pytest.MonkeyPatch, module: str, again: bool
) -> None:
    study = compared(workspace, experiment)
    change_line(monkeypatch, module)
    assert works_again(study) is again
    assert not works_again(study)


def test_other_code_of_the_champions_engine_is_compared_again(
    workspace: Workspace, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert consider(finished(workspace, experiment)).facts.promoted
    alone = msgspec.structs.replace(POLICY, book="momentum")
    study = compared(workspace, experiment, engines=(EngineSpec(name="momentum"),), promotion=alone)
    change_line(monkeypatch, "tidemill.models.ridge")
    assert works_again(study)


def test_other_sectors_in_the_same_file_are_compared_again(
    workspace: Workspace, experiment: Experiment, tmp_path: Path
) -> None:
    file = tmp_path / "sectors.csv"
    file.write_text("symbol,sector\nAAA,x\nBBB,x\n")
    neutral = StrategySpec(neutralise=NeutraliseSpec(by="sector", sector_file=str(file)))
    study = compared(workspace, experiment, strategy=neutral)
    file.write_text("symbol,sector\nAAA,x\nCCC,x\n")
    assert works_again(study)


def test_bars_that_are_suspected_since_are_compared_again(workspace: Workspace, experiment: Experiment) -> None:
    study = compared(workspace, experiment)
    assert not study.lake.manifests(FLAGS, study.dataset.bars_key)
    time = study.times[-20]
    rows = {"symbol": ["AAA"], "open_time": [time], "flag": ["suspected_action"], "flagged_at": [time], "detail": [""]}
    marked = pl.DataFrame(rows, schema=FLAG_SCHEMA)
    study.lake.write(FLAGS, study.dataset.bars_key, "all", marked)
    assert works_again(study)
    study.lake.drop(FLAGS, study.dataset.bars_key)


def test_instruments_that_cost_something_else_are_compared_again(workspace: Workspace, experiment: Experiment) -> None:
    study, store = compared(workspace, experiment), workspace.store
    known = workspace.call(store.read_instruments, study.dataset.venue)
    workspace.call(store.write_instruments, [msgspec.structs.replace(one, borrow_bps=one.borrow_bps + 900.0) for one in known])
    assert works_again(study)
    workspace.call(store.write_instruments, known)


def test_engines_that_said_something_else_before_are_compared_again(workspace: Workspace, experiment: Experiment) -> None:
    study = compared(workspace, experiment)
    said = {"ridge": [-1.0, 1.0, 5_000], "momentum": None}
    study.lake.write(REFUSALS, study.key, partition_of(study.folds[0]), no_rejections(), metadata={"ranges": said})
    assert works_again(study)
    study.lake.drop(REFUSALS, study.key)


def test_predictions_that_weigh_the_ensemble_are_compared_again(workspace: Workspace, experiment: Experiment) -> None:
    study = compared(workspace, experiment, promotion=msgspec.structs.replace(POLICY, book="ensemble"))
    key, part = study.engine_key(experiment.engines[0]), partition_of(study.folds[0])
    frame, held = study.lake.scan(PREDICTIONS, key, partitions=[part]).collect(), study.lake.manifests(PREDICTIONS, key)[part]
    kept = {"fingerprint": held.fingerprint, "metadata": held.metadata}
    study.lake.write(PREDICTIONS, key, part, frame.with_columns(-pl.col("prediction")), **kept)
    assert works_again(study)
    study.lake.write(PREDICTIONS, key, part, frame, **kept)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (PromotionSpec(book="lightgbm"), "promotion.book"),
        (PromotionSpec(bars=290), "promotion.bars"),
        (PromotionSpec(bars=1), "promotion.bars"),
    ],
)
def test_a_policy_that_cannot_be_followed_is_said_in_a_sentence(
    workspace: Workspace, experiment: Experiment, policy: PromotionSpec, words: str
) -> None:
    study = finished(workspace, msgspec.structs.replace(experiment, promotion=policy), proven=False)
    with pytest.raises(InputError, match=words):
        consider(study)


def test_drift_is_measured_once_and_knows_of_the_champion(workspace: Workspace, experiment: Experiment) -> None:
    study = finished(workspace, experiment)
    first = measure_drift(study)
    assert first.worked
    assert not measure_drift(study).worked
    found = last_drift(study.lake, study.key)
    assert found is not None
    assert found.new_bars is None
    assert 0.0 <= found.moved_features <= 1.0
    consider(study)
    measure_drift(study)
    found = last_drift(study.lake, study.key)
    assert found is not None
    assert found.new_bars is not None
    assert found.new_bars >= POLICY.bars


@pytest.mark.parametrize(
    ("book", "strategy", "limits", "level"),
    [
        (ENSEMBLE, "quantile", LimitsSpec(), None),
        ("ridge", "long_only_top_k", LimitsSpec(drawdown=DrawdownSpec(block=0.0003, reduce=0.0006)), "reduce"),
    ],
)
def test_the_book_of_a_champion_is_to_the_digit_the_one_that_its_promotion_measured_and_that_the_run_reports(
    workspace: Workspace, experiment: Experiment, book: str, strategy: str, limits: LimitsSpec, level: str | None
) -> None:
    """The last fold of this run holds out the bars of the comparison, so that the champion is what decided in it."""
    policy, bold = msgspec.structs.replace(POLICY, book=book), StrategySpec(name=strategy, params={"max_weight": 0.5})
    stated = msgspec.structs.replace(experiment, promotion=policy, splits=FOUR_FOLDS, strategy=bold, limits=limits)
    study = finished(workspace, stated)
    report = consider(study)
    champion = current(study)
    assert champion is not None, report.notes
    own = Term.of(workspace.call(decider_named, workspace.database, champion.decider))
    schedule = terms_of(study, id_of(study.experiment), book)
    assert [len(schedule), own.decider.id, own.start] == [4, schedule[-1].decider.id, schedule[-1].start]

    alone = book_by(study, [own])
    assert alone.limits is not None
    assert alone.limits.cut["position"] > 0, "limits that bind nothing would prove nothing"
    assert [one.level for one in alone.limits.levels][-1:] == ([level] if level else []), alone.max_drawdown
    measured, told = figures_of(study, alone), champion.evidence["challenger"]
    assert msgspec.convert(told["limits"], LimitsReached) == alone.limits
    assert any(note.startswith("The challenger: On ") for note in report.notes) is (level is not None)
    for name in ("sharpe", "total_return", "max_drawdown", "costs", "trades"):
        assert measured[name] == pytest.approx(told[name], rel=1e-9), name

    whole = book_by(study, schedule)
    found = workspace.call(result_of, workspace.settings, study.experiment)
    row = next(one for one in found.books if one.book == book)
    assert found.limits[book] == whole.limits
    assert (row.trades, row.costs) == (whole.trades.height, pytest.approx(whole.costs, abs=0.005))
    for name, value in found.metrics[book].items():
        assert figures_of(study, whole)[name] == pytest.approx(value, rel=1e-9), name
    stored = study.lake.scan(EQUITY, study.key, partitions=[book]).sort("time").collect()
    assert whole.equity["equity"].to_list() == pytest.approx(stored["equity"].to_list(), abs=0.005)
    trips = study.lake.scan(TRADES, study.key, partitions=[book]).sort("exit_time", "symbol", "entry_time").collect()
    assert whole.trades.equals(trips)

    shared = run_again(study, tradable(study, book, predicted_by(study, book)), Span(own.start, own.end))
    assert shared.fills.equals(alone.fills), "over the range that both share: the same orders and fills"
    assert shared.equity.equals(alone.equity)
