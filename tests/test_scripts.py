"""The scripts that people and CI call. What takes minutes is marked long."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

PROJECT = Path(__file__).resolve().parent.parent
SCRIPTS = ("run", "up", "test", "check")


def load_setup(project: Path) -> ModuleType:
    """scripts/setup.py as if it lay in `project`."""
    spec = importlib.util.spec_from_file_location("setup_script", PROJECT / "scripts" / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.PROJECT, module.FINAL, module.PARTIAL = project, project / ".venv", project / ".venv.partial"  # type: ignore[attr-defined]
    return module


class Project:
    """A folder with what decides a set-up, and a set-up whose steps only leave traces."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "constraints").mkdir()
        (folder / "constraints" / "linux-py311.txt").write_text("a==1\n")
        (folder / "pyproject.toml").write_bytes((PROJECT / "pyproject.toml").read_bytes())
        self.steps: list[str] = []
        self.fails_at = ""
        self.setup = load_setup(folder)
        self.setup.call = self.call  # type: ignore[attr-defined]

    def call(self, step: str, *command: str | Path) -> None:
        self.steps.append(step)
        if "venv" in command:
            binaries = self.folder / ".venv.partial" / "bin"
            binaries.mkdir(parents=True)
            (binaries / "python").symlink_to(sys.executable)
            (binaries / "tool").write_text(f"#!{binaries / 'python'}\nprint('made')\n")
            (binaries / "program").write_bytes(b"\0" + bytes(binaries))
        if step == self.fails_at:
            raise self.setup.SetupError(f"{step} failed.")

    def make(self, kind: str) -> int:
        """Set up; forgets the steps of before."""
        self.steps.clear()
        return int(self.setup.main(kind))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_a_second_set_up_does_no_work(project: Project) -> None:
    assert project.make("run") == 0
    assert [step.split()[0] for step in project.steps] == ["Making", *["Installing"] * 3, "Checking", "Compiling"]
    assert project.make("run") == 0
    assert project.steps == []


def test_the_environment_works_under_its_final_name(project: Project) -> None:
    project.make("run")
    tool = project.folder / ".venv" / "bin" / "tool"
    assert tool.read_text().splitlines()[0] == f"#!{project.folder / '.venv' / 'bin' / 'python'}"
    assert b".venv.partial" in (tool.parent / "program").read_bytes()  # a program is left as it is
    assert not (project.folder / ".venv.partial").exists()


def test_development_dependencies_are_added_to_a_whole_environment(project: Project) -> None:
    project.make("run")
    project.make("test")
    assert "Making the environment" not in project.steps
    assert "Installing the dependencies" in project.steps
    assert project.make("run") == 0
    assert project.make("test") == 0
    assert project.steps == []


def test_an_environment_with_development_dependencies_serves_both(project: Project) -> None:
    project.make("test")
    project.make("run")
    assert project.steps == []


@pytest.mark.parametrize("damage", ["no stamp", "other constraints", "other dependencies", "no python", "moved"])
def test_a_broken_or_outdated_environment_is_made_anew(
    project: Project, damage: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    project.make("run")
    venv = project.folder / ".venv"
    if damage == "no stamp":
        (venv / "stamp-run").unlink()
    elif damage == "other constraints":
        (project.folder / "constraints" / "linux-py311.txt").write_text("a==2\n")
    elif damage == "other dependencies":
        changed = (project.folder / "pyproject.toml").read_text().replace('"stamina"', '"stamina>1"')
        (project.folder / "pyproject.toml").write_text(changed)
    elif damage == "no python":
        (venv / "bin" / "python").unlink()
    else:
        elsewhere = tmp_path_factory.mktemp("moved") / "project"
        project.folder.rename(elsewhere)
        project.__dict__.update(folder=elsewhere, setup=load_setup(elsewhere))
        project.setup.call = project.call  # type: ignore[attr-defined]
    assert project.make("run") == 0
    assert "Making the environment" in project.steps
    assert project.make("run") == 0
    assert project.steps == []


def test_a_tool_setting_in_pyproject_is_no_reason_to_install_again(project: Project) -> None:
    project.make("run")
    with (project.folder / "pyproject.toml").open("a") as file:
        file.write("\n[tool.new]\nx = 1\n")
    project.make("run")
    assert project.steps == []


def test_a_failed_set_up_keeps_the_old_environment_and_is_tried_again(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.make("run")
    (project.folder / "constraints" / "linux-py311.txt").write_text("a==2\n")
    project.fails_at = "Installing the dependencies"
    assert project.make("run") == 1
    assert "Installing the dependencies failed." in capsys.readouterr().err
    assert (project.folder / ".venv" / "bin" / "tool").exists()
    project.fails_at = ""
    assert project.make("run") == 0
    assert "Making the environment" in project.steps


def test_two_set_ups_at_once_make_one_environment(project: Project) -> None:
    with project.setup.alone():
        threads = [threading.Thread(target=project.setup.main, args=("run",)) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert project.steps == []
    for thread in threads:
        thread.join(20)
    assert project.steps.count("Making the environment") == 1


def test_torch_alone_comes_from_the_index_that_is_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(project.setup, "call", lambda _step, *command: commands.append([str(part) for part in command]))
    monkeypatch.setenv("TIDEMILL_TORCH_INDEX", "https://torch.example/cpu")
    project.setup.install(Path("python"), "run")
    torch, *rest = commands
    assert torch[-1] == "torch"
    assert "https://torch.example/cpu" in torch
    assert not [command for command in rest if "https://torch.example/cpu" in command]


def test_what_the_system_lacks_is_said_with_the_name_of_the_package(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project.setup, "_loads", lambda _library: False)
    with pytest.raises(project.setup.SetupError, match="package libgomp1"):
        project.setup.check_system()
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(project.setup.SetupError, match="package python3-venv"):
        project.setup.check_system()
    monkeypatch.setattr(project.setup.sys, "version_info", (3, 10, 1))
    with pytest.raises(project.setup.SetupError, match=r"needs Python 3\.11"):
        project.setup.check_python()


def test_pip_chooses_where_no_versions_are_committed(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    (project.folder / "constraints" / "linux-py311.txt").unlink()
    assert project.make("run") == 0
    assert [step.split()[0] for step in project.steps] == ["Making", "Installing", "Compiling"]
    assert "no committed versions" in capsys.readouterr().err


def test_a_failed_step_shows_the_last_lines_of_its_output(tmp_path: Path) -> None:
    setup = load_setup(tmp_path)
    with pytest.raises(setup.SetupError, match=r"(?s)Step failed.*no space left"):
        setup.call("Step", sys.executable, "-c", "print('no space left'); raise SystemExit(1)")


def run(*command: str | Path, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_says_which_package_brings_python(name: str, tmp_path: Path) -> None:
    (tmp_path / "dirname").symlink_to("/usr/bin/dirname")
    done = subprocess.run(
        ["/bin/sh", PROJECT / "scripts" / name],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "Python 3.11 is missing. Install the Debian packages python3 and python3-venv.\n"


def test_scripts_can_be_started_and_are_what_ci_and_the_readme_call() -> None:
    for path in [*(PROJECT / "scripts" / name for name in SCRIPTS), PROJECT / ".ci" / "run"]:
        assert os.access(path, os.X_OK), path
        assert subprocess.run(["/bin/sh", "-n", path], check=False).returncode == 0
    assert "scripts/test" in (PROJECT / ".ci" / "run").read_text()
    assert set(SCRIPTS) <= set(re.findall(r"scripts/(\w+)", (PROJECT / "README.md").read_text()))


def test_every_dependency_has_a_committed_version_and_none_is_of_this_machine() -> None:
    files = sorted((PROJECT / "constraints").glob("linux-py311*.txt"))
    lines = [line for file in files for line in file.read_text().splitlines()]
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    frozen = {name.lower().replace("_", "-") for name in pins}
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    names = [*declared["dependencies"], *declared["optional-dependencies"]["dev"]]
    assert {re.split(r"[\[<>=]", name)[0].lower().replace("_", "-") for name in names} <= frozen
    assert pins["torch"] == "2.13.0"
    assert not [line for line in lines if "+" in line or "://" in line or line.lower().startswith("tidemill")]


@pytest.mark.long
@pytest.mark.timeout(2_400)
def test_a_clone_is_set_up_after_a_set_up_that_was_killed(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", PROJECT, clone], check=True)
    command = [sys.executable, "-E", "scripts/setup.py", "run"]
    killed = subprocess.Popen(command, cwd=clone, start_new_session=True)
    while not (clone / ".venv.partial" / "bin" / "pip").exists():
        time.sleep(0.1)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (clone / ".venv").exists()
    subprocess.run(command, cwd=clone, check=True)
    helped = subprocess.run(
        [clone / ".venv" / "bin" / "tidemill", "--help"], cwd=clone, capture_output=True, text=True, check=True
    )
    assert "Usage: tidemill" in helped.stdout
    checked = subprocess.run(
        [clone / ".venv" / "bin" / "python", "-m", "pip", "check"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout
    began = time.monotonic()
    subprocess.run(command, cwd=clone, check=True)
    assert time.monotonic() - began < 10  # minutes when it works again; no fine measure
