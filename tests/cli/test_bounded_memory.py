"""A file of any length: what an import holds at once is a batch and a month, and does not grow with the file."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tidemill.config import Secret

_CALL = """
import sys
from pathlib import Path
from tidemill.cli.main import main
from tidemill.steps.market_data import ingest
ingest.BATCH_ROWS = 400_000  # so that a file of some seconds has several
try:
    main(sys.argv[1:])
finally:
    # Not what getrusage says: that holds what the process was before it became this program, a copy of the tests' own.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(int(peak.split()[1]) * 1024, file=sys.stderr)
"""
_HOURS = 40_000  # four and a half years


def write_hours(path: Path, symbols: int) -> None:
    """A CSV of hourly bars, symbol after symbol, written piece by piece."""
    start = np.datetime64("2019-01-01T00:00", "us")
    moments = pl.Series(start + np.arange(_HOURS) * np.timedelta64(3_600_000_000, "us")).dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    with path.open("wb") as stream:
        for number in range(symbols):
            random = np.random.default_rng(number)
            close = (100.0 * np.exp(np.cumsum(random.normal(0.0, 0.0005, _HOURS)))).round(4)
            columns = {"open": close, "high": close + 0.01, "low": close - 0.01, "close": close}
            volume = random.integers(1, 90_000, _HOURS)
            frame = pl.DataFrame({"symbol": [f"S{number:04}"] * _HOURS, "ts": moments, **columns, "volume": volume})
            frame.write_csv(stream, include_header=number == 0)


def imported(path: Path) -> tuple[dict[str, object], int]:
    """The report of an import in a process of its own, and the most memory that it held, in bytes."""
    command = [
        sys.executable,
        "-P",
        "-c",
        _CALL,
        "data",
        "import",
        str(path),
        "--interval",
        "1h",
        "--calendar",
        "24/7",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    return json.loads(done.stdout), int(done.stderr.split()[-1])


@pytest.mark.long
def test_an_import_of_three_times_as_much_takes_hardly_more_memory(
    tmp_path: Path, fresh_dsn: Secret, redis_url: Secret, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TIDEMILL_POSTGRES_DSN", fresh_dsn.reveal())
    monkeypatch.setenv("TIDEMILL_REDIS_URL", redis_url.reveal())
    peaks = []
    for symbols in (20, 60):
        path = tmp_path / f"hours{symbols}.csv"
        write_hours(path, symbols)
        report, peak = imported(path)
        assert report["inserted"] == symbols * _HOURS
        assert report["quarantined"] == 0
        peaks.append(peak)
        path.unlink()
    assert peaks[1] < 1.35 * peaks[0], peaks
    assert peaks[1] < 1_500_000_000, peaks
