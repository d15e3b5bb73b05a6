"""What the file system or a server says when it refuses, as one sentence that tells a person what to do."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tidemill.domain.errors import ConfigError, StopError, TidemillError, UnavailableError


@contextmanager
def explained(home: Path) -> Iterator[None]:
    """Turns what the file system refuses into one sentence that says what to do."""
    try:
        yield
    except OSError as exc:
        raise StopError(explanation(exc, home)) from exc


def explanation(exc: OSError, home: Path) -> str:
    """One sentence for a person about a file system error while the servers of `home` were handled."""
    path = exc.filename if isinstance(exc.filename, str) else str(home)
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(Path(path))
    if exc.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"{path} cannot be written ({os.strerror(exc.errno)}). Correct that, or use another TIDEMILL_HOME."
    return (
        f"The servers of {home} stumbled: {exc.strerror or exc}: {path}. Correct that, or set TIDEMILL_HOME to another folder."
    )


def disk_full(path: Path) -> str:
    return f"The disk that holds {path} is full. Free at least 200 MB there, or set TIDEMILL_HOME to a folder on another disk."


def require_space(folder: Path, megabytes: int) -> None:
    """StopError before Postgres finds out: it would stop in the middle of recovery, with a message for experts."""
    space = os.statvfs(folder)
    if space.f_bavail * space.f_frsize < megabytes * 1_000_000:
        raise StopError(disk_full(folder))


def failure(root: Path, output: str) -> TidemillError:
    """The error for what a server whose folder is in `root` wrote before it gave up."""
    if "No space left on device" in output:
        return StopError(disk_full(root))
    if "could not look up effective user ID" in output:
        return ConfigError(
            "Postgres runs only as a user that has a name. Give this one an entry in /etc/passwd, or set TIDEMILL_POSTGRES_DSN."
        )
    signs = ("FATAL", "PANIC", "ERROR", "error:", "Fatal", "Failed")
    lines = [line for line in output.splitlines() if any(sign in line for sign in signs)]
    reason = (lines or output.strip().splitlines() or ["it said nothing"])[-1].strip()
    return UnavailableError(
        f"A server of {root} did not start: {reason}. The logs are beside it; `tidemill doctor` looks further."
    )
