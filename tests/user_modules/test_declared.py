"""What a file declares is the same on the other side: names, formulas, hashes, parameters, first lines."""

import inspect
from pathlib import Path

import pytest

from tests.user_modules.conftest import example
from tidemill.domain.errors import InputError
from tidemill.domain.parameters import parameters_of
from tidemill.user_modules.declared import packed_declarations, unpacked_declarations
from tidemill.user_modules.execution import Executed, execute

TEXT = """
import numpy as np

X = mean(close, 20) / ref(close, 5) - 1
feature("own_a", X + X * quantile(volume, 5, np.float64(0.3)), unit="ratio", about="one")
feature("own_b", hmm(log(close / ref(close, 1)), 2))


def fit(training, *, features, seed, penalty=np.float64(0.5), name="a", deep=True, n=3, **others):
    '''Fits.

    More.
    '''


def predict(model, frame, /, *, grid=(1, 2)):
    pass


engine("own", fit, predict, history=2, needs=["own_a"])
label("own_label", max, horizon=3)
"""


def executed(text: str) -> Executed:
    return execute(text, Path("/nowhere/mine.py"), {})


@pytest.mark.parametrize("text", [TEXT, example()])
def test_calls_and_features_are_the_same_on_the_other_side(text: str) -> None:
    here = executed(text)
    calls, features = unpacked_declarations(packed_declarations(here))
    assert [(one.name, str(one.expression), one.expression.key, one.unit, one.about) for one in features] == [
        (one.name, str(one.expression), one.expression.key, one.unit, one.about) for one in here.features.features.values()
    ]
    assert [(one.kind, one.name, one.line) for one in calls] == [(one.kind, one.name, one.line) for one in here.calls]


def test_a_shape_gives_the_parameters_that_the_function_has() -> None:
    here = executed(TEXT)
    engine = next(one for one in unpacked_declarations(packed_declarations(here))[0] if one.kind == "engine")
    call = engine.function.given_to(lambda *args, **kwargs: None)
    real = here.find("engine", "own").function
    assert call.__doc__ == "Fits.\n\nMore."
    assert list(inspect.signature(call).parameters) == list(inspect.signature(real).parameters)
    assert [one.kind for one in inspect.signature(call).parameters.values()] == [
        one.kind for one in inspect.signature(real).parameters.values()
    ]
    made = parameters_of(call, "own", ("features", "seed"))()
    assert {name: getattr(made, name) for name in made.__struct_fields__} == {"penalty": 0.5, "name": "a", "deep": True, "n": 3}
    assert engine.options == {"about": "", "history": 2, "needs": ("own_a",)}
    assert engine.second is not None
    with pytest.raises(InputError, match="The default of grid of own must be a number"):
        parameters_of(engine.second.given_to(lambda *args: None), "own", (), 2)


def test_a_function_whose_parameters_cannot_be_seen_and_an_option_that_is_no_value_are_refused() -> None:
    with pytest.raises(InputError, match=r"The parameters of <class 'type'> cannot be seen"):
        packed_declarations(executed("strategy('own', type)\n"))
    with pytest.raises(InputError, match="with a value that is not plain"):
        packed_declarations(executed("def f(bars): pass\nfeatures(f, columns=[object()])\n"))
