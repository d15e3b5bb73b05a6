"""`tidemill deciders`: what decides for each book, whether it may, and its book once more."""

from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from msgspec.structs import replace

from tests.cli.conftest import Tidemill
from tests.study.changed_code import change_line
from tests.study.panels import small_experiment
from tidemill.config import Settings
from tidemill.experiments.tracked import id_of
from tidemill.storage.champions import Nominee, current, promote
from tidemill.study.book import Span, book
from tidemill.study.deciders import decider, stored_decider, terms_of, window_of
from tidemill.study.rejections import tradable
from tidemill.study.scoring import predicted_by, scored_rows
from tidemill.study.sources import study_of
from tidemill.study.tables import ENSEMBLE
from tidemill.study.workspace import open_workspace
from tidemill.trading.chain import BarsOfSlot, Chain, Wanted


@pytest.fixture
def there(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The home of the finished run, in force for commands."""
    assert settings.postgres_dsn is not None
    assert settings.redis_url is not None
    monkeypatch.setenv("TIDEMILL_HOME", str(settings.home))
    monkeypatch.setenv("TIDEMILL_POSTGRES_DSN", settings.postgres_dsn.reveal())
    monkeypatch.setenv("TIDEMILL_REDIS_URL", settings.redis_url.reveal())
    monkeypatch.setenv("TIDEMILL_CONNECTIONS", "4")
    return settings


@pytest.mark.finished
def test_they_are_listed_shown_and_explained(there: Settings, folder: Path, tidemill: Tidemill) -> None:
    rows = tidemill("deciders", "list", "--experiment", "small", "--book", "ridge", "--json").json
    assert {(row["book"], row["experiment"]) for row in rows} == {("ridge", id_of(small_experiment(folder)))}
    listed = tidemill("deciders", "list").out.splitlines()
    assert len(listed) == 2 + 3 * len(rows)
    assert listed[2].split()[1:3] == ["small", "ensemble"]

    shown = tidemill("deciders", "show", rows[0]["id"][:12]).out
    assert f"decider         {rows[0]['id']}" in shown
    assert "strategy        quantile (" in shown
    assert rows[0]["content"]["models"]["ridge"] in shown
    assert tidemill("deciders", "show", rows[0]["id"], "--json").json["content"]["look_back"] == 0

    told = tidemill("deciders", "explain", rows[0]["id"]).out
    assert "it is in force." in told
    assert "It was made by the code and libraries that are here." in told
    assert tidemill("deciders", "explain", rows[0]["id"], "--json").json["differs"] == []


@pytest.mark.finished
def test_the_book_of_one_is_run_again_with_the_figures_of_the_experiment(
    there: Settings, folder: Path, tidemill: Tidemill
) -> None:
    row = tidemill("deciders", "list", "--book", "ensemble", "--json").json[1]
    found = tidemill("deciders", "backtest", row["id"], "--json").json
    with open_workspace(there) as opened:
        study = study_of(opened, small_experiment(folder))
        fold = study.folds[1]
        counting = tradable(study, ENSEMBLE, predicted_by(study, ENSEMBLE))
        expected = book(study, counting, Span(fold.test_start, fold.test_end))
    assert (found["final_equity"], found["trades"]) == (expected.final_equity, expected.trades.height)
    assert "final equity" in tidemill("deciders", "backtest", row["id"]).out


@pytest.mark.finished
def test_whether_its_confidence_came_true_is_told_with_ten_tenths(there: Settings, folder: Path, tidemill: Tidemill) -> None:
    row = tidemill("deciders", "list", "--book", "ridge", "--json").json[0]
    found = tidemill("deciders", "calibration", row["id"], "--json").json
    assert found["refuted"] is None  # a hundred days after the first 500 outcomes
    with open_workspace(there) as opened:
        study = study_of(opened, small_experiment(folder))
        terms = terms_of(study, id_of(study.experiment), "ridge")
        claiming = [term.start for term in terms if term.decider.confidence]
        told = scored_rows(study, "ridge").filter(pl.col("open_time") >= min(claiming))
    tenths = found["tenths"]
    assert sum(one["outcomes"] for one in tenths) == told.height
    came = sum(one["outcomes"] * one["came_true"] for one in tenths)
    assert came == pytest.approx((told["label"] > 0.0).sum())
    lines = tidemill("deciders", "calibration", row["id"]).out.splitlines()
    times = told["open_time"].n_unique()
    assert (found["id"], found["times"], found["needed"]) == (row["id"], times, 80 * 3)
    assert lines[0] == (
        f"The confidence of ridge, for which {row['id']} decides, is not judged: its run has outcomes of predictions with a "
        f"confidence at {times} bar times, and 240 are needed. A longer history brings them, or a shorter label.horizon asks "
        "for fewer."
    )
    assert len(lines) == 3 + len(tenths)


@pytest.mark.finished
def test_wrong_arguments_give_a_sentence_that_says_what_to_do(there: Settings, tidemill: Tidemill) -> None:
    assert "There is no decider named 'nothing'" in tidemill("deciders", "show", "nothing").error
    assert "There is no experiment that was run named 'mine'" in tidemill("deciders", "list", "--experiment", "mine").error
    assert tidemill("deciders", "list", "--book", "lstm").error == (
        "There is no book named 'lstm'. Choose one of: ensemble, momentum, ridge."
    )
    assert "There is no decider named 'nothing'" in tidemill("deciders", "renew", "nothing", "--accept").error
    assert tidemill("deciders", "renew").code == 2
    assert tidemill("deciders", "show").code == 2


def test_a_new_home_has_none_and_says_how_to_get_one(home: Path, tidemill: Tidemill) -> None:
    assert "`tidemill run` makes one for each fold and book" in tidemill("deciders", "list").out
    assert tidemill("deciders", "list", "--json").json == []


def changed_weights(patch: pytest.MonkeyPatch, after: datetime) -> None:
    """From now on the chain asks for half as much in bars after a time."""
    known = Chain.step

    def step(self: Chain, bars: BarsOfSlot) -> Wanted:
        wanted = known(self, bars)
        return wanted._replace(weights=wanted.weights * 0.5) if bars.open_time > after else wanted

    patch.setattr(Chain, "step", step)


@pytest.mark.finished
def test_one_of_other_code_that_says_the_same_is_renewed_without_a_word(
    there: Settings, folder: Path, tidemill: Tidemill, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tidemill("deciders", "list", "--book", "ridge", "--json").json
    old = before[2]["id"]
    assert "there is nothing to renew" in tidemill("deciders", "renew", old).out
    with monkeypatch.context() as patch:
        change_line(patch, "tidemill.trading.checks")
        explained = tidemill("deciders", "explain", old)
        assert "It takes no new risk here: checks is not what it was made with" in explained.out
        assert f"`tidemill deciders renew {old}`" in explained.out
        told = tidemill("deciders", "backtest", old).err
        assert told == f"{old} was made with another checks: these are figures of what is here now.\n"
        answer = tidemill("deciders", "renew", old[:12])
        assert (answer.code, answer.out.count("\n")) == (0, 1)
        assert f" succeeds {old}: " in answer.out
        assert answer.out.endswith("bars return.\n")
        after = tidemill("deciders", "list", "--book", "ridge", "--json").json
        new = after[2]
        assert tidemill("deciders", "explain", new["id"], "--json").json["differs"] == []
        assert [row["id"] for row in after if row["id"] != new["id"]] == [row["id"] for row in before if row["id"] != old]
        assert "takes no new risk" in tidemill("deciders", "explain", after[3]["id"]).out
        assert "was superseded on" in tidemill("deciders", "renew", old).error
    assert new["succeeds"] == old
    assert new["content"]["models"] == before[2]["content"]["models"]
    assert f"succeeds        {old}" in tidemill("deciders", "show", new["id"]).out
    assert tidemill("deciders", "show", old, "--json").json["superseded_at"] is not None
    assert "shows what is in force in its place" in tidemill("deciders", "explain", old).out


@pytest.mark.finished
def test_one_whose_signals_do_not_return_is_renewed_when_that_is_accepted(
    there: Settings, folder: Path, tidemill: Tidemill, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tidemill("deciders", "list", "--json").json
    row = before[1]
    with monkeypatch.context() as patch:
        change_line(patch, "tidemill.trading.chain")
        late = datetime.fromisoformat(row["valid_to"]) - timedelta(days=12)
        changed_weights(patch, late)
        answer = tidemill("deciders", "renew", row["id"])
        assert answer.code == 1
        assert "would be others. Give --accept if that is meant." in answer.err
        assert len(answer.out.splitlines()) == 4
        assert tidemill("deciders", "list", "--json").json == before
        told = tidemill("deciders", "renew", row["id"], "--json")
        assert (told.code, told.json["stored"]) == (1, False)
        departures = told.json["departures"]
        assert len(departures) == 2
        assert min(datetime.fromisoformat(one["open_time"]) for one in departures) > late
        assert all(one["weight_here"] == one["weight"] * 0.5 for one in departures)
        assert "which was accepted" in tidemill("deciders", "renew", row["id"], "--accept").out
        after = tidemill("deciders", "list", "--json").json
    assert after[1]["succeeds"] == row["id"]
    assert len(after) == len(before)


@pytest.mark.finished
def test_one_whose_signals_are_gone_is_renewed_when_that_is_accepted(
    there: Settings, folder: Path, tidemill: Tidemill, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = tidemill("deciders", "list", "--book", "momentum", "--json").json[0]
    with open_workspace(there) as opened:
        opened.lake.drop("signals", study_of(opened, small_experiment(folder)).key, "momentum")
    with monkeypatch.context() as patch:
        change_line(patch, "tidemill.trading.checks")
        assert "no signal of it is stored that could be compared" in tidemill("deciders", "renew", row["id"]).error
        assert "without a signal to compare" in tidemill("deciders", "renew", row["id"], "--accept").out


@pytest.mark.finished
def test_a_champion_trades_on_by_its_successor(
    there: Settings, folder: Path, tidemill: Tidemill, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_workspace(there) as opened:
        study = study_of(opened, small_experiment(folder))
        fold = study.folds[-1]
        made = replace(decider(study, "ridge", window_of(study, fold)), look_back=1)  # another one than that of the run
        nominee = Nominee(
            dataset=study.dataset.key,
            book="ridge",
            models=made.models,
            experiment=study.experiment,
            trained_until=fold.train_end,
            reason="",
            evidence={},
            decider=stored_decider(id_of(study.experiment), made, fold.test_start),
        )
        opened.call(promote, opened.database, nominee, instead_of=None)
    with monkeypatch.context() as patch:
        change_line(patch, "tidemill.trading.checks")
        assert "no signal of it is stored" in tidemill("deciders", "renew", made.id).error
        assert tidemill("deciders", "renew", made.id, "--accept").code == 0
    (row,) = [row for row in tidemill("deciders", "list", "--json").json if row["made_for"] == "champion"]
    assert row["succeeds"] == made.id
    with open_workspace(there) as opened:
        held = opened.call(current, opened.database, nominee.dataset)
    assert held is not None
    assert held.decider == row["id"]
