"""Parameters of a user's function as a checked type: its keyword parameters that have a default."""

import inspect
from collections.abc import Callable, Container
from typing import Any

import msgspec

from tidemill.domain.errors import InputError

_PLAIN = (bool, int, float, str)


def parameters_of(function: Callable[..., Any], name: str, given: Container[str], first: int = 1) -> type[msgspec.Struct]:
    """A struct type with a field for each parameter that has a default, of the default's type.

    given: parameters by name that the platform hands over, as it does the `first` ones. Raises InputError for a parameter
    that nobody could give, and for a default that an experiment file cannot hold.
    """
    fields: list[tuple[str, type, Any]] = []
    for parameter in list(inspect.signature(function).parameters.values())[first:]:
        if parameter.name in given or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.default is parameter.empty:
            raise InputError(
                f"The parameter {parameter.name} of {name} has no default. Give it one, such as {parameter.name}=5."
            )
        if not isinstance(parameter.default, _PLAIN):
            raise InputError(f"The default of {parameter.name} of {name} must be a number, a string, true or false.")
        fields.append((parameter.name, type(parameter.default), parameter.default))
    return msgspec.defstruct("Parameters", fields, frozen=True, forbid_unknown_fields=True, kw_only=True)


def accepted(function: Callable[..., Any], offered: dict[str, Any], first: int) -> dict[str, Any]:
    """What of `offered` the function names among its parameters after the `first` ones; all where it takes any keyword."""
    parameters = list(inspect.signature(function).parameters.values())
    taken = {parameter.name for parameter in parameters[:first]}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return {name: value for name, value in offered.items() if name not in taken}
    names = {parameter.name for parameter in parameters[first:]}
    return {name: value for name, value in offered.items() if name in names}
