"""The table of the strategies that ship, and what of their source decides their version."""

import subprocess
import sys
from pathlib import Path

import pytest

from tidemill import strategies
from tidemill.provenance import source_modules
from tidemill.strategies.base import Strategy
from tidemill.strategies.registry import SHIPPED, SHIPPED_STRATEGIES, strategy


@pytest.mark.parametrize("name", SHIPPED)
def test_a_strategy_that_ships_bears_the_name_it_is_listed_under(name: str) -> None:
    found = strategy(name)
    assert isinstance(found, Strategy)
    assert found.name == name


@pytest.mark.parametrize("name", SHIPPED)
def test_naming_a_strategy_loads_it_alone_and_nothing_heavy(name: str) -> None:
    code = (
        f"import sys; from tidemill.strategies.registry import strategy; strategy({name!r}).parse({{}}); "
        "print({'numba', 'polars', 'numpy'} & set(sys.modules), len(set(sys.argv[1:]) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, *SHIPPED.values()], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()", "1"]


def test_every_module_that_holds_a_strategy_is_listed() -> None:
    folder = Path(strategies.__file__).parent
    holding = {f"tidemill.strategies.{path.stem}" for path in folder.glob("*.py") if "\nSTRATEGY = " in path.read_text("utf-8")}
    assert holding == set(SHIPPED.values())


def test_each_strategy_has_a_version_of_its_own_that_counts_what_it_is_made_with() -> None:
    assert len({SHIPPED_STRATEGIES.code_version(name) for name in SHIPPED}) == len(SHIPPED)
    assert {"tidemill.strategies.sizing", "tidemill.strategies.optimise"} <= set(source_modules(SHIPPED["mean_variance"]))
