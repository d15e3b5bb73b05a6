"""Engines of one's own modules in the asset graph of a process that serves it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from definitions import asset_selection
from tests.user_modules.conftest import example
from tidemill.domain.errors import InputError
from tidemill.domain.experiment import DatasetSpec, EngineSpec, Experiment

PROJECT = Path(__file__).resolve().parents[2]
KEYS = """
import json, sys
import definitions
from dagster import Definitions
Definitions.validate_loadable(definitions.defs)
json.dump(sorted(key.to_user_string() for key in definitions.defs.resolve_all_asset_keys()), sys.stdout)
"""


def said(code: str, modules: str) -> tuple[str, str]:
    """Output and errors of a process of its own with these modules in its settings."""
    environment = {**os.environ, "TIDEMILL_MODULES": modules}
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True, cwd=PROJECT, env=environment)
    return done.stdout, done.stderr


def test_engines_of_modules_in_the_settings_stand_in_the_graph_and_a_broken_file_stops_nothing(tmp_path: Path) -> None:
    mine, broken = tmp_path / "mine.py", tmp_path / "broken.py"
    mine.write_text(example())
    broken.write_text("engine('mine', close +)\n")
    out, errors = said(KEYS, f"{broken}:{mine}")
    keys = json.loads(out)
    assert {"models/my_engine", "models/ridge", "models/ensemble"} <= set(keys)
    assert "The module broken.py is not valid Python" in errors


def test_a_graph_without_the_engine_of_an_experiment_says_how_to_get_it() -> None:
    strange = Experiment(name="x", dataset=DatasetSpec(), engines=(EngineSpec(name="my_engine"),))
    with pytest.raises(InputError) as raised:
        asset_selection(strange)
    assert str(raised.value).startswith(
        "The asset graph of this process does not have the engine my_engine. Name its file under `modules`"
    )
