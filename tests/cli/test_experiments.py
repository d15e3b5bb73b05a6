"""`tidemill experiments`: what was run, what a file would run, what goes on."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from tests.cli.conftest import Tidemill
from tidemill.config import load_settings
from tidemill.domain.experiment import CostSpec, DatasetSpec, EngineSpec, Experiment
from tidemill.experiments.files import to_text
from tidemill.experiments.tracked import id_of, row_of
from tidemill.storage.experiments import record, set_origin
from tidemill.study.workspace import open_workspace

THEN = datetime(2024, 3, 1, 12, tzinfo=UTC)
LIVE = Experiment(name="live", dataset=DatasetSpec(source="binance", interval="1h"), engines=(EngineSpec(name="momentum"),))
DEARER = msgspec.structs.replace(LIVE, costs=CostSpec(fee_bps=50.0))


@pytest.fixture
def ran(home: Path) -> Callable[..., None]:
    """`ran(one, other)`: they were run in this order; file: of all of them."""

    def put(*experiments: Experiment, file: Path | None = None) -> None:
        with open_workspace(load_settings()) as opened:
            for at, one in enumerate(experiments):
                opened.call(record, opened.database, row_of(one, THEN + timedelta(hours=at), THEN))
                if file is not None:
                    opened.call(set_origin, opened.database, id_of(one), str(file))

    return put


def test_a_new_home_has_none_and_says_how_to_get_one(home: Path, tidemill: Tidemill) -> None:
    assert "No experiment was run yet. `tidemill run`" in tidemill("experiments", "list").out
    assert tidemill("experiments", "list", "--json").json == []
    assert "Run it first" in tidemill("experiments", "show", "mine").error


def test_they_are_listed_the_newest_run_first(ran: Callable[..., None], tidemill: Tidemill) -> None:
    ran(LIVE, DEARER)
    listed = tidemill("experiments", "list").out.splitlines()
    assert [line.split()[0] for line in listed[2:]] == [id_of(DEARER), id_of(LIVE)]
    found = tidemill("experiments", "list", "--json").json
    assert [row["id"] for row in found] == [id_of(DEARER), id_of(LIVE)]
    assert found[0]["content"]["costs"] == {"fee_bps": 50.0}
    assert found[0]["anchor"].startswith("2024-03-01T12:00")


def test_one_is_shown_by_name_with_the_others_of_that_name_and_by_id(ran: Callable[..., None], tidemill: Tidemill) -> None:
    ran(LIVE, DEARER)
    shown = tidemill("experiments", "show", "live").out
    assert "fee_bps: 50.0" in shown
    assert f"of that name    {id_of(LIVE)}" in shown
    assert "anchor          2024-03-01 12:00 UTC" in shown
    assert tidemill("experiments", "show", id_of(LIVE), "--json").json["id"] == id_of(LIVE)


def test_the_beginning_of_an_id_names_one_where_it_is_that_of_no_other(ran: Callable[..., None], tidemill: Tidemill) -> None:
    ran(LIVE, DEARER)
    assert tidemill("experiments", "show", id_of(LIVE)[:6], "--json").json["id"] == id_of(LIVE)
    assert tidemill("experiments", "untrack", id_of(LIVE)[:6], "--json").json["experiment"] == id_of(LIVE)
    assert tidemill("experiments", "track", id_of(LIVE)[:6]).error.startswith("Two different experiments are named live")
    many = [msgspec.structs.replace(LIVE, name=f"n{at}") for at in range(17)]  # two of them begin alike
    ran(*many)
    digits = [id_of(one)[0] for one in many]
    twice = next(digit for digit in digits if digits.count(digit) > 1)
    assert f"Several experiments begin with {twice}: " in tidemill("experiments", "show", twice).error
    assert "There is no experiment that was run named ''" in tidemill("experiments", "show", "").error


def test_tracking_is_switched_off_and_on(ran: Callable[..., None], tidemill: Tidemill) -> None:
    ran(LIVE)
    assert "live (" in tidemill("experiments", "untrack", "live").out
    assert tidemill("experiments", "list", "--json").json[0]["tracked_since"] is None
    assert tidemill("experiments", "track", "live", "--json").json == {
        "experiment": id_of(LIVE),
        "name": "live",
        "tracked": True,
    }
    assert tidemill("experiments", "list", "--json").json[0]["tracked_since"] is not None


def test_wrong_arguments_give_a_sentence_that_says_what_to_do(ran: Callable[..., None], tidemill: Tidemill) -> None:
    ran(msgspec.structs.replace(LIVE, name="over", dataset=DatasetSpec()), LIVE, DEARER)
    assert "over cannot be tracked: its bars end. Give it a source of" in tidemill("experiments", "track", "over").error
    assert "over is not tracked. `tidemill experiments list`" in tidemill("experiments", "untrack", "over").error
    assert f"{id_of(DEARER)} and {id_of(LIVE)}. Say which one by its id" in tidemill("experiments", "untrack", "live").error
    assert "Did you mean live?" in tidemill("experiments", "track", "livee").error
    assert tidemill("experiments", "track").code == 2


def test_a_file_is_checked_without_a_run(ran: Callable[..., None], home: Path, tidemill: Tidemill) -> None:
    file, other = home / "live.yaml", home / "other.yaml"
    file.write_text(to_text(LIVE))
    assert "can be run: 1 engine on binance. It was not run yet." in tidemill("experiments", "check", file).out
    ran(LIVE, file=file)
    assert tidemill("experiments", "check", file, "--json").json == {
        "experiment": id_of(LIVE),
        "name": "live",
        "was_run": True,
    }
    other.write_text(to_text(DEARER))
    told = f"Two different experiments are named live: that of {file} and that of {other}. Give one of them another `name`."
    assert tidemill("experiments", "check", other).error == told
    assert tidemill("run", "--experiment", other).error == told
    other.write_text("name: live\ndataset: {source: absent}\nengines: [{name: momentum}]\n")
    assert "There is no source named 'absent'" in tidemill("experiments", "check", other).error
