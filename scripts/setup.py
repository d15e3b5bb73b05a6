"""Makes `.venv`: whole or not at all, once for the same inputs, one set-up at a time. Standard library only.

`python3.11 scripts/setup.py run|test`: `test` adds the development dependencies. The environment is built in `.venv.partial`
and renamed when whole; a stamp in it names the inputs. An environment without the right stamp is broken, interrupted or out of
date, and is made anew while the old one stays in use until then.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess  # nosec B404  # venv and pip, as lists, no shell
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
FINAL, PARTIAL = PROJECT / ".venv", PROJECT / ".venv.partial"
PLATFORM = {"linux": "linux-py311", "darwin": "macos-py311"}


class SetupError(Exception):
    """Why there is no environment, in a sentence that says what to do."""


def versions(kind: str) -> list[Path]:
    """Files of the committed versions for this platform; none where nobody has frozen any yet."""
    names = ("", "-dev") if kind == "test" else ("",)
    paths = [PROJECT / "constraints" / f"{PLATFORM.get(sys.platform, sys.platform)}{name}.txt" for name in names]
    return [path for path in paths if path.is_file()]


def stamp(kind: str) -> str:
    """What the environment was made from: versions, dependencies, this script, the interpreter and the place."""
    import tomllib  # not in an older Python, which check_python tells apart from this

    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    inputs = {
        "kind": kind,
        "place": str(PROJECT),
        "python": [sys.version, os.path.realpath(sys.executable)],
        "versions": [path.read_text(encoding="utf-8") for path in versions(kind)],
        "project": [project[key] for key in ("dependencies", "optional-dependencies", "scripts", "entry-points")],
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def is_made(kind: str) -> bool:
    """Whether the environment is there, whole, and made from today's inputs."""
    mark = FINAL / f"stamp-{kind}"
    return mark.is_file() and mark.read_text(encoding="utf-8") == stamp(kind) and os.access(FINAL / "bin" / "python", os.X_OK)


def check_python() -> None:
    """Raise SetupError for another Python than ours."""
    if sys.version_info[:2] != (3, 11):
        raise SetupError(f"Tidemill needs Python 3.11 and this is {sys.version.split()[0]}. Install it, or name it in PYTHON.")


def check_system() -> None:
    """Raise SetupError for what pip cannot bring."""
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        raise SetupError(
            "Python's venv module is missing. Install the Debian package python3-venv (as root: apt install python3-venv)."
        ) from None
    if sys.platform == "linux" and not _loads("libgomp.so.1"):
        raise SetupError("The library libgomp.so.1 is missing, which LightGBM needs. Install the Debian package libgomp1.")


def _loads(library: str) -> bool:
    import ctypes

    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


@contextmanager
def alone() -> Iterator[None]:
    """Nobody else sets up this project meanwhile; the lock falls with the process, however that ends."""
    with (PROJECT / ".venv.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Waiting for another set-up of this folder …")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def call(step: str, *command: str | Path) -> None:
    """Run one step; its output goes to a log of which the last lines are shown when it fails."""
    log = PROJECT / ".venv.log"
    unwanted = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_TARGET", "PIP_USER")
    environment = {name: value for name, value in os.environ.items() if name not in unwanted}
    environment |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore", "PYTHONUNBUFFERED": "1"}
    with log.open("ab") as output:
        done = subprocess.run(  # nosec B603
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd=PROJECT,
            check=False,
        )
    if done.returncode != 0:
        last = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:])
        raise SetupError(f"{step} failed; all of its output is in {log}. Its last lines:\n{last}")


def install(python: Path, kind: str) -> None:
    """The committed versions as they stand, then the project. Without a search by pip it is faster, and the same everywhere."""
    files = versions(kind)
    pip: list[str | Path] = [python, "-m", "pip", "install"]
    if not files:
        say(f"There are no committed versions for {sys.platform}: pip chooses, which takes longer and was not tested.")
        call("Installing the dependencies", *pip, "-e", ".[dev]" if kind == "test" else ".")
        return
    listed = [part for path in files for part in ("-r", path)]
    # torch first, with all that its build asks for (one for GPUs brings libraries along), or from an index of its own.
    index = os.environ.get("TIDEMILL_TORCH_INDEX")
    build = ["--index-url", index, "--no-deps"] if index else []
    call("Installing torch", *pip, *build, "-c", files[0], "torch")
    call("Installing the dependencies", *pip, "--no-deps", *listed)
    call("Installing Tidemill", *pip, "--no-deps", "--no-build-isolation", "-e", ".")
    call("Checking that the dependencies fit together", python, "-m", "pip", "check")


def make(kind: str) -> None:
    """Build beside the old environment, then take its place."""
    say("Setting up Tidemill in .venv: some minutes and 2 GB, once.")
    for left in (PARTIAL, PROJECT / ".venv.old"):
        shutil.rmtree(left, ignore_errors=True)
    (PROJECT / ".venv.log").unlink(missing_ok=True)
    call("Making the environment", sys.executable, "-m", "venv", PARTIAL)
    install(PARTIAL / "bin" / "python", kind)
    relocate(PARTIAL, FINAL)
    for each in ("run", "test") if kind == "test" else ("run",):
        (PARTIAL / f"stamp-{each}").write_text(stamp(each), encoding="utf-8")
    if FINAL.exists():
        FINAL.rename(PROJECT / ".venv.old")
    PARTIAL.rename(FINAL)
    shutil.rmtree(PROJECT / ".venv.old", ignore_errors=True)


def relocate(built: Path, final: Path) -> None:
    """The scripts of an environment name its folder in their first line; make them name the one that it will have."""
    for script in (built / "bin").iterdir():
        if script.is_symlink() or not script.is_file():
            continue
        content = script.read_bytes()
        if bytes(built) in content and b"\0" not in content:
            script.write_bytes(content.replace(bytes(built), bytes(final)))


def add_development() -> None:
    """A running environment gets the development dependencies too: nothing in it changes, so it may be used meanwhile."""
    say("Adding the development dependencies to .venv, once.")
    install(FINAL / "bin" / "python", "test")
    (FINAL / "stamp-test").write_text(stamp("test"), encoding="utf-8")


def warm() -> None:
    """Compile the kernels now instead of in the first run. Without them everything works, only later."""
    try:
        call("Compiling the kernels", FINAL / "bin" / "python", "-m", "tidemill.maintenance.warm")
    except SetupError as exc:
        say(f"{exc}\nThe first run will compile them.")


def main(kind: str) -> int:
    try:
        check_python()
        if is_made(kind):
            return 0
        check_system()
        with alone():
            if is_made(kind):
                return 0
            if kind == "test" and is_made("run"):
                add_development()
            else:
                make(kind)
                warm()
    except (SetupError, OSError) as exc:
        say(str(exc))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
