"""The journal of a search: optuna's file of one JSON line for each operation, every line with a checksum of its own.

Lines depend on those before them, so a damaged one ends the journal. Lines of earlier versions carry no checksum and are read.
"""

import hashlib
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from tidemill.durable import damaged, write_file

_SUM = "sum"
_DIGITS = 16


class Journal(JournalFileBackend):
    """IntegrityError from `read_logs` where a line is not what was written. What a dead writer left of its last line goes."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._lock.acquire()
        try:
            _cut_half_line(path)
        finally:
            self._lock.release()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        super().append_logs([{**log, _SUM: _sum(log)} for log in logs])

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        try:
            for log in super().read_logs(log_number_from):
                if not _whole(log):
                    raise damaged(self._file_path)
                yield log
        except ValueError as exc:  # a line that is not JSON
            raise damaged(self._file_path) from exc


def damage(path: Path) -> int:
    """Bytes from the first damaged line to the end; 0 where all are whole."""
    return path.stat().st_size - _length(path)


def cut(path: Path) -> None:
    """Take the damaged lines off the end. What was told before is searched on from."""
    write_file(path, path.read_bytes()[: _length(path)])


def _cut_half_line(path: Path) -> None:
    """The next line would be glued to it."""
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        write_file(path, content[: content.rfind(b"\n") + 1])


def _length(path: Path) -> int:
    """Bytes of the lines that are whole, up to the first that is not."""
    size = 0
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n") or not _reads(line):
            break
        size += len(line)
    return size


def _reads(line: bytes) -> bool:
    try:
        log = json.loads(line)
    except ValueError:
        return False
    return isinstance(log, dict) and _whole(log)


def _whole(log: dict[str, Any]) -> bool:
    return _SUM not in log or log[_SUM] == _sum({name: value for name, value in log.items() if name != _SUM})


def _sum(log: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(log, sort_keys=True).encode()).hexdigest()[:_DIGITS]
