"""Who runs the servers, and programs that this account can execute."""

import fcntl
import os
import shutil
import stat
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

from tidemill.domain.errors import ConfigError
from tidemill.durable import settle
from tidemill.keeper.folder import SYSTEM_FOLDER
from tidemill.keeper.processes import open_lock

NOBODY = 65534
# Nothing of the caller's environment reaches the servers: no library path, no locale, no secret.
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


class Account(msgspec.Struct, frozen=True):
    """The user that owns the servers' data and runs them. `dropped`: we are root and become this user for them."""

    uid: int
    gid: int
    dropped: bool

    @classmethod
    def of_servers(cls) -> "Account":
        """This user, or nobody (65534) for root, as whom Postgres refuses to run."""
        if os.geteuid() == 0:
            return cls(NOBODY, NOBODY, True)
        return cls(os.geteuid(), os.getegid(), False)

    def _options(self, folder: Path = Path("/")) -> dict[str, Any]:
        shared: dict[str, Any] = {"cwd": folder, "env": _ENVIRONMENT, "umask": 0o077}
        return shared | ({"user": self.uid, "group": self.gid, "extra_groups": []} if self.dropped else {})

    def run(self, command: Sequence[str], text: str = "", timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run a program to its end as this account; `text` is its standard input. Both outputs are in `.stdout`."""
        return subprocess.run(
            command,
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
            **self._options(),
        )

    def start(
        self, command: Sequence[str], folder: Path, log: IO[bytes], keep: int, text: str = ""
    ) -> "subprocess.Popen[bytes]":
        """Start a server in its folder. It and its children inherit the descriptor `keep`; `text` is its standard input."""
        source, sink = os.pipe()
        try:
            os.write(sink, text.encode())
            os.close(sink)
            return subprocess.Popen(command, stdin=source, stdout=log, stderr=log, pass_fds=(keep,), **self._options(folder))
        finally:
            os.close(source)

    def own_folder(self, folder: Path) -> None:
        """Make a folder that this account alone can read."""
        folder.mkdir(mode=0o700, exist_ok=True)
        if self.dropped:
            os.chown(folder, self.uid, self.gid)

    def can_run(self, program: Path) -> bool:
        """Whether `program --version` works as this account; a program below /root does not for another user."""
        try:
            return self.run([str(program), "--version"], timeout=20.0).returncode == 0
        except (PermissionError, FileNotFoundError):
            return False


def reachable(account: Account, name: str, trees: Sequence[Path], program: Path) -> Path:
    """Path at which `account` can execute `program`: its own, or else one in a copy under /var/lib/tidemill.

    name: of the copy; it changes with the version. trees: what is copied, siblings of which one holds the program.
    Raises ConfigError when the copy cannot be run either.
    """
    if account.can_run(program):
        return program
    if not account.dropped:
        raise ConfigError(f"{program} cannot be executed. Remove .venv and run scripts/run again.")
    copy = SYSTEM_FOLDER / "programs" / name
    copied = copy / program.relative_to(trees[0].parent)
    lock = open_lock(SYSTEM_FOLDER / "programs.lock")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not account.can_run(copied):
            _copy(trees, copy)
    finally:
        os.close(lock)
    if not account.can_run(copied):
        raise ConfigError(
            f"{copied} cannot be executed by the user {account.uid}. Allow execution in {SYSTEM_FOLDER}, or do not run as root."
        )
    return copied


def _copy(trees: Sequence[Path], target: Path) -> None:
    """Copy sibling folders into `target`, which appears when it is whole."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(target, ignore_errors=True)
    for tree in trees:
        shutil.copytree(tree, partial / tree.name, ignore=shutil.ignore_patterns("include", "*.py", "*.pyc", "__pycache__"))
    _open_to_all([target.parent, partial, *partial.rglob("*")])
    settle(partial, target)


def _open_to_all(paths: Iterable[Path]) -> None:
    """Whatever the umask of who installed or copied them was: programs are no secret, and another user is to run them."""
    for path in paths:
        mode = path.stat().st_mode
        path.chmod(stat.S_IMODE(mode) | (0o555 if mode & 0o100 else 0o444))
