"""The notebooks that ship: how they are stored, that they run on real results, and what one says where there are none."""

import ast
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.e2e.conftest import NOTEBOOK, TIDEMILL, Home
from tidemill.config import Settings
from tidemill.embedded import stop

Notebook = Any  # nbformat has no types


NOTEBOOKS = {path.stem: path for path in sorted(NOTEBOOK.parent.glob("*.ipynb"))}


def execute(
    output: Path, variables: dict[str, str], source: Path = NOTEBOOK, **parameters: str
) -> "subprocess.CompletedProcess[str]":
    """papermill in a process of its own, from a folder that is not the repository."""
    command = [sys.executable, "-m", "papermill", str(source), str(output), "--cwd", str(output.parent), "--no-progress-bar"]
    for name, value in parameters.items():
        command += ["-p", name, value]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=240, check=False)


def outputs(notebook: Notebook) -> Iterator[Any]:
    for cell in notebook.cells:
        yield from cell.get("outputs", ())


def pictures(notebook: Notebook) -> int:
    return sum("image/png" in output.get("data", {}) for output in outputs(notebook))


def printed(notebook: Notebook) -> str:
    return "".join(output.get("text", "") for output in outputs(notebook))


def shown(notebook: Notebook) -> str:
    kinds = ("text/html", "text/plain")
    return "".join(str(output.get("data", {}).get(kind, "")) for output in outputs(notebook) for kind in kinds)


@pytest.fixture(params=NOTEBOOKS)
def stored(request: pytest.FixtureRequest) -> Notebook:
    return nbformat.read(NOTEBOOKS[request.param], as_version=4)


def test_they_are_stored_without_outputs(stored: Notebook) -> None:
    nbformat.validate(stored)
    assert list(outputs(stored)) == []
    assert {cell.execution_count for cell in stored.cells if cell.cell_type == "code"} == {None}
    assert stored.cells[1].metadata.tags == ["parameters"]


def test_they_import_the_lab_alone_and_define_nothing(stored: Notebook) -> None:
    # A cell that writes a file holds that file, not the notebook's own code.
    code = [cell.source for cell in stored.cells if cell.cell_type == "code" and not cell.source.startswith("%%writefile")]
    tree = ast.parse("\n".join(code))
    imports = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports == ["from tidemill import lab"]
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda)]


@pytest.mark.parametrize(
    ("name", "drawn", "words"),
    [
        ("explore_data", 2, ("AAA", "without_trade", "first_factor", "change")),
        ("compare_engines", 2, ("deflated_sharpe", "ridge", "momentum", "counted_at")),
        ("read_session", 1, ("hours_behind", "wanted_at", "quantity", "exit_time", "population_stability_index")),
    ],
)
def test_each_runs_on_the_results_of_an_experiment_file(
    name: str, drawn: int, words: tuple[str, ...], home: Home, tmp_path: Path
) -> None:
    done = execute(tmp_path / "out.ipynb", home.variables(), NOTEBOOKS[name], experiment=str(home.file))
    assert done.returncode == 0, done.stderr[-2000:]
    made = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert pictures(made) == drawn
    for word in words:
        assert word in shown(made), word


def test_what_looks_ahead_is_refuted_and_what_does_not_is_proven(home: Home, tmp_path: Path) -> None:
    done = execute(tmp_path / "out.ipynb", home.variables(), NOTEBOOKS["build_a_feature"], experiment=str(home.file))
    assert done.returncode == 0, done.stderr[-2000:]
    made = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    proofs = shown(made).split("Proof(")[1:]
    assert pictures(made) == 2
    assert "proven=('distance_20',)" in proofs[0]
    assert "feature='cheapness'" in proofs[-1]


@pytest.mark.long  # that it runs, and shows its sentence and pictures, is seen in tests/e2e/test_web_ui.py
def test_it_runs_on_the_results_of_an_experiment_file(home: Home, tmp_path: Path) -> None:
    done = execute(tmp_path / "out.ipynb", home.variables(), experiment=str(home.file))
    assert done.returncode == 0, done.stderr[-2000:]
    made = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert "After all costs the ensemble portfolio" in printed(made)
    assert pictures(made) == 5
    for word in ("sharpe_gross", "ridge", "AAA", "rsi_14", "total_return", "trades"):
        assert word in shown(made), word


def test_where_there_is_no_result_it_says_to_run_the_experiment(new_database_home: Callable[[], Home], tmp_path: Path) -> None:
    empty = new_database_home()
    done = execute(tmp_path / "out.ipynb", empty.variables(), experiment=str(empty.file))
    assert done.returncode != 0
    assert "InputError: The experiment 'small' has no result yet. Run it: `tidemill run" in done.stderr


@pytest.mark.long
def test_it_runs_as_it_is_stored_on_the_sample(new_home: Callable[..., Settings], tmp_path: Path) -> None:
    """The two commands of a person: `tidemill run`, then the notebook, with embedded servers that each starts."""
    settings = new_home()
    variables = {**os.environ, "TIDEMILL_HOME": str(settings.home)}
    run, again = (
        subprocess.run([str(TIDEMILL), "run"], env=variables, capture_output=True, text=True, timeout=280, check=False)
        for _ in range(2)
    )
    assert run.returncode == 0, run.stderr
    assert again.stderr == ""  # nothing is told of the way in which a run with nothing to do ends
    assert "0 of 19 steps had work to do" in again.stdout
    done = execute(tmp_path / "out.ipynb", variables)
    assert done.returncode == 0, done.stderr[-2000:]
    made = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert pictures(made) == 5
    assert "AAPL" in shown(made)
    assert stop(settings)
