"""`tidemill deciders`: what decides for each book, whether it may, and its book once more."""

from pathlib import Path

import polars as pl
import pytest

from tests.cli.conftest import Tidemill
from tests.study.panels import small_experiment
from tidemill.config import Settings
from tidemill.experiments.tracked import id_of
from tidemill.study.book import Span, book
from tidemill.study.deciders import terms_of
from tidemill.study.rejections import tradable
from tidemill.study.scoring import predicted_by, scored_rows
from tidemill.study.sources import study_of
from tidemill.study.tables import ENSEMBLE
from tidemill.study.workspace import open_workspace


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
    assert lines[0] == "The confidence of ridge is not judged: its run has too few outcomes of predictions with a confidence."
    assert len(lines) == 3 + len(tenths)


@pytest.mark.finished
def test_wrong_arguments_give_a_sentence_that_says_what_to_do(there: Settings, tidemill: Tidemill) -> None:
    assert "There is no decider named 'nothing'" in tidemill("deciders", "show", "nothing").error
    assert "There is no experiment that was run named 'mine'" in tidemill("deciders", "list", "--experiment", "mine").error
    assert "There is no such decider" in tidemill("deciders", "list", "--book", "lstm").out
    assert tidemill("deciders", "show").code == 2


def test_a_new_home_has_none_and_says_how_to_get_one(home: Path, tidemill: Tidemill) -> None:
    assert "`tidemill run` makes one for each fold and book" in tidemill("deciders", "list").out
    assert tidemill("deciders", "list", "--json").json == []
