"""Fixtures for every test: real data beside the project, and what to do where it is absent."""

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("TIDEMILL_SHARED", PROJECT.parent / "shared")) / "data"
REQUIRED = frozenset(filter(None, os.environ.get("TIDEMILL_REQUIRE", "").split(",")))


def skip_or_fail(what: str, reason: str) -> None:
    """Skip with a reason, or fail when TIDEMILL_REQUIRE names `what` (data, browser)."""
    if what in REQUIRED:
        pytest.fail(f"TIDEMILL_REQUIRE={what}, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data that lies beside the project, never in it."""
    if not SHARED.is_dir():
        skip_or_fail("data", f"no real data at {SHARED}")
    return SHARED
