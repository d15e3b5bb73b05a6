"""The one report of a step, made of what is stored."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from tidemill.provenance import fingerprint
from tidemill.storage.lake import Lake
from tidemill.study.freshness import stored, unused

START = datetime(2024, 1, 1, tzinfo=UTC)


def bars(*symbols: str, days: int) -> pl.DataFrame:
    times = pl.datetime_range(START, START.replace(day=days), "1d", time_unit="us", time_zone="UTC", eager=True)
    return pl.concat(pl.DataFrame({"symbol": [name] * days, "open_time": times}) for name in symbols)


def test_size_range_and_version_come_from_the_manifests(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    parts = {"a": bars("A", days=2), "b": bars("A", "B", days=3), "empty": bars("A", days=1).clear()}
    made = {name: lake.write("bars", "v.1d", name, frame) for name, frame in parts.items()}
    report = stored(lake.manifests("bars", "v.1d"), worked=True, code_version="c", facts=7)
    assert (report.rows, report.symbols, report.start, report.end) == (8, 2, START, START.replace(day=3))
    assert report.bytes == made["a"].bytes + made["b"].bytes
    assert report.data_version == fingerprint({name: manifest.data_version for name, manifest in made.items()})
    assert (report.worked, report.code_version, report.facts) == (True, "c", 7)


def test_what_a_step_knows_better_stands_instead(tmp_path: Path) -> None:
    made = Lake(tmp_path).write("bars", "v.1d", "a", bars("A", days=2))
    report = stored({"a": made}, worked=False, code_version="c", facts=None, rows=1, notes=("n",))
    assert (report.rows, report.notes, report.end) == (1, ("n",), START.replace(day=2))


def test_nothing_stored_is_nothing_told() -> None:
    report = stored({}, worked=False, code_version="c", facts=None)
    assert (report.rows, report.symbols, report.start, report.end, report.bytes) == (0, 0, None, None, 0)
    assert (unused("c", "why").worked, unused("c", "why").notes) == (False, ("why",))
