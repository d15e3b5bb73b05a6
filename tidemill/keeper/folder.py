"""Where the embedded servers of a home live, and the files through which commands and keeper talk.

<home>/servers/            as root: a link to /var/lib/tidemill/<hash of home>/, because Postgres may not run as root
    holders.lock           every command that uses the servers holds a shared lock
    keeper.lock            the keeper holds it exclusively from its first moment to its last
    postgres.lock, redis.lock   inherited by the servers' processes: held means that one of them still lives
    state.json             who runs, on which port; replaced atomically
    credentials.json       generated passwords (0600)
    postgres.wanted, redis.wanted   a command asks a running keeper for this server
    postgres/, redis/      the servers' own folders
"""

import fcntl
import os
from pathlib import Path
from typing import TypeVar

import msgspec

from tidemill.domain.errors import ConfigError
from tidemill.durable import sweep, write_file
from tidemill.keeper.failures import explained
from tidemill.keeper.processes import Process, open_lock

T = TypeVar("T", bound=msgspec.Struct)

SYSTEM_FOLDER = Path("/var/lib/tidemill")
_OWNER = 0o600  # nobody else may read it
SERVERS = ("postgres", "redis")


class Running(msgspec.Struct, frozen=True):
    """One server that accepts connections on 127.0.0.1."""

    process: Process
    port: int


class KeeperState(msgspec.Struct, frozen=True, kw_only=True):
    """What the keeper says of itself and its servers.

    lock: device and inode of holders.lock, so that a copied folder does not pass for the one it was copied from.
    ports: where servers listen or listened last, to be used again.
    refused: how often a server that was asked for could not be started; refusal: why not, the last time.
    """

    lock: tuple[int, int]
    keeper: Process
    running: dict[str, Running] = {}
    ports: dict[str, int] = {}
    refused: int = 0
    refusal: str = ""


class Credentials(msgspec.Struct, frozen=True):
    postgres: str
    redis: str


class Folder:
    """The `servers` folder of one home."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.holders = root / "holders.lock"
        self.keeper = root / "keeper.lock"

    def lock_of(self, server: str) -> Path:
        return self.root / f"{server}.lock"

    def data_of(self, server: str) -> Path:
        return self.root / server

    def log_of(self, name: str) -> Path:
        return self.root / f"{name}.log"

    def wanted(self, server: str) -> Path:
        return self.root / f"{server}.wanted"

    def want(self, server: str) -> None:
        os.close(open_lock(self.wanted(server)))

    def state(self) -> KeeperState | None:
        """What the last keeper wrote; None when there is none or it was damaged (it is only a hint: locks and pids decide)."""
        return _read(self.root / "state.json", KeeperState)

    def write_state(self, state: KeeperState) -> None:
        write_file(self.root / "state.json", msgspec.json.encode(state), mode=_OWNER)
        sweep(self.root)

    def credentials(self) -> Credentials | None:
        return _read(self.root / "credentials.json", Credentials)

    def new_credentials(self) -> Credentials:
        import secrets

        made = Credentials(postgres=secrets.token_urlsafe(24), redis=secrets.token_urlsafe(24))
        write_file(self.root / "credentials.json", msgspec.json.encode(made), mode=_OWNER)
        return made


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def locate(home: Path) -> Folder:
    """The servers' folder of a home, made if there is none.

    Raises StopError when it cannot be made, ConfigError when it belongs to another user or to another home.
    """
    with explained(home):
        link = home / "servers"
        if os.geteuid() == 0:
            return Folder(_as_root(home, link))
        home.mkdir(parents=True, exist_ok=True)
        link.mkdir(mode=0o700, exist_ok=True)
        if link.is_symlink() or link.stat().st_uid != os.geteuid():
            raise ConfigError(
                f"The database of {home} belongs to another user. Run as that user, or set TIDEMILL_HOME to another folder."
            )
        return Folder(link.resolve())


def existing(home: Path) -> Folder | None:
    """The servers' folder of a home if it exists; makes nothing."""
    link = home / "servers"
    return Folder(link.resolve()) if link.is_dir() else None


def _as_root(home: Path, link: Path) -> Path:
    if not link.is_symlink():
        if link.exists():
            raise ConfigError(
                f"The database of {home} belongs to another user. Run as that user, or set TIDEMILL_HOME to another folder."
            )
        _link_new_folder(home, link)
    root = link.resolve()
    if not root.is_dir():
        raise ConfigError(
            f"The database of {home} was in {root}, which is gone. "
            f"Restore it, or remove the link {link} to start with an empty one."
        )
    _own(home, link, root)
    return root


def _link_new_folder(home: Path, link: Path) -> None:
    """Make the folder outside the home and link to it.

    What is there under the name already stays where it is: the home that it was made for may only have been moved away, and its
    link still leads there.
    """
    import hashlib
    import secrets

    home.mkdir(parents=True, exist_ok=True)
    SYSTEM_FOLDER.mkdir(parents=True, exist_ok=True)
    SYSTEM_FOLDER.chmod(0o755)  # the servers' user passes through it; a strict umask would have closed it
    lock = open_lock(SYSTEM_FOLDER / "new.lock")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if link.is_symlink():
            return
        root = SYSTEM_FOLDER / hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
        if root.exists():
            root = root.with_name(f"{root.name}-{secrets.token_hex(3)}")
        root.mkdir()
        root.chmod(0o711)
        write_file(root / "home", os.fsencode(home), mode=_OWNER)
        os.symlink(root, link)
    finally:
        os.close(lock)


def is_linked(root: Path) -> bool:
    """Whether the home that a folder below /var/lib/tidemill was made for still leads to it."""
    home = home_of(root)
    return home is not None and (home / "servers").resolve() == root


def home_of(root: Path) -> Path | None:
    """The home that a folder below /var/lib/tidemill was made for, or came along with last; None where nothing says so."""
    try:
        return Path(os.fsdecode((root / "home").read_bytes()))
    except FileNotFoundError:
        return None


def _own(home: Path, link: Path, root: Path) -> None:
    """A home that was moved takes its folder along; a copy of a home may not share the original's database."""
    owner = Path(os.fsdecode((root / "home").read_bytes()))
    if owner == home:
        return
    if is_linked(root) and not owner.samefile(home):
        raise ConfigError(
            f"{home} is a copy of {owner} and would share its database. Remove the link {link} to start with an empty one."
        )
    write_file(root / "home", os.fsencode(home), mode=_OWNER)
