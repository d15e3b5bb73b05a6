"""The bars of a dataset, and what is refused once they are known."""

from pathlib import Path

import polars as pl
import pytest

from tests.study.panels import small_experiment
from tidemill.domain.errors import UnknownNameError
from tidemill.steps.market_data.bars import sync_bars
from tidemill.study.sources import study_of
from tidemill.study.workspace import Workspace


@pytest.mark.parametrize("name", ["AAAA", "GONE"])
def test_a_benchmark_of_which_no_bar_is_tested_is_refused_before_anything_is_computed(
    workspace: Workspace, folder: Path, name: str
) -> None:
    file = folder / "base.parquet"
    bars = pl.read_parquet(file)
    early = bars.filter(pl.col("symbol") == "BBB").head(40).with_columns(symbol=pl.lit("GONE"))  # before the first test window
    pl.concat([bars, early]).write_parquet(file)
    study = study_of(workspace, small_experiment(folder, benchmark=name))
    with pytest.raises(UnknownNameError, match=rf"There is no benchmark named '{name}'\.") as said:
        sync_bars(study)
    assert ("Did you mean AAA" in str(said.value)) == (name == "AAAA")
    assert "Choose one of: equal_weight, AAA, BBB, " in str(said.value)
    assert not workspace.lake.datasets("features")
