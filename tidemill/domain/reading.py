"""What a person wrote, as a typed value; what is wrong with it is told in words, by the field as it is written.

label.horizon is -3; it must be at least 1.
There is no field validation.mising. Did you mean missing? It is one of missing, distance, range, history, disagreement.
"""

import re
from collections.abc import Sequence
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from tidemill.domain.errors import InputError, did_you_mean

T = TypeVar("T")
Step = str | int

_PLACE = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<place>.*)`)?", re.DOTALL)
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]")
_BOUND = re.compile(r"Expected `(?:int|float)(?: \| null)?` (>=|>|<=|<) (\S+)")
_KIND = re.compile(r"Expected `([^`]+)`, got `([^`]+)`")
_FIELD = re.compile(r"Object (contains unknown|missing required) field `([^`]+)`")
_BOUNDS = {">=": "at least", ">": "above", "<=": "at most", "<": "below"}
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "object": "a group of fields",
    "array": "a list",
    "null": "null",
}
_UNKNOWN = object()


def read(value: object, kind: type[T]) -> T:
    """`value`, made of plain ones, as a `kind`; InputError, in a sentence, for what does not fit."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as exc:
        raise InputError(problem(exc, value, kind)) from exc


def require_fitting(value: msgspec.Struct) -> None:
    """InputError for a value made in Python that could not have been read: its constructor looks at no type and no range."""
    try:
        plain = msgspec.to_builtins(value)
    except TypeError as exc:
        raise InputError(f"{type(value).__name__} holds a value that no file can hold: {exc}.") from exc
    read(plain, type(value))


def problem(exc: msgspec.ValidationError, value: object, kind: Any) -> str:
    """The sentence that says where in `value`, read as a `kind`, the error is, what stands there and what may."""
    match = _PLACE.fullmatch(str(exc))
    what, place = (str(exc), "") if match is None else (match["what"], match["place"] or "")
    name, steps = place.removeprefix("."), [field or int(number) for field, number in _STEP.findall(place)]
    found = _value_at(value, steps)
    if bound := _BOUND.fullmatch(what):
        return f"{name} is {_shown(found)}; it must be {_BOUNDS[bound[1]]} {_number(bound[2])}."
    if kinds := _KIND.fullmatch(what):
        wanted = _wanted(kinds[1].split(" | "), kind, steps)
        given = _KINDS.get(kinds[2], kinds[2])
        shown = given if found is None or isinstance(found, dict | list) or found is _UNKNOWN else _shown(found)
        return f"{name or 'The whole'} is {shown}; it must be {wanted}."
    if field := _FIELD.fullmatch(what):
        return _field_problem(field[2], name, _kind_at(kind, steps), missing=field[1].startswith("missing"))
    if what.startswith("Invalid enum value"):
        return f"{name} is {_shown(found)}; it must be {_chosen(_kind_at(kind, steps), str(found))}"
    return f"{name}: {what}." if name else f"{what}."


def _wanted(kinds: Sequence[str], kind: Any, steps: Sequence[Step]) -> str:
    """What may stand at a place, in words; a text beside a group of fields is one that the annotation names."""
    words = _KINDS | {"str": _one_of(_choices(_kind_at(kind, steps)))} if {"str", "object"} <= set(kinds) else _KINDS
    return " or ".join(words.get(one, one) for one in kinds)


def _chosen(kind: Any, found: str) -> str:
    """Which texts a `kind` takes, and what else; and the one that is most like the one found."""
    choices = _choices(kind)
    group = " or a group of fields" if hasattr(_plain(kind), "__struct_fields__") else ""
    return f"{_one_of(choices)}{group}.{did_you_mean(found, choices)}"


def _one_of(choices: Sequence[str]) -> str:
    return f"one of {', '.join(choices)}" if len(choices) > 1 else "".join(choices)


def _choices(kind: Any) -> list[str]:
    """The texts that an annotation names, also one among others."""
    if get_origin(kind) is Literal:
        return [str(one) for one in get_args(kind)]
    return [one for part in get_args(kind) for one in _choices(part)] if get_origin(kind) in (Union, UnionType) else []


def _field_problem(field: str, inside: str, kind: Any, *, missing: bool) -> str:
    whole = f"{inside}.{field}" if inside else field
    if missing:
        return f"The field {whole} is missing. Add it."
    choices = getattr(_plain(kind), "__struct_fields__", ())
    known = f" It is one of {', '.join(choices)}." if choices else ""
    return f"There is no field {whole}.{did_you_mean(field, choices)}{known}"


def _value_at(value: Any, steps: Sequence[Step]) -> Any:
    for step in steps:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return _UNKNOWN
    return value


def _kind_at(kind: Any, steps: Sequence[Step]) -> Any:
    """The annotation of what lies at a place of a struct."""
    for step in steps:
        kind = _plain(kind)
        kind = get_args(kind)[0] if isinstance(step, int) else get_type_hints(kind, include_extras=True).get(step)
    return kind


def _plain(kind: Any) -> Any:
    """The type itself, without None beside it and without what is annotated."""
    while kind is not None and hasattr(kind, "__metadata__"):
        kind = kind.__origin__
    if kind is not None and get_origin(kind) not in (None, tuple, list, dict, Literal):
        return next((_plain(one) for one in get_args(kind) if one is not type(None)), kind)
    return kind


def _shown(value: object) -> str:
    text = "what stands there" if value is _UNKNOWN else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _number(text: str) -> str:
    number = float(text)
    return f"{int(number):,}" if number.is_integer() else text
