"""Expressions written in a cheaper form with the same bits: sums over the changes of x need only the window of x itself.

`sum(maximum(x - ref(x, 1), 0), w)` and its kin would keep a window of each argument; the kernels take the difference while they
scan x, so that five windows of memory become one.
"""

from collections.abc import Mapping

from tidemill.features.expression import Expression

# Operators that only the program knows: sums of rises, falls and both, shares of bars that rose and fell.
FUSED = ("rises", "falls", "moves", "rose", "fell")
_ZERO = 0.0


def fused(expression: Expression, known: dict[str, Expression] | None = None) -> Expression:
    """`expression` with every such sum replaced. known: what was rewritten already, by key."""
    done: dict[str, Expression] = {} if known is None else known
    stack = [(expression, False)]
    while stack:
        node, opened = stack.pop()
        if node.key in done:
            continue
        if not opened:
            stack.append((node, True))
            stack.extend((argument, False) for argument in node.arguments)
            continue
        done[node.key] = _rewritten(node, done)
    return done[expression.key]


def _rewritten(node: Expression, done: Mapping[str, Expression]) -> Expression:
    arguments = tuple(done[argument.key] for argument in node.arguments)
    operator = _operator(node)
    if operator is None:
        same = all(new is old for new, old in zip(arguments, node.arguments, strict=True))
        return node if same else Expression(node.operator, arguments, node.parameters)
    return Expression(operator, (done[_changing(node.arguments[0]).key],), node.parameters)


def _operator(node: Expression) -> str | None:
    """The fused operator that `node` is, if any."""
    if node.operator not in ("sum", "mean"):
        return None
    inner = node.arguments[0]
    if node.operator == "mean":
        return _direction(inner.arguments, "rose", "fell") if inner.operator == "greater" else None
    if inner.operator == "absolute" and inner.arguments[0].operator == "subtract":
        return _direction(inner.arguments[0].arguments, "moves", "moves")
    if inner.operator == "maximum" and inner.arguments[0].operator == "subtract" and _is_zero(inner.arguments[1]):
        return _direction(inner.arguments[0].arguments, "rises", "falls")
    return None


def _direction(pair: tuple[Expression, ...], rising: str, falling: str) -> str | None:
    """Which way two operands look: (x, ref(x, 1)) rises, (ref(x, 1), x) falls."""
    first, second = pair
    if _is_previous(second, first):
        return rising
    return falling if _is_previous(first, second) else None


def _is_previous(one: Expression, x: Expression) -> bool:
    return one.operator == "ref" and one.parameters[0] == 1.0 and one.arguments[0].key == x.key


def _is_zero(one: Expression) -> bool:
    return one.operator == "constant" and one.parameters[0] == _ZERO


def _changing(inner: Expression) -> Expression:
    """The x of an argument that `_operator` knows."""
    pair = inner.arguments if inner.operator == "greater" else inner.arguments[0].arguments
    return pair[0] if _is_previous(pair[1], pair[0]) else pair[1]
