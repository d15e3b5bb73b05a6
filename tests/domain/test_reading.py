"""What does not fit is told in words, by the field as it is written."""

from typing import Any

import pytest

from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.experiment import Experiment
from tidemill.domain.reading import read, require_fitting


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"label": {"horizon": -3}}, "label.horizon is -3; it must be at least 1."),
        ({"label": {"horizon": 2.5}}, "label.horizon is 2.5; it must be a whole number."),
        ({"seed": "many"}, "seed is 'many'; it must be a whole number."),
        ({"splits": 5}, "splits is 5; it must be a group of fields or null."),
        ({"engines": [{"name": "ridge"}, {"name": 5}]}, "engines[1].name is 5; it must be a text."),
        ({"engines": "ridge"}, "engines is 'ridge'; it must be a list."),
        ({"news": {"source": "f", "aliases": {"A": [1]}}}, "news.aliases[...][0] is a whole number; it must be a text."),
        ({"news": {}}, "The field news.source is missing. Add it."),
        ({"dataset": None}, "dataset is null; it must be a group of fields."),
        (
            {"validation": {"mising": 0.5}},
            "There is no field validation.mising. Did you mean missing? It is one of missing, distance, range, history, "
            "disagreement.",
        ),
        (
            {"strategy": {"neutralise": {"by": "sektor"}}},
            "strategy.neutralise.by is 'sektor'; it must be one of sector, beta. Did you mean sector?",
        ),
        ({"limits": "defalt"}, "limits is 'defalt'; it must be default or a group of fields. Did you mean default?"),
        ({"limits": False}, "limits is False; it must be default or a group of fields."),
        ({"limits": None}, "limits is null; it must be default or a group of fields."),
        ({"limits": {"position": 10}}, "limits.position is 10; it must be at most 1."),
        ({"limits": {"gross": 0}}, "limits.gross is 0; it must be above 0."),
        ({"limits": {"net": "all"}}, "limits.net is 'all'; it must be a number."),
        ({"limits": {"collar": 5}}, "limits.collar is 5; it must be below 1."),
        ({"limits": {"drawdown": {"flatten": 2}}}, "limits.drawdown.flatten is 2; it must be at most 1."),
        (
            {"limits": {"positon": 0.1}},
            "There is no field limits.positon. Did you mean position? It is one of position, gross, net, drawdown, collar.",
        ),
        ({"ensemble": "best"}, "ensemble is 'best'; it must be one of skill, equal."),
    ],
)
def test_what_is_wrong_is_named_as_it_is_written(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError) as refused:
        read({"name": "x", "dataset": {}, **change}, Experiment)
    told = str(refused.value)
    assert told.replace("beta, sector", "sector, beta").replace("equal, skill", "skill, equal") == sentence


def test_an_unknown_field_of_the_whole_names_those_that_are_most_like_it() -> None:
    with pytest.raises(InputError, match=r"There is no field promotions\. Did you mean promotion\? It is one of name, dataset"):
        read({"name": "x", "dataset": {}, "promotions": {}}, Experiment)


def test_what_is_no_group_of_fields_at_all_is_said() -> None:
    with pytest.raises(InputError, match="The whole is 3; it must be a group of fields"):
        read(3, Experiment)


def test_a_value_that_no_file_can_hold_is_refused() -> None:
    made = read({"name": "x", "dataset": {}}, Experiment)
    with pytest.raises(InputError, match="a value that no file can"):
        require_fitting(type(made)(name="x", dataset=made.dataset, seed=object()))  # type: ignore[arg-type]


def test_an_unknown_name_names_those_that_are_most_like_it() -> None:
    assert str(UnknownNameError("engine", "momentun", ["gru", "momentum"])) == (
        "There is no engine named 'momentun'. Did you mean momentum? Choose one of: gru, momentum."
    )
    assert "Did you mean" not in str(UnknownNameError("engine", "x", ["gru", "momentum"]))
