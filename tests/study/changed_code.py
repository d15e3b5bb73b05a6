"""A line of a module is another: what code versions make of it."""

import pytest

from tidemill import provenance


def change_line(patch: pytest.MonkeyPatch, module: str) -> None:
    """From now on `module` has another text, for as long as `patch` lasts; it imports what it did."""
    known = provenance._source
    assert known(module)[0], f"there is no {module}"
    patch.setattr(provenance, "_version", getattr(provenance._version, "__wrapped__", provenance._version))
    patch.setattr(provenance, "_source", lambda name: ("other", known(name)[1]) if name == module else known(name))
