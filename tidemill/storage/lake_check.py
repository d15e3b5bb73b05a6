"""Looking over the lake: which partitions are not what their manifests say."""

from __future__ import annotations

from pathlib import Path

import msgspec
import polars as pl

from tidemill.domain.errors import IntegrityError
from tidemill.storage.content import content_version
from tidemill.storage.lake import Lake, Manifest


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """A partition that cannot be read as it was written, and why."""

    table: str
    dataset: str
    partition: str
    why: str


def damaged(lake: Lake) -> tuple[int, list[Damage]]:
    """How many partitions were read, and those that are damaged: each file is read whole and its content compared."""
    found, checked = [], 0
    for table in lake.tables():
        for folder in sorted((lake.root / table).glob("dataset=*/partition=*")):
            dataset, partition = folder.parent.name.partition("=")[2], folder.name.partition("=")[2]
            try:
                manifest = lake.manifest(table, dataset, partition)
                why = "" if manifest is None else _why(folder, manifest)
                checked += manifest is not None
            except IntegrityError:
                why, checked = "its manifest is no manifest", checked + 1
            if why:
                found.append(Damage(table=table, dataset=dataset, partition=partition, why=why))
    return checked, found


def _why(folder: Path, manifest: Manifest) -> str:
    """Empty where the files hold what the manifest says."""
    for name in manifest.files:
        path = folder / name
        if not path.is_file():
            return "its file is gone"
        try:
            if content_version(pl.read_parquet(path, hive_partitioning=False)) != manifest.data_version:
                return "its file holds other rows than were written"
        except (pl.exceptions.PolarsError, OSError):
            return "its file cannot be read"
    return ""
