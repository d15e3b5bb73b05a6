"""Champions at the command line: which models trade, on what evidence, and taking a promotion back."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cli.conftest import Tidemill
from tidemill.cli.common.session import workspace
from tidemill.domain.experiment import DatasetSpec, EngineSpec, Experiment
from tidemill.storage.champions import Nominee, promote

NAME = "panel.1d.all"


@pytest.fixture
def promoted(home: Path) -> int:
    """The number of a promotion that is in force."""
    nominee = Nominee(
        dataset=NAME,
        book="ensemble",
        models={"momentum": "momentum-1", "ridge": "ridge-1"},
        weights={"momentum": 0.25, "ridge": 0.75},
        experiment=Experiment(
            name="mine",
            dataset=DatasetSpec(source="file:panel.csv"),
            engines=(EngineSpec(name="momentum"), EngineSpec(name="ridge")),
        ),
        trained_until=datetime(2024, 1, 1, tzinfo=UTC),
        reason="it earned more",
        evidence={"low": 0.001},
    )
    with workspace() as opened:
        return opened.call(promote, opened.database, nominee, instead_of=None).id


def test_a_champion_is_shown_by_its_dataset_and_by_its_number(promoted: int, tidemill: Tidemill) -> None:
    shown = tidemill("champions", "show", NAME).out
    for text in ("it earned more", "2024-01-01 00:00 UTC", "momentum-1", "0.75", "mine"):
        assert text in shown
    assert tidemill("champions", "show", promoted).out == shown
    answer = tidemill("champions", "show", NAME, "--json").json
    assert (answer["id"], answer["weights"], answer["evidence"]) == (
        promoted,
        {"momentum": 0.25, "ridge": 0.75},
        {"low": 0.001},
    )


def test_promotions_are_listed_of_all_datasets_or_of_one_and_taken_back(promoted: int, tidemill: Tidemill) -> None:
    assert [row["id"] for row in tidemill("champions", "list", "--json").json] == [promoted]
    assert "Nothing was promoted yet in other.1d.all." in tidemill("champions", "list", "--dataset", "other.1d.all").out
    assert "There is no champion now." in tidemill("champions", "undo", NAME, "--why", "a mistake").out
    assert "a mistake" in tidemill("champions", "list", "--dataset", NAME).out
    assert "a mistake" in tidemill("champions", "show", promoted).out
    assert "`tidemill champions list`" in tidemill("champions", "show", NAME).error
    assert "`tidemill champions list`" in tidemill("champions", "undo", NAME, "--why", "again").error


def test_an_unknown_name_says_which_datasets_have_a_champion(promoted: int, tidemill: Tidemill) -> None:
    assert f"Choose one of: {NAME}." in tidemill("champions", "show", "panel").error
