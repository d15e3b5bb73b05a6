"""Results are upserts: the same again changes nothing, other values replace; a fold holds the predictions last written."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from tests.storage.stored import stored
from tidemill.domain.errors import InputError, IntegrityError
from tidemill.storage import results
from tidemill.storage.merge import Merged
from tidemill.storage.postgres import Database
from tidemill.storage.verdicts import Verdict, Verdicts

START = datetime(2024, 1, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")


def predictions(count: int = 3, value: float | None = 0.5) -> pl.DataFrame:
    times = pl.Series([START + timedelta(days=day) for day in range(count)], dtype=TIME)
    return pl.DataFrame({"open_time": times}).select(
        book=pl.lit("v.1d.all.ridge-1"),
        dataset=pl.lit("v.1d.all"),
        engine=pl.lit("ridge"),
        symbol=pl.lit("A"),
        open_time="open_time",
        model_id=pl.lit("m"),
        fold=pl.lit(1, pl.Int32),
        prediction=pl.lit(value, pl.Float64),
        known_at=pl.col("open_time") + pl.duration(days=1),
    )


async def write(database: Database, frame: pl.DataFrame) -> Merged:
    return await results.write_predictions(database, "v.1d.all.ridge-1", 1, frame)


async def test_predictions_are_written_once_and_replaced_when_they_differ(database: Database) -> None:
    assert await write(database, predictions()) == Merged(inserted=3)
    assert await write(database, predictions()) == Merged(unchanged=3)
    assert await write(database, predictions(4, None)) == Merged(inserted=1, updated=3)
    assert (await stored(database, results.PREDICTIONS)).equals(predictions(4, None))


async def test_many_rows_go_in_several_batches(database: Database) -> None:
    many = predictions(60_000)
    assert await write(database, many) == Merged(inserted=many.height)
    assert await write(database, many) == Merged(unchanged=many.height)
    fewer = many.filter(pl.int_range(pl.len()) % 10_000 != 0)
    assert await write(database, fewer) == Merged(unchanged=fewer.height, deleted=6)
    assert (await stored(database, results.PREDICTIONS)).equals(fewer)


async def test_a_fold_holds_exactly_what_was_written_last_and_others_are_left_alone(database: Database) -> None:
    other_fold = predictions().with_columns(pl.col("open_time", "known_at") + timedelta(days=50), fold=pl.lit(2, pl.Int32))
    other_book = predictions().with_columns(book=pl.lit("v.1d.all.ridge-2"))
    await write(database, predictions(5))
    await results.write_predictions(database, "v.1d.all.ridge-1", 2, other_fold)
    await results.write_predictions(database, "v.1d.all.ridge-2", 1, other_book)
    retrained = predictions(4, 0.7).with_columns(model_id=pl.lit("n"))[1:]
    assert await write(database, retrained) == Merged(updated=3, deleted=2)
    expected = pl.concat([retrained, other_fold, other_book])
    assert (await stored(database, results.PREDICTIONS)).equals(expected)
    assert await write(database, predictions(0)) == Merged(deleted=3)
    assert (await stored(database, results.PREDICTIONS)).equals(pl.concat([other_fold, other_book]))


async def test_a_fold_that_cannot_be_written_stays_as_it_was(database: Database) -> None:
    await write(database, predictions(5))
    with pytest.raises(IntegrityError):
        await write(database, predictions(2).with_columns(known_at=pl.col("open_time")))
    assert (await stored(database, results.PREDICTIONS)).equals(predictions(5))


async def test_an_empty_fold_takes_rows_that_stood_in_another_one(database: Database) -> None:
    await write(database, predictions(5))
    moved = predictions(4, 0.7)[2:].with_columns(fold=pl.lit(2, pl.Int32))
    assert await results.write_predictions(database, "v.1d.all.ridge-1", 2, moved) == Merged(updated=2)
    expected = pl.concat([predictions(5)[:2], moved, predictions(5)[4:]])
    assert (await stored(database, results.PREDICTIONS)).equals(expected)


async def test_of_an_empty_fold_all_rows_are_stored_or_none(database: Database) -> None:
    broken = predictions(5).with_columns(known_at=pl.when(pl.int_range(pl.len()) == 3).then("open_time").otherwise("known_at"))
    with pytest.raises(IntegrityError):
        await write(database, broken)
    assert (await stored(database, results.PREDICTIONS)).is_empty()


async def test_a_key_given_twice_with_different_values_is_refused(database: Database) -> None:
    with pytest.raises(InputError, match="predictions have the same book"):
        await write(database, pl.concat([predictions(), predictions(3, 0.6)]))
    assert await write(database, pl.concat([predictions(), predictions()])) == Merged(inserted=3)


def signals(count: int = 3, weight: float = -0.5, decider: str = "d") -> pl.DataFrame:
    return predictions(count).select(
        experiment=pl.lit("e"),
        book=pl.lit("ensemble"),
        decider=pl.lit(decider),
        account=pl.lit(""),
        mode=pl.lit("backtest"),
        symbol="symbol",
        open_time="open_time",
        weight=pl.lit(weight),
        direction=pl.lit(-1, pl.Int32),
        confidence=pl.lit(0.5),
        known_at="known_at",
        expires_at=pl.col("known_at") + pl.duration(days=1),
        status=pl.lit("proposed"),
    )


async def test_signals_of_a_decider_are_exactly_those_last_written_and_those_of_others_stay(database: Database) -> None:
    await results.write_signals(database, "e", ["d"], signals(5))
    await results.write_signals(database, "f", ["d"], signals().with_columns(experiment=pl.lit("f")))
    later = signals(2, decider="later").with_columns(pl.col("open_time", "known_at", "expires_at") + timedelta(days=9))
    await results.write_signals(database, "e", ["later"], later)
    assert await results.write_signals(database, "e", ["d"], signals(4, -0.4)) == Merged(updated=4, deleted=1)
    served = await results.signals_of(database, "e", "ensemble")
    assert served["weight"].to_list() == [-0.4] * 4 + [-0.5] * 2
    await results.keep_signals(database, "e", ["later"])
    assert (await results.signals_of(database, "e", "ensemble"))["decider"].to_list() == ["later"] * 2
    assert (await results.signals_of(database, "f", "ensemble")).height == 3


async def test_equity_comes_back_as_it_was(database: Database) -> None:
    equity = pl.DataFrame({"account": ["a"], "time": pl.Series([START], dtype=TIME), "equity": [1e6]})
    await results.write_equity(database, "a", equity)
    assert (await stored(database, results.EQUITY)).equals(equity)
    with pytest.raises(IntegrityError):
        await results.write_equity(database, "a", equity.with_columns(equity=pl.lit(float("nan"))))


async def test_models_come_back_as_they_were_and_a_manifest_must_be_json(database: Database) -> None:
    model = pl.DataFrame(
        {
            "model_id": ["m"],
            "dataset": ["d"],
            "engine": ["ridge"],
            "fold": pl.Series([2], dtype=pl.Int32),
            "path": ["p"],
            "manifest": ["{}"],
            "metrics": ["{}"],
        }
    )
    await results.write_models(database, model)
    assert (await stored(database, results.MODELS)).equals(model)
    with pytest.raises(InputError):
        await results.write_models(database, model.with_columns(manifest=pl.lit("not json")))


def verdict(check: str, passed: bool, version: str = "1") -> Verdict:
    return Verdict(asset="bars", dataset="v.1d", data_version=version, check_name=check, passed=passed, details={"n": 1})


async def test_the_newest_verdict_of_each_check_on_that_very_version_counts(database: Database) -> None:
    verdicts = Verdicts(database)
    await verdicts.write([verdict("gaps", False), verdict("prices", True)])
    await verdicts.write([verdict("gaps", True), verdict("gaps", False, "2")])
    latest = await verdicts.latest("bars", "v.1d", "1")
    assert [(found.check_name, found.passed, found.details) for found in latest] == [
        ("gaps", True, {"n": 1}),
        ("prices", True, {"n": 1}),
    ]
    assert all(found.at is not None for found in latest)
    assert await verdicts.latest("bars", "v.1d", "3") == []
    await verdicts.write([])
