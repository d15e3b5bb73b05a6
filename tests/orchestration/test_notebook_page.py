"""Executed notebooks as pages: those of one folder, and nothing else of the machine."""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from starlette.applications import Starlette
from starlette.testclient import TestClient

from orchestration.notebook_page import address, route


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "notebooks"
    (made / "an experiment").mkdir(parents=True)
    (tmp_path / "secret.ipynb").write_text("{}")
    (made / "experiment.yaml").write_text("name: mine")
    return made


@pytest.fixture
def browser(folder: Path) -> TestClient:
    return TestClient(Starlette(routes=[route(folder)]))


def test_a_notebook_is_shown_and_what_its_cells_printed_runs_no_script(folder: Path, browser: TestClient) -> None:
    file = folder / "an experiment" / "results.ipynb"
    printed = new_output("display_data", data={"text/html": "<p>Sharpe ratio 1.2</p><script>steal()</script>"})
    nbformat.write(new_notebook(cells=[new_code_cell("show()", outputs=[printed])]), file)
    answer = browser.get(address(folder, file))
    assert answer.status_code == 200
    assert "Sharpe ratio 1.2" in answer.text
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")


@pytest.mark.parametrize("path", ["nothing.ipynb", "experiment.yaml", "..%2Fsecret.ipynb", "an%20experiment", "%00.ipynb", ""])
def test_what_is_no_notebook_of_the_folder_is_not_found(path: str, browser: TestClient) -> None:
    answer = browser.get(f"/notebooks/{path}")
    assert answer.status_code == 404
    assert "secret" not in answer.text
