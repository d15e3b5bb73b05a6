"""Looking over the lake: which partitions are not what their manifests say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from tidemill.domain.errors import IntegrityError
from tidemill.storage import verified
from tidemill.storage.lake import Lake, Manifest


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """A partition that cannot be read as it was written, and why."""

    table: str
    dataset: str
    partition: str
    why: str


def damaged(lake: Lake) -> tuple[int, list[Damage]]:
    """How many partitions were read, and those that are damaged. What versions before checksums wrote gets them here."""
    found, checked = [], 0
    for one in _looked_at(lake):
        checked += 1
        if isinstance(one, Damage):
            found.append(one)
        elif verified.broken(lake.stored(one)):
            found.append(_damage(one, "its file holds other bytes than were written"))
        elif not one.checksums:
            lake.seal(one)
    return checked, found


def at_a_glance(lake: Lake) -> tuple[int, list[Damage]]:
    """As `damaged`, quickly: manifests and sizes, the files unread. Changes nothing."""
    looked = list(_looked_at(lake))
    return len(looked), [one for one in looked if isinstance(one, Damage)]


def _looked_at(lake: Lake) -> Iterator[Damage | Manifest]:
    """Every partition: its manifest, or what a look at manifest and sizes finds wrong."""
    for table in lake.tables():
        for folder in sorted((lake.root / table).glob("dataset=*/partition=*")):
            dataset, partition = folder.parent.name.partition("=")[2], folder.name.partition("=")[2]
            try:
                manifest = lake.manifest(table, dataset, partition)
            except IntegrityError:
                yield Damage(table=table, dataset=dataset, partition=partition, why="its manifest is damaged")
                continue
            if manifest is not None:
                why = next(filter(None, (_why(file.path, file.size) for file in lake.stored(manifest))), "")
                yield _damage(manifest, why) if why else manifest


def _damage(manifest: Manifest, why: str) -> Damage:
    return Damage(table=manifest.table, dataset=manifest.dataset, partition=manifest.partition, why=why)


def _why(path: Path, size: int) -> str:
    """Empty where a file of that size is there."""
    if not path.is_file():
        return "its file is gone"
    return "" if path.stat().st_size == size else "its file is cut off"
