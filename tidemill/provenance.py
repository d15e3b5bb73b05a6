"""What a result was made of: hashes of code, parameters, libraries and inputs.

Equal fingerprints mean equal work, so the work need not be done again. Source is hashed transitively: a changed helper changes
the version of everything that imports it, wherever the import stands (also inside a function).
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parent.parent
_PACKAGES = ("tidemill", "assets", "resources", "orchestration", "sensors")
_INIT = "/__init__.py"
_NAME = rf"(?:{'|'.join(_PACKAGES)})[\w.]*"
_IMPORT = re.compile(rf"^[ \t]*(?:from[ \t]+({_NAME})[ \t]+import[ \t]+(\([^)]*\)|[^\n]+)|import[ \t]+({_NAME}))", re.MULTILINE)


def fingerprint(*parts: object) -> str:
    """32 hex digits that depend on every part and on nothing else; dictionaries count by content, not by order."""
    encoded = msgspec.json.encode(parts, order="deterministic", enc_hook=str)
    return hashlib.blake2b(encoded, digest_size=16).hexdigest()


def stated(value: object) -> object:
    """Plain values of a struct without what stands at its default: a field that is added later changes no id."""
    if isinstance(value, msgspec.Struct):
        return dict(_stated_fields(value))
    return [stated(one) for one in value] if isinstance(value, list | tuple) else value


def _stated_fields(value: msgspec.Struct) -> Iterator[tuple[str, object]]:
    for field in msgspec.structs.fields(value):
        held = getattr(value, field.name)
        plain = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
        if held != plain:
            yield field.encode_name, stated(held)


@cache
def _module_file(module: str) -> str:
    """Path of a module's source; empty for what is none. As texts: a thousand of them at each start."""
    package = module.rpartition(".")[0]
    if package and _module_file(package).endswith(".py") and not _module_file(package).endswith(_INIT):
        return ""  # what a module defines, which is most of what is imported
    path = os.path.join(ROOT, *module.split("."))
    return next((file for file in (f"{path}.py", f"{path}{_INIT}") if os.path.isfile(file)), "")


def _imported(text: str) -> Iterable[str]:
    for package, names, module in _IMPORT.findall(text):
        yield module or package
        for name in re.sub(r"#.*", "", names).strip("() \n").split(",") if names else ():
            yield f"{package}.{name.split(' as ')[0].strip()}"


@cache
def _source(module: str) -> tuple[str, tuple[str, ...]]:
    """Hash of a module's source, and the modules of this project that it imports; empty for what is no module."""
    file = _module_file(module)
    if not file:
        return "", ()
    with open(file, encoding="utf-8") as source:
        text = source.read()
    imported = tuple(name for name in sorted(set(_imported(text))) if _module_file(name))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest(), imported


def source_modules(*modules: str) -> dict[str, str]:
    """Module name → hash of its source, for `modules` and everything of this project that they import."""
    found: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        digest, imported = _source(module)
        if digest and module not in found:
            found[module] = digest
            waiting.extend(imported)
    return found


def source_version(*modules: str, own: Iterable[str] = ()) -> str:
    """16 hex digits of the transitive source of `modules` (dotted names).

    own: modules that count by their own text and not by what they import: they put computing together with keeping, reading and
    telling, which are no part of a result.
    """
    return _version(modules, tuple(own))


@cache
def _version(modules: tuple[str, ...], own: tuple[str, ...]) -> str:
    found = source_modules(*modules)
    return fingerprint({**{name: _source(name)[0] for name in own}, **found})[:16]


@cache
def library_version(name: str) -> str:
    """Installed version of a distribution, `absent` when there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
