"""What there is of features, what each means and looks like: also across symbols, of the calendar, regimes and the index."""

from pathlib import Path

import polars as pl
import pytest

from tests.cli.conftest import Tidemill
from tidemill.features.api import feature_set
from tidemill.features.declaration import shipped

# One of every kind; computing all of them belongs to the tests of features.
KINDS = ("KMID", "rsi_14", "cs_rank_roc_5", "weekday", "vol_ratio_10_60", "hmm_2_2")


def test_every_shipped_feature_has_a_formula_a_unit_a_source_and_a_sentence(tidemill: Tidemill) -> None:
    listed = {row["name"]: row for row in tidemill("features", "list", "--json").json}
    assert set(listed) == set(feature_set(*shipped().sets).names)
    for name, row in listed.items():
        assert row["formula"], name
        assert row["unit"], name
        assert row["about"], name
    for name in ("cross", "calendar", "regime", "fear_greed", "classic", "alpha158"):
        assert all(listed[single]["source"] for single in shipped().sets[name]), name
    assert listed["cs_rank_roc_5"]["cross_sectional"]
    assert not listed["rsi_14"]["cross_sectional"]


def test_an_explanation_names_the_source_also_for_other_numbers(tidemill: Tidemill) -> None:
    assert "Hamilton" in tidemill("features", "explain", "hmm_2_1").out
    assert "TA-Lib" in tidemill("features", "explain", "sma_77").out
    assert "other symbols of its time" in tidemill("features", "explain", "cs_zscore_roc_7").out


@pytest.mark.parametrize("name", KINDS)
def test_a_feature_is_plotted_in_the_terminal_on_the_sample(name: str, tidemill: Tidemill) -> None:
    lines = tidemill("features", "explain", name, "--plot").out.splitlines()
    (drawn,) = [line.removeprefix("plot").strip() for line in lines if line.startswith("plot")]
    assert len(drawn) == 60
    assert set(drawn) <= set(" ▁▂▃▄▅▆▇█")
    assert len(set(drawn)) > 2


def test_a_plot_is_written_as_a_picture_of_the_symbol_asked_for(panel_file: Path, tidemill: Tidemill) -> None:
    given = (
        "features",
        "explain",
        "cs_rank_roc_5",
        "--input",
        panel_file,
        "--symbol",
        "BBB",
        "--plot",
        "course.png",
        "--json",
    )
    answer = tidemill(*given).json
    assert answer["plot"] == "course.png"
    assert answer["symbol"] == "BBB"
    assert Path("course.png").read_bytes().startswith(b"\x89PNG")


def test_the_index_joins_bars_of_one_s_own_as_it_was_known(panel_file: Path, tidemill: Tidemill) -> None:
    given = ("features", "compute", "--input", panel_file, "--set", "fear_greed,weekday")
    refused = tidemill(*given, "--output", "out.parquet")
    assert refused.code == 1
    assert "no column 'fear_greed'" in refused.error
    days = [f"2021-{month:02d}-{day:02d},{day}" for month in range(1, 13) for day in range(1, 29)]
    Path("index.csv").write_text("date,value\n" + "\n".join(days) + "\n")
    for engine in ("batch", "stream"):
        done = tidemill(*given, "--fear-greed", "file:index.csv", "--engine", engine, "--output", f"{engine}.parquet")
        assert done.code == 0, done.error
    batch, stream = pl.read_parquet("batch.parquet"), pl.read_parquet("stream.parquet")
    assert batch.equals(stream, null_equal=True)
    inside = batch.filter(pl.col("open_time").dt.year() == 2021, pl.col("open_time").dt.day() <= 28)
    assert inside.height
    assert (inside["fear_greed"] == inside["open_time"].dt.day()).all()


def test_a_plot_that_cannot_be_made_says_why(panel_file: Path, tidemill: Tidemill) -> None:
    assert "Use a file name that ends in .png" in tidemill("features", "explain", "KMID", "--plot", "x.jpg").error
    assert "no symbol 'NOBODY'" in tidemill("features", "explain", "KMID", "--symbol", "NOBODY").error
    assert "cannot be written" in tidemill("features", "explain", "KMID", "--plot", "nowhere/x.png").error
    assert "no column 'fear_greed'" in tidemill("features", "explain", "fear_greed", "--input", panel_file).error
