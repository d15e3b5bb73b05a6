"""Feature states on disk: where an incremental run resumes. One file a month, named by what the month was made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from tidemill.domain.errors import IntegrityError
from tidemill.durable import read_sealed, sweep, write_sealed
from tidemill.features.api import FeatureState

# The newest month grows, so the state before it is needed again; the one after it serves the month that follows.
KEPT = 2


class Savable(Protocol):
    def to_bytes(self) -> bytes: ...


S = TypeVar("S", bound=Savable)


def resume(folder: Path, months: Sequence[str], stale: int, wanted: Mapping[str, str]) -> tuple[int, FeatureState | None]:
    """The nearest month at or before the stale one before which a state is kept: its index and that state.

    wanted: month → fingerprint of what it is made from, with that of all months before it.
    """
    return resume_with(FeatureState.from_bytes, folder, months, stale, wanted)


def resume_with(
    read: Callable[[bytes], S], folder: Path, months: Sequence[str], stale: int, wanted: Mapping[str, str]
) -> tuple[int, S | None]:
    """`resume` for states of another kind; read: raises IntegrityError for bytes that are none."""
    for index in range(stale, 0, -1):
        month = months[index - 1]
        path = folder / f"{month}-{wanted[month]}.state"
        if not path.is_file():
            continue
        try:
            return index, read(read_sealed(path))
        except IntegrityError:
            # A damaged or outdated state costs time, never correctness.
            path.unlink(missing_ok=True)
    return 0, None


def save_state(folder: Path, month: str, month_fingerprint: str, state: Savable) -> None:
    """Keep the state after a month; older ones, and one of the month as it was before, are removed."""
    target = folder / f"{month}-{month_fingerprint}.state"
    write_sealed(target, state.to_bytes())
    sweep(folder)
    # First what the month was before: it would count among those that are kept, and the state before the month would go.
    for twin in folder.glob(f"{month}-*.state"):
        if twin != target:
            twin.unlink(missing_ok=True)
    for old in sorted(folder.glob("*.state"))[:-KEPT]:
        old.unlink(missing_ok=True)
