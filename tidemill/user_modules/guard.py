"""What code in the sandbox may not do: read or write files, reach the network, start processes, take all of the memory.

A guard against mistakes, not a wall against malice: it stands on Python's audit events and on limits of the process, and native
code of a library can go around it, but for the readers that `closing.py` knows. Files below the interpreter, its libraries and
the project may be read, since imports do.
"""

import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

from tidemill.provenance import ROOT
from tidemill.user_modules.execution import AccessRefusedError

_READABLE_FILES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random", "/etc/localtime", "/etc/timezone")
_READABLE_FOLDERS = (
    "/usr/share/zoneinfo",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/sys/devices",
    "/sys/fs",
)
_PROCESSES = ("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.startfile", "pty.", "os.kill")
_NETWORK = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethost", "socket.send", "urllib.", "http.client.",
            "ftplib.", "smtplib.", "imaplib.", "poplib.", "telnetlib.", "webbrowser.")  # fmt: skip
_CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown",
            "os.utime", "os.setxattr", "shutil.", "tempfile.", "sqlite3.connect", "dbm.")  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def limit_memory(mebibytes: int) -> None:
    """Bound the address space of this process; nothing where the system has no such limit."""
    if sys.platform.startswith("linux"):
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = mebibytes << 20
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def forbid_writing() -> None:
    """No regular file of this process can grow: this holds for native code as well. Nor does it leave a core behind."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _writes(mode: object, flags: object) -> bool:
    return bool(flags & _WRITING) if isinstance(flags, int) else any(letter in str(mode) for letter in "wax+")


def _refuse(event: str) -> None:
    """AccessRefusedError for an event that no module may cause, whatever it is about."""
    for beginnings, what in (
        (_PROCESSES, "start or signal a process"),
        (_NETWORK, "use the network"),
        (_CHANGES, "change files"),
    ):
        if event.startswith(beginnings):
            raise AccessRefusedError(f"wants to {what} ({event})")


def install(*own: Path) -> None:
    """From now on every refused access raises AccessRefusedError. own: files that may be read: the module, whose lines errors
    show, and its data files.
    """
    roots = {sys.prefix, sys.base_prefix, sys.exec_prefix, str(ROOT / "tidemill"), *_READABLE_FOLDERS}
    roots |= {os.path.dirname(os.__file__), *(entry for entry in sys.path if entry not in ("", "/", str(ROOT)))}
    folders = tuple(sorted({os.path.realpath(root) for root in roots} | roots))
    files = frozenset((*_READABLE_FILES, *map(str, own)))

    def readable(path: object) -> bool:
        if isinstance(path, int):
            return True
        text = os.path.abspath(os.fsdecode(path))  # type: ignore[arg-type]  # whatever `open` accepts
        return text in files or any(text == root or text.startswith(root + os.sep) for root in folders)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = args
            if (_writes(mode, flags) and not isinstance(path, int) and path != os.devnull) or not readable(path):
                raise AccessRefusedError(f"wants to open {os.fsdecode(path)!r}")
        elif event in ("os.listdir", "os.scandir"):
            if args and args[0] is not None and not readable(args[0]):
                raise AccessRefusedError(f"wants to list {args[0]!r}")
        else:
            _refuse(event)

    sys.addaudithook(hook)
