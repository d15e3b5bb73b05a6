"""The version of a piece of code: a hash of its source and of every Tidemill module that it imports, directly or not."""

import ast
import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path

_PACKAGE = "tidemill"


@lru_cache(maxsize=64)
def code_version(module: str) -> str:
    """Hash of the transitive source of `module` (a full name, e.g. `tidemill.models.ridge`), 16 hexadecimal digits.

    Comments, docstrings and layout do not count, since they cannot change a result; imports inside functions do. Modules
    outside the package do not count. A module without a source file gives the hash of its name.
    """
    digest = hashlib.sha256()
    for name, body in sorted(_closure(module).items()):
        digest.update(f"{name}\0{body}\0".encode())
    return digest.hexdigest()[:16]


def _closure(module: str) -> dict[str, str]:
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        tree = _parsed(name)
        found[name] = "" if tree is None else ast.dump(_without_docstrings(tree))
        if tree is not None:
            waiting.extend(imported for imported in _imports(tree) if imported not in found)
    return found


def _parsed(module: str) -> ast.Module | None:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return ast.parse(Path(spec.origin).read_bytes())


def _imports(tree: ast.Module) -> set[str]:
    """Modules of the package that `tree` imports, anywhere in it; `from package import module` counts as the module."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names if _is_module(node.module, alias.name))
    return {name for name in names if name.split(".")[0] == _PACKAGE}


def _is_module(package: str, name: str) -> bool:
    if package.split(".")[0] != _PACKAGE:
        return False
    spec = importlib.util.find_spec(package)
    return (
        spec is not None
        and spec.submodule_search_locations is not None
        and importlib.util.find_spec(f"{package}.{name}") is not None
    )


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        first = node.body[0] if node.body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = node.body[1:]
    return tree
