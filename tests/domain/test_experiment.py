"""Every number of an experiment has a range, which its type, the published schema and the reader hold alike."""

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from msgspec import inspect

from tidemill.domain.errors import InputError
from tidemill.domain.experiment import Experiment
from tidemill.domain.reading import read, require_fitting

PUBLISHED = json.loads((Path(__file__).resolve().parents[2] / "docs" / "experiment.schema.json").read_text(encoding="utf-8"))
# An experiment that has every section.
WHOLE: dict[str, Any] = {
    "name": "whole",
    "dataset": {"source": "sample"},
    "engines": [{"name": "ridge"}],
    "splits": {"train": 500, "test": 100},
    "risk": {},
    "limits": {},
    "news": {"source": "file:news.csv"},
    "strategy": {"neutralise": {"by": "beta"}},
}
Number = inspect.IntType | inspect.FloatType


def numbers(kind: inspect.Type, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Number]]:
    """(path, type) of every number of a struct and of the structs in it."""
    if isinstance(kind, inspect.UnionType):
        for one in kind.types:
            yield from numbers(one, path)
    elif isinstance(kind, inspect.StructType):
        for field in kind.fields:
            yield from numbers(field.type, (*path, field.encode_name))
    elif isinstance(kind, Number):
        yield path, kind


FIELDS = list(numbers(inspect.type_info(Experiment)))


def with_value(path: tuple[str, ...], value: object) -> dict[str, Any]:
    made = copy.deepcopy(WHOLE)
    group = made
    for name in path[:-1]:
        group = group.setdefault(name, {})
    group[path[-1]] = value
    return made


def just_outside(kind: Number) -> list[float]:
    if isinstance(kind, inspect.IntType):
        return [kind.ge - 1, kind.le + 1]
    low = kind.gt if kind.ge is None else math.nextafter(kind.ge, -math.inf)
    high = kind.lt if kind.le is None else math.nextafter(kind.le, math.inf)
    return [low, high, math.nan, math.inf, -math.inf]


def just_inside(kind: Number) -> list[float]:
    if isinstance(kind, inspect.IntType):
        return [kind.ge, kind.le]
    low = kind.ge if kind.gt is None else math.nextafter(kind.gt, math.inf)
    high = kind.le if kind.lt is None else math.nextafter(kind.lt, -math.inf)
    return [low, high]


def test_an_experiment_has_a_name() -> None:
    with pytest.raises(msgspec.ValidationError, match="name"):
        msgspec.convert({"name": "", "dataset": {}}, Experiment)


def test_the_numbers_of_an_experiment_are_found() -> None:
    assert len(FIELDS) == 32
    assert (("strategy", "neutralise", "window"), 10_000) in [(path, kind.le) for path, kind in FIELDS]


@pytest.mark.parametrize(("path", "kind"), FIELDS, ids=[".".join(path) for path, _ in FIELDS])
def test_a_value_just_outside_of_its_range_is_refused_by_the_name_of_its_field(path: tuple[str, ...], kind: Number) -> None:
    for value in just_outside(kind):
        made = with_value(path, value)
        sentence = rf"^{'.'.join(path)} is \S+; it must be (at least|at most|above|below) [-+0-9,.e]+\.$"
        with pytest.raises(InputError, match=sentence) as refused:
            read(made, Experiment)
        assert "`" not in str(refused.value)
        if math.isfinite(value):
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(made, PUBLISHED)


@pytest.mark.parametrize(("path", "kind"), FIELDS, ids=[".".join(path) for path, _ in FIELDS])
def test_a_value_just_inside_of_its_range_is_read(path: tuple[str, ...], kind: Number) -> None:
    for value in just_inside(kind):
        made = with_value(path, value)
        found: Any = read(made, Experiment)
        for name in path:
            found = getattr(found, name)
        assert found == value
        jsonschema.validate(made, PUBLISHED)


@pytest.mark.parametrize(("path", "kind"), FIELDS, ids=[".".join(path) for path, _ in FIELDS])
def test_a_value_made_in_python_is_held_against_the_same_range(path: tuple[str, ...], kind: Number) -> None:
    def replaced(struct: Any, path: tuple[str, ...], value: object) -> Any:
        inner = replaced(getattr(struct, path[0]), path[1:], value) if path[1:] else value
        return msgspec.structs.replace(struct, **{path[0]: inner})

    whole = read(WHOLE, Experiment)
    require_fitting(whole)
    for value in just_outside(kind):
        with pytest.raises(InputError, match=rf"^{'.'.join(path)} is "):
            require_fitting(replaced(whole, path, value))


def test_no_limits_can_be_said_in_two_ways_and_in_a_file_in_one() -> None:
    given = read({"name": "one", "dataset": {"source": "sample"}, "engines": [{"name": "ridge"}]}, Experiment)
    assert msgspec.structs.replace(given, limits=None) == given
