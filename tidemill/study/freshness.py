"""One protocol of freshness: wanted parts → stale parts → make → keep, and the one report of what a step did.

Every part of every table names what it was made of, by its fingerprint. A table is complete when all of its parts are there and
are made of what they should be; no mark that one part carries says anything of the others. What holds other bytes than were
written is found by the lake's checksums when it is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import msgspec

from tidemill.provenance import fingerprint

if TYPE_CHECKING:
    from tidemill.storage.lake import Lake, Manifest


class Table(NamedTuple):
    """A table of the lake under one key: `<lake>/<name>/dataset=<key>`."""

    name: str
    key: str


F = TypeVar("F")
F_co = TypeVar("F_co", covariant=True)


class StepReport(msgspec.Struct, Generic[F_co], frozen=True, kw_only=True):
    """What one step of the graph did. Names, not words: how a person reads them is decided where they are shown.

    worked: False when the fingerprint of the inputs equalled the last success, so nothing was done.
    inputs: name → data version read. facts: the step's own figures, a struct or None. columns, table: names and rows; a mapping
    in a cell stands for columns that are called as its keys. bytes: size of what is stored.
    """

    worked: bool
    rows: int = 0
    symbols: int = 0
    start: datetime | None = None
    end: datetime | None = None
    bytes: int = 0
    data_version: str = ""
    code_version: str = ""
    inputs: dict[str, str] = {}
    facts: F_co
    columns: tuple[str, ...] = ()
    table: tuple[tuple[Any, ...], ...] = ()
    notes: tuple[str, ...] = ()


class FileFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Of a step that writes a file for people."""

    path: str


def stale(lake: Lake, tables: Iterable[Table], wanted: Mapping[str, str]) -> list[str]:
    """The parts, in the order of `wanted`, that one of the tables lacks or holds made of something else.

    wanted: part → fingerprint of all that it is made of. tables: those whose parts are made together.
    """
    held = [lake.manifests(*table) for table in tables]
    return [part for part, made_of in wanted.items() if not all(is_made_of(have.get(part), made_of) for have in held)]


def is_made_of(held: Manifest | None, wanted: str) -> bool:
    """Whether a part is there and made of what it should be."""
    return held is not None and held.fingerprint == wanted


def drop_others(lake: Lake, tables: Iterable[Table], wanted: Iterable[str]) -> None:
    """Remove the parts that nobody wants any more."""
    parts = set(wanted)
    for table in tables:
        for gone in lake.manifests(*table).keys() - parts:
            lake.drop(*table, gone)


def stored(manifests: Mapping[str, Manifest], *, worked: bool, code_version: str, facts: F, **more: Any) -> StepReport[F]:
    """The report of a step by what is stored: its size and range come from the manifests of its parts.

    more: what the report holds beside that, or instead where a part of the lake does not say it.
    """
    filled = [manifest for manifest in manifests.values() if manifest.rows]
    counted: dict[str, Any] = {
        "rows": sum(manifest.rows for manifest in filled),
        "symbols": max((manifest.symbols for manifest in filled), default=0),
        "start": min((manifest.start for manifest in filled if manifest.start), default=None),
        "end": max((manifest.end for manifest in filled if manifest.end), default=None),
        "bytes": sum(manifest.bytes for manifest in filled),
        "data_version": fingerprint({part: manifest.data_version for part, manifest in manifests.items()}),
    }
    return StepReport(worked=worked, code_version=code_version, facts=facts, **(counted | more))


def unused(code_version: str, note: str) -> StepReport[None]:
    """The report of a step that an experiment does not ask for."""
    return StepReport(worked=False, facts=None, data_version="unused", code_version=code_version, notes=(note,))
