"""The cache of compiled functions follows the source, the helpers' included."""

import ast
import importlib
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from numba.core.registry import CPUDispatcher

from tidemill import compiled
from tidemill.backtest.warm import warm
from tidemill.compiled import entry, kernel
from tidemill.provenance import source_modules, source_version

PACKAGE = Path(compiled.__file__).parent


def compiled_functions() -> list[tuple[str, str, str]]:
    """(module, name, decorator) of every kernel and every entry, as the sources of the package have them."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                names = {one.id for one in node.decorator_list if isinstance(one, ast.Name)} & {"kernel", "entry"}
                found += [(module, node.name, name) for name in names]
    return found


def called_by(function: Any) -> set[Any]:
    """The compiled functions that a compiled function calls, and those that they call."""
    found, waiting = set(), [function]
    while waiting:
        code = waiting.pop().py_func
        for name in code.__code__.co_names:
            callee = code.__globals__.get(name)
            if isinstance(callee, CPUDispatcher) and callee not in found:
                found.add(callee)
                waiting.append(callee)
    return found


@kernel
def doubled(value: float) -> float:
    return 2.0 * value


@entry
def quadrupled(value: float) -> float:
    return doubled(doubled(value))


def test_an_entry_calls_kernels() -> None:
    assert quadrupled(1.5) == 6.0


def test_a_read_only_installation_compiles_without_a_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setattr(compiled, "_HERE", blocked)
    monkeypatch.setattr(Path, "home", lambda: blocked)

    @entry
    def tripled(value: float) -> float:
        return 3.0 * value

    assert tripled(2.0) == 6.0


def test_machine_code_goes_to_the_chosen_folder_and_nowhere_when_none_is_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "tidemill.features.kernels.execute"
    assert compiled._folder(str(tmp_path), module) == tmp_path / "kernels" / source_version(module)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(compiled, "_HERE", tmp_path / "file")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "file")
    assert compiled._folder("", module) is None


def test_the_source_of_every_kernel_that_an_entry_calls_decides_where_its_machine_code_lies() -> None:
    entries = [(module, name) for module, name, kind in compiled_functions() if kind == "entry"]
    for module, name in entries:
        counted = source_modules(module)
        for function in called_by(getattr(importlib.import_module(module), name)):
            assert function.__module__ in counted, f"{module}.{name} calls {function.__module__}.{function.__name__}"


def test_numbas_own_settings_are_left_as_they_were() -> None:
    code = """
        from numba import config
        before = config.CACHE_DIR
        import tidemill.backtest.scan
        assert config.CACHE_DIR == before
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_warming_up_can_be_done_twice_and_fills_the_cache() -> None:
    warm()
    warm()
    assert any(PACKAGE.joinpath("__pycache__", "kernels").rglob("scan.scan*.nbi"))


def test_no_compiled_function_that_python_calls_ends_the_process() -> None:
    functions = compiled_functions()
    assert len(functions) > 150
    command = [sys.executable, "-P", str(Path(__file__).with_name("every_kernel.py"))]
    done = subprocess.run(command, input=json.dumps(functions), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [name for name, _, _ in told] == [f"{module}.{name}" for module, name, _ in functions]
    for name, kind, outcome in told:
        if kind == "kernel":
            assert outcome.startswith(f"TypeError: {name} is a kernel, which compiled code alone can call."), outcome
        else:
            assert outcome != "called as []", f"{name} is an entry that tests/every_kernel.py does not call"


def test_after_set_up_the_first_step_of_a_session_compiles_nothing() -> None:
    command, project = [sys.executable, "-m", "tests.first_step"], Path(__file__).parents[1]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["stepped"] >= 12
    assert told["compiled"] == []


def test_one_pair_of_decorators_compiles_all_there_is() -> None:
    sources = [path for path in PACKAGE.rglob("*.py") if path != Path(compiled.__file__)]
    assert [path.name for path in sources if "njit" in path.read_text(encoding="utf-8")] == []
