"""What a file declares, as it goes from the process that ran it to the program: expressions, signatures, options, and no code.

So the program never runs a person's file: what the file does to a library when it is imported stays where it ran.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from tidemill.domain.errors import InputError
from tidemill.features.declaration import Feature
from tidemill.features.expression import Expression
from tidemill.user_modules.calls import Declared, Kind

if TYPE_CHECKING:
    from tidemill.user_modules.execution import Executed

_PLAIN = (bool, int, float, str)


class Parameter(msgspec.Struct, frozen=True):
    """One parameter of a function. plain: whether its default is a number, a text, true or false, which is `default` then.

    required: whether it has no default at all.
    """

    name: str
    kind: str
    required: bool
    plain: bool = False
    default: Any = None


class Shape(msgspec.Struct, frozen=True):
    """What can be known of a function from outside."""

    about: str
    parameters: tuple[Parameter, ...]

    def given_to(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, which looks from outside like the function of this shape."""
        call.__doc__ = self.about
        call.__signature__ = inspect.Signature([_parameter(one) for one in self.parameters])  # type: ignore[attr-defined]  # read by `inspect`
        return call


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """As `Declared`, without the functions."""

    kind: Kind
    name: str
    line: int
    function: Shape
    second: Shape | None = None
    options: dict[str, Any] = {}


class _Node(msgspec.Struct, frozen=True, array_like=True):
    operator: str
    arguments: tuple[_Node, ...]
    parameters: tuple[Any, ...]


class _Named(msgspec.Struct, frozen=True):
    name: str
    expression: _Node
    unit: str
    about: str


class _File(msgspec.Struct, frozen=True):
    calls: tuple[Call, ...]
    features: tuple[_Named, ...]


def packed_declarations(executed: Executed) -> bytes:
    """What an executed file declares. InputError for an option that is no plain value."""
    calls = tuple(map(_call, executed.calls))
    features = tuple(map(_named, executed.features.features.values()))
    try:
        return msgspec.msgpack.encode(_File(calls, features), enc_hook=_plain_number)
    except TypeError as exc:
        raise InputError(f"The module {executed.file.name} declares something with a value that is not plain ({exc}).") from exc


def unpacked_declarations(data: bytes) -> tuple[tuple[Call, ...], tuple[Feature, ...]]:
    """The calls and the features by expression, in the order of the file."""
    try:
        file = msgspec.msgpack.decode(data, type=_File)
    except msgspec.ValidationError as exc:
        raise InputError(f"The module declares something that does not fit: {exc}.") from exc
    calls = tuple(msgspec.structs.replace(call, options=_with_tuples(call.options)) for call in file.calls)
    return calls, tuple(Feature(one.name, _expression(one.expression), one.unit, one.about) for one in file.features)


def _with_tuples(options: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}


def _named(feature: Feature) -> _Named:
    return _Named(feature.name, _node(feature.expression), feature.unit, feature.about)


def _call(made: Declared) -> Call:
    return Call(
        kind=made.kind,
        name=made.name,
        line=made.line,
        function=_shape(made.function),
        second=_shape(made.second) if made.second else None,
        options=made.options,
    )


def _shape(function: Callable[..., Any]) -> Shape:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as exc:
        raise InputError(f"The parameters of {function!r} cannot be seen. Call it in a function of your own.") from exc
    return Shape(inspect.getdoc(function) or "", tuple(_told(one) for one in parameters))


def _told(parameter: inspect.Parameter) -> Parameter:
    default = parameter.default
    kind = next((kind for kind in _PLAIN if isinstance(default, kind)), None)
    required = default is parameter.empty
    return Parameter(parameter.name, parameter.kind.name, required, kind is not None, kind(default) if kind else None)


def _parameter(told: Parameter) -> inspect.Parameter:
    default = inspect.Parameter.empty if told.required else told.default if told.plain else object()
    return inspect.Parameter(told.name, getattr(inspect.Parameter, told.kind), default=default)


def _node(expression: Expression) -> _Node:
    return _Node(expression.operator, tuple(map(_node, expression.arguments)), expression.parameters)


def _expression(node: _Node) -> Expression:
    return Expression(node.operator, tuple(map(_expression, node.arguments)), node.parameters)


def _plain_number(value: Any) -> Any:
    """A number of numpy as one of Python."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"a {type(value).__name__}")
