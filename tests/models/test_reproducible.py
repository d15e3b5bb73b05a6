"""The same seed, code and data give the same artifact in another process, for every engine that learns from feature rows."""

import json
import subprocess
import sys

from tests.models.panels import FEATURES, panel
from tidemill.models.base import EngineInfo
from tidemill.models.registry import engine, engines

QUICK = {
    "lightgbm": {"trees": 10},
    "transformer": {"minimum_steps": 2, "maximum_steps": 3},
    "gru": {"minimum_steps": 2, "maximum_steps": 3},
}
CODE = """
import json, sys
from tests.models.test_reproducible import hashes
print(json.dumps(hashes()))
"""


def learns_from_these_rows(info: EngineInfo) -> bool:
    return info.kind != "ensemble" and (not info.needs or any(set(need) <= set(FEATURES) for need in info.needs))


def hashes() -> dict[str, str]:
    rows = panel(5, 90, skill=0.3)
    names = [one.info.name for one in engines() if learns_from_these_rows(one.info)]
    return {name: engine(name).fit(rows, features=FEATURES, params=QUICK.get(name, {}), seed=7).hash for name in names}


def test_a_fresh_process_makes_the_same_artifacts() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", CODE], capture_output=True, text=True, check=True)
    here = hashes()
    assert {"momentum", "ridge", "lightgbm", "transformer", "gru"} <= set(here)
    assert json.loads(done.stdout) == here
