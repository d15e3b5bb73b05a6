"""A process that counts what it writes and is killed at one of these writes: SIGKILL, so that nothing of it has a say in it.

A write is what another process sees at once: a rename inside the home, a file that is opened to be written where it stays,
and a commit in Postgres that changed a table. It is patched at `os` and at asyncpg, below everything of ours.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec

from tests.faults.running import table_of

_CHANGES = re.compile(r"(?:INSERT\s+INTO|DELETE\s+FROM|UPDATE)\s+(?:ONLY\s+)?\"?([a-z_]+)", re.IGNORECASE)
_OF_TABLE = re.compile(r"^(?:staged_)?([a-z_]+?)(?:_\d{4}_\d{2})?$")
_READS = ("SELECT", "BEGIN", "ROLLBACK", "SET", "SHOW")


When = Literal["before", "after", "torn"]


class Write(msgspec.Struct, frozen=True):
    """One write of a process: what it belongs to (lake/labels, models/index, postgres/signals, …), the how manieth of that, and
    which file.
    """

    table: str
    number: int
    path: str = ""


class Kill(msgspec.Struct, frozen=True):
    """When to die: before or after the write took effect; torn: the file that is written in place exists and is empty."""

    write: Write
    when: When


class Watch:
    """Counts the writes of this process into `home` and its database, and kills it at `kill`."""

    def __init__(self, home: Path, kill: Kill | None) -> None:
        self._home = f"{home}{os.sep}"
        self._kill = kill
        self._counts: Counter[str] = Counter()
        self._changed: dict[int, list[str]] = {}
        self._renamed: set[str] = set()
        self._opened: list[Write] = []
        self._writes: list[Write] = []

    def begin(self) -> None:
        os.replace, os.rename = self._renaming(os.replace), self._renaming(os.rename)
        sys.addaudithook(self._audit)
        self._watch_postgres()

    def writes(self) -> list[Write]:
        """In order; those into a file that was renamed afterwards are no writes of their own."""
        stay = [one for one in self._opened if not self._moved(one.path)]
        return [one for one in self._writes if one not in self._opened or one in stay]

    def _moved(self, path: str) -> bool:
        return any(path == source or path.startswith(f"{source}{os.sep}") for source in self._renamed)

    def _renaming(self, rename: Callable[..., None]) -> Callable[..., None]:
        def watched(source: Any, target: Any, **options: Any) -> None:
            path = os.fspath(target)
            write = None
            if isinstance(path, str) and path.startswith(self._home):
                self._renamed.add(os.fspath(source).removeprefix(self._home))
                own = path.removeprefix(self._home)
                write = self._next(table_of(own), own)
            self._die(write, "before")
            rename(source, target, **options)
            self._die(write, "after")

        return watched

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event != "open" or not isinstance(args[2], int) or not args[2] & (os.O_TRUNC | os.O_CREAT):
            return
        path = os.fspath(args[0]) if isinstance(args[0], str | os.PathLike) else ""
        if not path.startswith(self._home) or os.path.basename(path).startswith(".") or path.endswith(".lock"):
            return
        own = path.removeprefix(self._home)
        write = Write(f"{table_of(own)} in place", len(self._opened) + 1, own)
        self._opened.append(write)
        self._writes.append(write)
        if self._kill and self._kill.write.path == own and self._kill.when == "torn":
            self._kill = None
            Path(path).write_bytes(b"")
            os.kill(os.getpid(), signal.SIGKILL)

    def _watch_postgres(self) -> None:
        from asyncpg.connection import Connection

        for name in ("execute", "fetch", "fetchrow", "fetchval"):
            setattr(Connection, name, self._watched(getattr(Connection, name)))
        copy = Connection.copy_to_table

        async def copy_to_table(connection: Any, table: str, **options: Any) -> Any:
            self._note(connection, [table])
            return await copy(connection, table, **options)

        Connection.copy_to_table = copy_to_table

    def _watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        async def watched(connection: Any, query: str, *args: Any, **options: Any) -> Any:
            word = query.lstrip().upper().split(None, 1)[0].rstrip(";") if query.strip() else ""
            if word == "BEGIN":
                self._changed[id(connection)] = []
            self._note(connection, _CHANGES.findall(query))
            changed = self._changed.get(id(connection), [])
            commits = word == "COMMIT" or (word not in _READS and not connection.is_in_transaction())
            if not commits or not changed:
                return await call(connection, query, *args, **options)
            self._changed[id(connection)] = []
            write = self._next(f"postgres/{changed[0]}")
            self._die(write, "before")
            answer = await call(connection, query, *args, **options)
            self._die(write, "after")
            return answer

        return watched

    def _note(self, connection: Any, tables: list[str]) -> None:
        names = [found[1] for table in tables if (found := _OF_TABLE.match(table))]
        self._changed.setdefault(id(connection), []).extend(names)

    def _next(self, table: str, path: str = "") -> Write:
        self._counts[table] += 1
        write = Write(table, self._counts[table], path)
        self._writes.append(write)
        return write

    def _die(self, write: Write | None, when: str) -> None:
        kill = self._kill
        if write and kill and kill.when == when and (kill.write.table, kill.write.number) == (write.table, write.number):
            os.kill(os.getpid(), signal.SIGKILL)
