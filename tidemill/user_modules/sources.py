"""Which part of a user's file decides what a declaration answers: that part is hashed, and nothing else makes it stale.

The statement of the declaration, and every top-level statement that it names, directly or through others. Comments and layout
do not count. A statement that binds no name but touches one of them (`TABLE["a"] = 1`, `TABLE.update(…)`) belongs to it too.
So does what stands in the data files that these statements name.
"""

import ast
import hashlib
from collections.abc import Mapping, Sequence

CALLS = frozenset({"feature", "features", "label", "engine", "strategy"})


class Source:
    """The top-level statements of a file."""

    def __init__(self, tree: ast.Module) -> None:
        self._statements = tree.body
        self._binds = [_bound(node) for node in tree.body]
        self._uses = [_used(node) for node in tree.body]

    def version(self, line: int, data: Mapping[str, str] = {}) -> str:
        """16 hex digits of everything that the statement on `line` depends on. data: name of a data file → its digest."""
        kept = self._closure(self._at(line))
        text = "\n".join(ast.unparse(self._statements[index]) for index in sorted(kept))
        text += "".join(f"\n{name} {data[name]}" for name in self._data_in(kept) if name in data)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def data_names(self) -> tuple[str, ...]:
        """The files that `data("…")` names, anywhere; none where the file has another meaning for that word."""
        if any("data" in bound for bound in self._binds):
            return ()
        return tuple(dict.fromkeys(name for node in self._statements for name in _data_names(node)))

    def data_behind(self, line: int) -> tuple[str, ...]:
        """The files that the statement on `line` depends on, sorted."""
        return self._data_in(self._closure(self._at(line)))

    def data_behind_expressions(self) -> tuple[str, ...]:
        """The files that statements with `feature` depend on, sorted; which of them declares which is not told apart."""
        roots = [index for index, used in enumerate(self._uses) if "feature" in used]
        return self._data_in({index for root in roots for index in self._closure(root)})

    def _data_in(self, kept: set[int]) -> tuple[str, ...]:
        return tuple(sorted({name for index in kept for name in _data_names(self._statements[index])}))

    def line_of(self, name: str) -> int:
        """Line of the last statement that binds `name`; 1 when none does."""
        lines = [node.lineno for node, bound in zip(self._statements, self._binds, strict=True) if name in bound]
        return lines[-1] if lines else 1

    def _at(self, line: int) -> int:
        spans = ((index, _first_line(node), node.end_lineno or node.lineno) for index, node in enumerate(self._statements))
        return next((index for index, first, last in spans if first <= line <= last), 0)

    def _closure(self, root: int) -> set[int]:
        kept = {root}
        names = set(self._uses[root])
        while True:
            more = {index for index in range(len(self._statements)) if index not in kept and self._belongs(index, names)}
            if not more:
                return kept
            kept |= more
            names |= set().union(*(self._uses[index] | self._binds[index] for index in more))

    def _belongs(self, index: int, names: set[str]) -> bool:
        if self._binds[index]:
            return bool(self._binds[index] & names)
        return not _declares(self._statements[index]) and bool(self._uses[index] & names)


def _bound(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    names = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store | ast.Del)}
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in inner.names}
        elif isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(inner.name)
    return names


def _used(node: ast.stmt) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def _data_names(node: ast.stmt) -> list[str]:
    calls = (inner for inner in ast.walk(node) if isinstance(inner, ast.Call) and inner.args)
    given = (call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "data")
    return [one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)]


def _declares(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id in CALLS
    )


def _first_line(node: ast.stmt) -> int:
    decorators: Sequence[ast.expr] = getattr(node, "decorator_list", ())
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])
