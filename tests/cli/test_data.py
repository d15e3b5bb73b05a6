"""Bars in and out through the command line."""

import io
import json
from pathlib import Path

import polars as pl
import pytest

from tests.cli.conftest import Tidemill
from tests.study.panels import daily_bars


@pytest.fixture
def imported(home: Path, panel_file: Path, tidemill: Tidemill) -> Path:
    assert tidemill("data", "import", panel_file).code == 0
    return home


def test_an_import_counts_what_it_did_and_a_second_one_changes_nothing(
    home: Path, panel_file: Path, tidemill: Tidemill
) -> None:
    first = tidemill("data", "import", panel_file, "--json").json
    again = tidemill("data", "import", panel_file, "--json").json
    assert (first["rows"], first["inserted"], first["quarantined"]) == (240, 240, 0)
    assert (again["rows"], again["inserted"], again["unchanged"]) == (240, 0, 240)
    told = tidemill("data", "import", panel_file).out
    assert "240 rows read, 0 new, 240 unchanged" in told
    assert "2 symbols, 2021-01-04 to 2021-05-03." in told


def test_bad_rows_go_to_quarantine_and_are_told_by_reason(home: Path, panel: pl.DataFrame, tidemill: Tidemill) -> None:
    broken = panel.with_columns(pl.when(pl.int_range(pl.len()) == 7).then(-1.0).otherwise(pl.col("low")).alias("low"))
    broken.write_csv("broken.csv")
    answer = tidemill("data", "import", "broken.csv")
    assert answer.code == 0
    assert "1 quarantined" in answer.out
    assert "quarantined: non positive price: 1" in answer.out
    assert "`tidemill data quarantine` lists" in answer.out


def test_rows_in_quarantine_are_listed_with_their_reason_and_line(home: Path, panel: pl.DataFrame, tidemill: Tidemill) -> None:
    panel.write_csv("good.csv")
    tidemill("data", "import", "good.csv")
    assert "No row is in quarantine." in tidemill("data", "quarantine").out
    broken = panel.with_columns(pl.when(pl.int_range(pl.len()).is_in([7, 9])).then(-1.0).otherwise(pl.col("low")).alias("low"))
    broken.write_csv("broken.csv")
    tidemill("data", "import", "broken.csv")
    found = tidemill("data", "quarantine", "--json").json
    assert [(row["symbol"], row["reason"], row["source_line"]) for row in found] == [
        (panel["symbol"][at], "non_positive_price", at + 2) for at in (7, 9)
    ]
    assert "There are more" in tidemill("data", "quarantine", "--limit", 1).out
    assert tidemill("data", "quarantine", "--venue", "good", "--json").json == []


def test_a_symbol_is_shown_as_table_json_and_csv(imported: Path, panel: pl.DataFrame, tidemill: Tidemill) -> None:
    expected = panel.filter(pl.col("symbol") == "AAA").tail(3)
    table = tidemill("data", "show", "AAA", "--limit", 3).out
    assert "AAA, panel 1d" in table
    assert all(str(date) in table for date in expected["date"])
    rows = tidemill("data", "show", "AAA", "--limit", 3, "--json").json
    assert [row["close"] for row in rows] == expected["close"].to_list()
    assert rows == tidemill("data", "show", "AAA", "--limit", 3, "--format", "json").json
    text = tidemill("data", "show", "AAA", "--limit", 3, "--format", "csv").out
    assert pl.read_csv(io.StringIO(text))["close"].to_list() == expected["close"].to_list()


def test_many_bars_and_few_bars_are_read_in_two_ways_that_agree(imported: Path, tidemill: Tidemill) -> None:
    for options in ((), ("--start", "2021-02-01"), ("--end", "2021-03-15"), ("--as-of", "2021-02-10")):
        few = tidemill("data", "show", "BBB", "--limit", 5_000, "--json", *options).json
        many = tidemill("data", "show", "BBB", "--limit", 5_001, "--json", *options).json
        assert few == many
        assert few


def test_bars_written_as_csv_can_be_imported_again(imported: Path, tidemill: Tidemill) -> None:
    text = tidemill("data", "show", "AAA", "--limit", 100, "--format", "csv").out
    Path("again.csv").write_text(text)
    answer = tidemill("data", "import", "again.csv", "--json").json
    assert (answer["inserted"], answer["quarantined"]) == (100, 0)


def test_a_restated_bar_is_shown_as_it_was_known_before_and_as_it_is_known_now(
    imported: Path, panel: pl.DataFrame, tidemill: Tidemill
) -> None:
    last = panel.filter(pl.col("symbol") == "AAA").tail(1)
    last.with_columns(pl.col("volume") + 1.0).write_csv("panel.csv")
    assert tidemill("data", "import", "panel.csv", "--json").json["restated"] == 1
    now = tidemill("data", "show", "AAA", "--limit", 1, "--json").json[0]
    then = tidemill("data", "show", "AAA", "--limit", 1, "--as-of", "2022-01-01", "--json").json[0]
    assert now["volume"] == then["volume"] + 1.0
    assert now["known_at"] > then["known_at"]


def test_a_great_loss_is_said_first_and_can_be_confirmed(imported: Path, panel: pl.DataFrame, tidemill: Tidemill) -> None:
    assert "no loss to confirm" in tidemill("data", "confirm", "panel", "--interval", "1d").out
    assert "panel 1d" in tidemill("data", "confirm", "pannel", "--interval", "1d").error
    panel.filter(pl.col("symbol") != "BBB").write_csv("panel.csv")
    told = tidemill("data", "import", "panel.csv").out
    assert told.index("The source lost 50 % of its bars") < told.index("left the source")
    assert "`tidemill data confirm panel --interval 1d`" in told
    lost = panel.filter(pl.col("symbol") == "BBB").height
    assert tidemill("data", "confirm", "panel", "--interval", "1d", "--json").json["confirmed"]["lost"] == lost
    assert "The source lost" not in tidemill("data", "import", "panel.csv").out


def test_the_same_symbol_from_two_venues_names_the_choices(imported: Path, panel: pl.DataFrame, tidemill: Tidemill) -> None:
    panel.write_csv("other.csv")
    tidemill("data", "import", "other.csv")
    error = tidemill("data", "show", "AAA").error
    assert "other 1d" in error
    assert "panel 1d" in error
    assert "--venue" in error
    assert tidemill("data", "show", "AAA", "--venue", "other", "--limit", 1).code == 0


def test_gaps_are_listed(home: Path, panel: pl.DataFrame, tidemill: Tidemill) -> None:
    panel.filter(pl.col("date").dt.day() != 20).write_csv("holes.csv")
    tidemill("data", "import", "holes.csv", "--calendar", "24/7")
    found = tidemill("data", "gaps", "--json").json
    assert {gap["symbol"] for gap in found} == {"AAA", "BBB"}
    assert all(gap["missing"] == 1 for gap in found)
    assert "missing bars" in tidemill("data", "gaps", "--limit", 1).out
    assert "older gaps are not shown" in tidemill("data", "gaps", "--limit", 1).out


def test_a_dataset_is_exported_whole_or_by_symbol(imported: Path, panel: pl.DataFrame, tidemill: Tidemill) -> None:
    answer = tidemill("data", "export", "--venue", "panel", "--interval", "1d", "--output", "all.parquet", "--json").json
    assert answer == {"rows": 240, "symbols": 2, "output": "all.parquet"}
    assert pl.read_parquet("all.parquet")["close"].to_list() == panel["close"].to_list()
    options = ("--venue", "panel", "--interval", "1d", "--symbols", "BBB", "--output", "b.csv")
    assert "120 bars of 1 symbol written" in tidemill("data", "export", *options).out


def test_bars_are_resampled_from_file_to_file(work: Path, panel_file: Path, tidemill: Tidemill) -> None:
    answer = tidemill("data", "resample", "--input", panel_file, "--interval", "1w", "--output", "weeks.parquet", "--json").json
    weeks = pl.read_parquet("weeks.parquet")
    assert answer["rows_in"] == 240
    assert answer["rows_out"] == weeks.height
    assert weeks["open_time"].dt.weekday().unique().to_list() == [1]
    assert (
        "240 bars of 1d became"
        in tidemill("data", "resample", "--input", panel_file, "--interval", "1w", "--output", "weeks.csv").out
    )


def test_a_source_is_fetched(home: Path, panel_file: Path, tidemill: Tidemill) -> None:
    options = ("--source", f"file:{panel_file}", "--symbols", "AAA", "--start", "2021-02-01", "--end", "2021-02-11")
    answer = tidemill("data", "sync", *options, "--json").json
    assert (answer["inserted"], answer["symbols"]) == (10, 1)


def test_what_is_stored_under_a_folder_s_name_is_one_dataset(home: Path, tidemill: Tidemill) -> None:
    folder = home / "My Prices"
    folder.mkdir()
    for symbol in ("AAA", "BBB"):
        daily_bars(30, (symbol,)).drop("symbol").write_csv(folder / f"{symbol}.csv")
    answer = json.loads(tidemill("data", "import", folder, "--json").out)
    assert answer["venue"] == "my_prices"
    assert answer["symbols"] == 2
