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
_FROM = re.compile(rf"^[ \t]*from[ \t]+((?:{'|'.join(_PACKAGES)})[\w.]*)[ \t]+import[ \t]+(\([^)]*\)|[^\n]+)", re.MULTILINE)
_IMPORT = re.compile(rf"^[ \t]*import[ \t]+((?:{'|'.join(_PACKAGES)})[\w.]*)", re.MULTILINE)


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
def _module_file(module: str) -> Path | None:
    path = os.path.join(ROOT, *module.split("."))  # as texts: three thousand of them at each start
    for candidate in (f"{path}.py", f"{path}/__init__.py"):
        if os.path.isfile(candidate):
            return Path(candidate)
    return None


def _imported(text: str) -> Iterable[str]:
    for match in _FROM.finditer(text):
        package, names = match[1], re.sub(r"#.*", "", match[2]).strip("() \n")
        yield package
        for name in names.split(","):
            yield f"{package}.{name.split(' as ')[0].strip()}"
    for match in _IMPORT.finditer(text):
        yield match[1]


@cache
def _source(module: str) -> tuple[str, tuple[str, ...]]:
    file = _module_file(module)
    if file is None:
        return "", ()
    text = file.read_text(encoding="utf-8")
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest(), tuple(sorted(set(_imported(text))))


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
