"""Real processes under real wardens."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from tidemill.domain.errors import StopError
from tidemill.processes import warden
from tidemill.processes.supervisor import Backoff, Service, StopRequested, Supervisor

# A service with a child in a session of its own, as Jupyter's kernels are, which ignores SIGTERM.
FAMILY = """
import subprocess, sys, time, pathlib
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
kernel = subprocess.Popen([sys.executable, "-c", child], start_new_session=True, stdout=subprocess.PIPE)
kernel.stdout.readline()
pathlib.Path(sys.argv[1]).write_text(str(kernel.pid))
time.sleep(600)
"""


def until(true: object, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.02)


def service(tmp_path: Path, code: str, *arguments: str, **options: object) -> Service:
    command = [sys.executable, "-c", code, *arguments]
    return Service(name="one", command=command, log=tmp_path / "one.log", ready=lambda: True, grace=0.5, **options)  # type: ignore[arg-type]


def pid_in(file: Path) -> int:
    until(lambda: file.exists() and file.read_text())
    return int(file.read_text())


def test_nothing_of_a_service_outlives_the_end_of_the_block(tmp_path: Path) -> None:
    with Supervisor([service(tmp_path, FAMILY, str(tmp_path / "pid"))], print) as supervisor:
        kernel = pid_in(tmp_path / "pid")
        running = warden.descendants(supervisor.pids()["one"])
        assert kernel in running
    assert [pid for pid in running if psutil.pid_exists(pid)] == []


def test_nothing_of_a_service_outlives_an_owner_that_is_killed(tmp_path: Path) -> None:
    owner_code = f"""
import sys, time
from pathlib import Path
from tidemill.processes.supervisor import Service, Supervisor
command = [sys.executable, "-c", {FAMILY!r}, sys.argv[1]]
one = Service(name="one", command=command, log=Path(sys.argv[1] + ".log"), ready=lambda: True, grace=0.5)
with Supervisor([one], print):
    time.sleep(600)
"""
    owner = subprocess.Popen([sys.executable, "-c", owner_code, str(tmp_path / "pid")])
    kernel = pid_in(tmp_path / "pid")
    tree = warden.descendants(owner.pid)
    assert kernel in tree
    owner.kill()
    owner.wait()
    until(lambda: not any(psutil.pid_exists(pid) for pid in tree))


def test_a_service_does_not_outlive_its_warden(tmp_path: Path) -> None:
    with Supervisor([service(tmp_path, "import time; time.sleep(600)")], print) as supervisor:
        one = supervisor.pids()["one"]
        until(lambda: warden.descendants(one))
        (child,) = warden.descendants(one)
        os.kill(one, signal.SIGKILL)
        until(lambda: not psutil.pid_exists(child))


@pytest.mark.skipif(sys.platform != "linux", reason="a process dies with its parent on Linux alone")
def test_a_service_whose_warden_died_while_it_was_started_ends_itself() -> None:
    alive = subprocess.run(
        [sys.executable, "-c", "from tidemill.processes import warden; warden._die_with(1, lambda *_: 0)"], check=False
    )
    assert alive.returncode == -signal.SIGKILL


def test_what_dies_is_told_and_started_again(tmp_path: Path) -> None:
    marker = tmp_path / "count"
    code = "import sys; open(sys.argv[1], 'a').write('x'); print('my last words'); sys.exit(3)"
    told: list[str] = []
    with Supervisor([service(tmp_path, code, str(marker))], told.append, Backoff(first=0.01, tries=3)) as supervisor:
        with pytest.raises(StopError, match=r"one ended with code 3, 4 times in a row.*my last words") as caught:
            until(lambda: supervisor.look())
        assert str(tmp_path / "one.log") in str(caught.value)
    assert marker.read_text() == "xxxx"
    assert len(told) == 3
    assert "starting it again" in told[0]


def test_a_service_that_never_answers_is_told(tmp_path: Path) -> None:
    silent = Service(
        name="silent",
        command=[sys.executable, "-c", "import time; time.sleep(600)"],
        log=tmp_path / "log",
        ready=lambda: False,
        seconds=0.1,
    )
    with (
        pytest.raises(StopError, match="silent did not answer within 0 s"),
        Supervisor([silent], print, Backoff(tries=0)) as supervisor,
    ):
        until(lambda: supervisor.look())


def test_pauses_double_up_to_a_bound_and_begin_again_after_a_healthy_time(tmp_path: Path) -> None:
    backoff = Backoff(first=1.0, most=5.0)
    assert [backoff.pause(failures) for failures in (1, 2, 3, 4, 9)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    now = [0.0]
    told: list[str] = []
    with Supervisor(
        [service(tmp_path, "")], told.append, Backoff(first=0, tries=1, healthy=60), clock=lambda: now[0]
    ) as supervisor:
        for round_ in range(1, 4):
            until(lambda round_=round_: (supervisor.look(), len(told) == round_)[1])
            now[0] += 1_000
            supervisor.look()  # starts it again
            now[0] += 61


def test_a_large_log_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "one.log").write_bytes(b"x" * 5_000_000)
    with Supervisor([service(tmp_path, "print('new')")], print):
        until(lambda: (tmp_path / "one.log").exists() and b"new" in (tmp_path / "one.log").read_bytes())
    assert (tmp_path / "one.1.log").stat().st_size == 5_000_000


def test_signals_are_noted_and_the_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequested() as stop:
        assert not stop.received
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received
    assert signal.getsignal(signal.SIGTERM) is before
