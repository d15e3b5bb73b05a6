"""Deciders of a run: one for each fold and book; a book that is run from them alone is the book of the run."""

from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from tests.study.changed_code import change_line
from tests.study.panels import START, SYMBOLS, small_experiment
from tests.study.running import run
from tidemill.domain.errors import InputError, IntegrityError, StopError, UnknownNameError
from tidemill.domain.experiment import CostSpec, Experiment, FeatureSpec, NewsSpec, StrategySpec
from tidemill.experiments.tracked import id_of
from tidemill.features.expression import CONTEXT, FEAR_GREED, SENTIMENT
from tidemill.queries.deciders import decider_named
from tidemill.steps.features.sentiment import compute_sentiment
from tidemill.steps.market_data.bars import sync_bars
from tidemill.steps.market_data.fear_greed import sync_fear_greed
from tidemill.steps.market_data.news import sync_news
from tidemill.storage.deciders import StoredDecider, in_force, named
from tidemill.study.book import Span, book
from tidemill.study.deciders import Term, keep_schedule, known_to
from tidemill.study.rejections import tradable
from tidemill.study.scheduled import book_by, figures_of, require_following, walked, weights_by
from tidemill.study.scoring import predicted_by
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.tables import ENSEMBLE, SIGNALS
from tidemill.study.workspace import Workspace
from tidemill.trading.decider import from_text, links_of, strangers


@pytest.fixture
def experiment(folder: Path) -> Experiment:
    return small_experiment(folder)


def schedule(workspace: Workspace, experiment: Experiment, book: str | None = None) -> list[StoredDecider]:
    return workspace.call(in_force, workspace.database, id_of(experiment), book)


def terms(workspace: Workspace, experiment: Experiment, book: str) -> list[Term]:
    return [Term.of(row) for row in schedule(workspace, experiment, book)]


def asked(study: Study, book: str) -> pl.DataFrame:
    stored = study.lake.scan(SIGNALS, study.key, partitions=[book]).select("symbol", "open_time", "weight").collect()
    return stored.drop_nulls("weight").sort("open_time", "symbol")


@pytest.mark.finished
def test_a_run_makes_one_for_each_fold_and_book_and_a_second_run_makes_none(
    workspace: Workspace, experiment: Experiment
) -> None:
    study = study_of(workspace, experiment)
    rows = schedule(workspace, experiment)
    assert [(row.book, row.valid_from, row.valid_to) for row in rows] == [
        (book, fold.test_start, fold.test_end) for book in (ENSEMBLE, "momentum", "ridge") for fold in study.folds
    ]
    assert len({row.id for row in rows}) == len(rows)
    assert keep_schedule(study, id_of(experiment)) == 0
    assert schedule(workspace, experiment) == rows


@pytest.mark.finished
@pytest.mark.parametrize("book", [ENSEMBLE, "momentum", "ridge"])
def test_a_book_that_is_run_from_its_deciders_asks_for_what_the_run_asked_for(
    workspace: Workspace, experiment: Experiment, book: str
) -> None:
    study = study_of(workspace, experiment)
    found = weights_by(study, terms(workspace, experiment, book))
    assert found.filter(pl.col("weight") != 0.0).height > 20
    assert found.equals(asked(study, book))


@pytest.mark.finished
def test_a_backtest_from_one_decider_gives_the_figures_of_the_run_for_its_range(
    workspace: Workspace, experiment: Experiment
) -> None:
    study = study_of(workspace, experiment)
    counting = tradable(study, ENSEMBLE, predicted_by(study, ENSEMBLE))
    for term in terms(workspace, experiment, ENSEMBLE)[::3]:
        found, expected = book_by(study, [term]), book(study, counting, Span(term.start, term.end))
        assert found.trades.equals(expected.trades)
        assert found.equity.equals(expected.equity)
        assert figures_of(study, found)["final_equity"] == expected.final_equity


@pytest.mark.finished
def test_another_experiment_of_that_name_has_deciders_of_its_own_and_what_changed_is_superseded(
    workspace: Workspace, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = schedule(workspace, experiment)
    dearer = msgspec.structs.replace(experiment, costs=CostSpec(fee_bps=50.0))
    run(workspace, dearer)
    assert schedule(workspace, experiment) == before
    others = schedule(workspace, dearer)
    assert not {row.id for row in others} & {row.id for row in before}
    with monkeypatch.context() as patch:
        change_line(patch, "tidemill.trading.checks")
        assert keep_schedule(study_of(workspace, dearer), id_of(dearer)) == len(others)
    old = workspace.call(named, workspace.database, others[0].id)
    assert old[0].superseded_at is not None
    renewed = schedule(workspace, dearer)
    assert len(renewed) == len(others)
    assert not {row.id for row in renewed} & {row.id for row in others}


@pytest.mark.finished
def test_its_name_is_its_content_and_nothing_else(workspace: Workspace, experiment: Experiment) -> None:
    row = schedule(workspace, experiment, ENSEMBLE)[2]
    held = from_text(row.content, row.id)
    assert held.id == row.id
    assert msgspec.structs.replace(held, costs=CostSpec(fee_bps=6.0)).id != row.id
    assert msgspec.structs.replace(held, models=dict(reversed(held.models.items()))).id != row.id
    renamed = msgspec.structs.replace(experiment, name="another")
    study = study_of(workspace, renamed)
    keep_schedule(study, id_of(renamed))
    assert [one.id for one in schedule(workspace, renamed)] == [one.id for one in schedule(workspace, experiment)]
    # No run of the other name went to its end: whoever names the decider means that of the experiment that was run.
    found = workspace.call(decider_named, workspace.database, schedule(workspace, renamed)[0].id)
    assert found.experiment == id_of(experiment)


@pytest.mark.finished
def test_what_is_damaged_or_of_a_later_version_is_refused(workspace: Workspace, experiment: Experiment) -> None:
    row = schedule(workspace, experiment, ENSEMBLE)[0]
    with pytest.raises(IntegrityError, match="is damaged: its content is another one"):
        from_text(row.content.replace('"fee_bps":5.0', '"fee_bps":4.0'), row.id)
    for text in (row.content[:-20], "{}", "[1]", ""):
        with pytest.raises(IntegrityError, match=f"The decider {row.id} is damaged"):
            from_text(text, row.id)
    with pytest.raises(IntegrityError, match="was written by a later version"):
        from_text(row.content.replace('"format":1', '"format":2').replace('"book"', '"account":1,"book"'), row.id)


@pytest.mark.finished
def test_other_code_is_told_and_another_feature_set_cannot_step(
    workspace: Workspace, experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = schedule(workspace, experiment, ENSEMBLE)[0]
    held, known = from_text(row.content, row.id), known_to(study_of(workspace, experiment))
    assert strangers(held, known) == ()
    with monkeypatch.context() as patch:
        change_line(patch, "tidemill.trading.checks")
        assert [part.name for part in strangers(held, known)] == ["checks"]
    fewer = msgspec.structs.replace(held, features=held.features[1:])
    assert [part.name for part in strangers(fewer, known)] == ["feature set"]
    with pytest.raises(StopError, match="is of another feature set"):
        links_of(fewer, known)
    gone = msgspec.structs.replace(held, models={"gone": "gone-1"}, code=held.code | {"engine gone": "0123"})
    assert {part.name: part.here for part in strangers(gone, known)}["engine gone"] == ""


@pytest.mark.finished
def test_terms_must_follow_each_other_and_be_of_one_book(workspace: Workspace, experiment: Experiment) -> None:
    first, second, *_ = found = terms(workspace, experiment, ENSEMBLE)
    times = study_of(workspace, experiment).times
    require_following(found, times)
    with pytest.raises(InputError, match="nothing decides"):
        require_following([first, second._replace(start=second.start + timedelta(days=1))], times)
    with pytest.raises(InputError, match="nothing decides"):
        require_following([first._replace(end=None), second], times)
    with pytest.raises(InputError, match="several books"):
        require_following([first, terms(workspace, experiment, "ridge")[1]], times)


@pytest.mark.finished
def test_one_is_found_by_the_beginning_of_its_id(workspace: Workspace, experiment: Experiment) -> None:
    rows = schedule(workspace, experiment)
    assert workspace.call(decider_named, workspace.database, rows[0].id[:10]).id == rows[0].id
    with pytest.raises(UnknownNameError, match="There is no decider named 'nothing'"):
        workspace.call(decider_named, workspace.database, "nothing")
    with pytest.raises(UnknownNameError):
        workspace.call(decider_named, workspace.database, "")
    shared = next(row.id[:1] for row in rows if sum(one.id[:1] == row.id[:1] for one in rows) > 1)
    with pytest.raises(InputError, match="Several deciders begin with"):
        workspace.call(decider_named, workspace.database, shared)


@pytest.mark.finished
def test_a_strategy_over_bars_and_a_neutral_one_are_run_from_their_deciders_too(workspace: Workspace, folder: Path) -> None:
    for strategy in (
        StrategySpec(name="sma_cross", params={"fast": 3, "slow": 8}),
        StrategySpec(name="mean_variance", params={"window": 40, "least": 20}),
    ):
        experiment = small_experiment(folder, strategy=strategy)
        study, _ = run(workspace, experiment)
        assert weights_by(study, terms(workspace, experiment, ENSEMBLE)).equals(asked(study, ENSEMBLE))


def test_an_experiment_that_reads_news_and_an_index_is_run_from_its_deciders_too(workspace: Workspace, folder: Path) -> None:
    days = [START + timedelta(days=day) for day in range(330)]
    index, wire = folder.with_name("index.csv"), folder.with_name("wire.csv")
    index.write_text("date,value\n" + "".join(f"{day:%Y-%m-%d},{at * 37 % 101}\n" for at, day in enumerate(days) if at % 11))
    said = ("gains on strong growth", "warns of losses", "holds its annual meeting")
    items = [f"{SYMBOLS[at % 4]},{day:%Y-%m-%d %H:%M},{SYMBOLS[at % 4]} {said[at % 5 % 3]} {at}" for at, day in enumerate(days)]
    wire.write_text("symbol,published_at,headline\n" + "\n".join(items) + "\n")
    names = ("ROC5", "STD10", "roc_10", "natr_14", *FEAR_GREED, *SENTIMENT)
    experiment = small_experiment(
        folder,
        features=FeatureSpec(sets=(), names=names, fear_greed=f"file:{index}"),
        news=NewsSpec(source=f"file:{wire}", half_life=3.0),
    )
    begun = study_of(workspace, experiment)
    for step in (sync_bars, sync_fear_greed, sync_news, compute_sentiment):
        step(begun)
    study, _ = run(workspace, experiment)
    found = weights_by(study, terms(workspace, experiment, ENSEMBLE))
    assert found.filter(pl.col("weight") != 0.0).height > 20
    assert found.equals(asked(study, ENSEMBLE))
    rows = [wanted.features for _, wanted in walked(study, terms(workspace, experiment, ENSEMBLE))]
    stepped = np.stack([features[:, [names.index(name) for name in CONTEXT]] for features in rows])
    batch = study.feature_frame.sort("open_time", "symbol").select(CONTEXT).to_numpy().reshape(stepped.shape)
    assert np.array_equal(stepped, batch, equal_nan=True)
    assert np.isfinite(batch).all(axis=2).mean() > 0.5
