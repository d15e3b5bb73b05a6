"""The expectation suites: what passes, what fails, and that nothing a frame holds makes them raise."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import polars as pl
import pytest

from tidemill.domain.errors import UnknownNameError
from tidemill.quality.expectations import SuiteName
from tidemill.quality.suites import ExpectationResult, docs_index, run_suite, suite_expectations

NAN, INF = float("nan"), float("inf")
START = datetime(2024, 1, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")


def bars(rows: int = 40) -> pl.DataFrame:
    times = [START + timedelta(days=n // 2) for n in range(rows)]
    close = [100.0 + (n * 7) % 5 for n in range(rows)]
    return pl.DataFrame(
        {
            "symbol": [("AB", "CD")[n % 2] for n in range(rows)], "open_time": times, "open": close,
            "high": [c + 1 for c in close], "low": [c - 1 for c in close], "close": close,
            "volume": [10.0 + n for n in range(rows)], "quote_volume": [None] * rows,
            "known_at": [time + timedelta(days=1) for time in times],
        },
        schema_overrides={"open_time": TIME, "known_at": TIME, "quote_volume": pl.Float64},
    )  # fmt: skip


def features(rows: int = 40) -> pl.DataFrame:
    return bars(rows).select("symbol", "open_time", MA5=pl.col("close") / 100, RSI=pl.col("volume"))


def predictions(rows: int = 40) -> pl.DataFrame:
    made = bars(rows).select("symbol", "open_time", "known_at", prediction=pl.col("volume") / 1_000)
    return made.with_columns(engine=pl.lit("ridge"), model_id=pl.lit("m1"), fold=pl.lit(0))


def failed(results: list[ExpectationResult], severity: str | None = None) -> set[str]:
    return {r.id.split(".", 1)[1] for r in results if not r.passed and severity in (None, r.severity)}


FRAMES: dict[SuiteName, Any] = {"bars": bars, "features": features, "predictions": predictions}


@pytest.mark.parametrize("name", get_args(SuiteName))
def test_good_frames_pass_and_every_declared_expectation_has_one_result(name: SuiteName) -> None:
    results = run_suite(name, FRAMES[name]())
    assert failed(results) == set()
    assert [(r.id, r.severity, r.title) for r in results] == suite_expectations(name)
    assert len({r.id for r in results}) == len(results)
    assert {r.severity for r in results} == {"critical", "warning"}
    assert all(r.error == "" and r.unexpected_count == 0 for r in results)


@pytest.mark.parametrize("name", get_args(SuiteName))
def test_empty_all_nan_and_foreign_frames_fail_and_never_raise(name: SuiteName) -> None:
    good = FRAMES[name]()
    assert failed(run_suite(name, good.clear()), "critical") >= ({"bars"} if name == "features" else {"rows"})
    numbers = [column for column, dtype in good.schema.items() if dtype.is_float()]
    assert failed(run_suite(name, good.with_columns(pl.lit(NAN).alias(column) for column in numbers)), "critical")
    assert failed(run_suite(name, good.with_columns(pl.lit(None, pl.Float64).alias(column) for column in numbers)), "critical")
    assert failed(run_suite(name, pl.DataFrame()), "critical") >= {"rows"}
    assert failed(run_suite(name, pl.DataFrame({"nothing": ["known"]})), "critical")


@pytest.mark.parametrize(
    ("change", "broken"),
    [
        ({"high": 1.0}, {"high_is_highest", "low_is_lowest"}),
        ({"high": 103.5}, {"high_is_highest"}),
        ({"low": 1e6}, {"low_is_lowest", "high_is_highest"}),
        ({"close": -1.0}, {"close_positive", "low_is_lowest"}),
        ({"open": INF}, {"open_positive", "high_is_highest"}),
        ({"volume": -1.0}, {"volume_not_negative"}),
        ({"close": None}, {"close_filled"}),
        ({"symbol": None}, {"symbol_filled"}),
        ({"known_at": START - timedelta(days=9)}, {"known_after_open"}),
    ],
)
def test_one_wrong_bar_breaks_the_expectations_that_speak_of_it(change: dict[str, Any], broken: set[str]) -> None:
    (column, value), frame = next(iter(change.items())), bars()
    spoiled = frame.with_columns(
        pl.when(pl.int_range(pl.len()) == 12).then(pl.lit(value, frame.schema[column])).otherwise(pl.col(column)).alias(column)
    )
    results = run_suite("bars", spoiled)
    assert failed(results, "critical") == broken
    assert all(r.unexpected_count == 1 for r in results if r.id.split(".")[1] in broken)


def test_repeated_bars_and_many_silent_ones_are_told() -> None:
    assert "key_unique" in failed(run_suite("bars", pl.concat([bars(), bars().head(1)])), "critical")
    assert failed(run_suite("bars", bars().with_columns(volume=pl.lit(0.0)))) == {"traded"}


def test_infinite_constant_and_missing_features_are_told() -> None:
    wide = features().with_columns(constant=pl.lit(1.0), endless=pl.lit(INF), absent=pl.lit(NAN), a=pl.lit(NAN), b=pl.lit(NAN))
    results = run_suite("features", wide)
    assert failed(results, "critical") == {"finite", "no_infinity"}
    assert failed(results, "warning") >= {"varies", "each_finite", "mostly_finite"}
    assert failed(run_suite("features", pl.concat([features(), features().head(1)]))) == {"key_unique"}


def test_predictions_that_are_infinite_sparse_or_all_alike_are_told() -> None:
    frame = predictions()
    assert failed(run_suite("predictions", frame.with_columns(prediction=pl.lit(INF))), "critical") == {"range", "no_infinity"}
    sparse = frame.with_columns(pl.when(pl.int_range(pl.len()) < 9).then("prediction").alias("prediction"))
    assert "prediction_critical_filled" in failed(run_suite("predictions", sparse), "critical")
    assert failed(run_suite("predictions", frame.with_columns(prediction=pl.lit(0.5)))) == {"varies", "ranks_symbols"}
    assert "model_id_filled" in failed(run_suite("predictions", frame.drop("model_id")), "critical")


def test_data_docs_are_written_where_asked_and_nothing_is_left_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    run_suite("bars", bars().with_columns(volume=pl.lit(-1.0)), docs_folder=tmp_path / "docs")
    page = docs_index(tmp_path / "docs", "bars")
    assert page.is_file()
    assert list((tmp_path / "docs" / "bars" / "validations").rglob("*.html"))
    assert list(temporary.iterdir()) == []


def test_an_unknown_suite_is_refused_with_the_choices() -> None:
    with pytest.raises(UnknownNameError, match="bars, features, predictions"):
        suite_expectations("orders")  # type: ignore[arg-type]  # the point of the test


def test_naming_the_expectations_imports_nothing_heavy() -> None:
    code = (
        "import sys; from tidemill.quality.suites import suite_expectations; suite_expectations('bars'); "
        "print(sorted({'great_expectations', 'pandas', 'polars', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
