"""What a call remembers does not reach the next one, and a function that cannot go to a fresh process is not judged."""

import functools
import importlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.features.conftest import random_panel
from tidemill import lab
from tidemill.user_modules.carried import NotCarriedError, carried, rebuilt
from tidemill.user_modules.fresh import Fresh

S, T, CLOSE = "symbol", "open_time", pl.col("close")
REMEMBERED: dict[str, Any] = {}


@pytest.fixture(scope="module")
def bars() -> pl.DataFrame:
    return random_panel(3, symbols=2, slots=60)


def leak(bars: pl.DataFrame) -> pl.DataFrame:
    return bars.select(S, T, x=CLOSE.shift(-1).over(S))


def rows_of(known: pl.DataFrame, bars: pl.DataFrame) -> pl.DataFrame:
    return bars.select(S, T).join(known, on=(S, T), how="left", maintain_order="left")


def _in_a_global() -> Callable[[pl.DataFrame], pl.DataFrame]:
    memory: dict[str, Any] = {}
    space = {"memory": memory, "leak": leak, "rows_of": rows_of}
    text = "def told(bars):\n    memory.setdefault('first', leak(bars))\n    return rows_of(memory['first'], bars)\n"
    exec(text, space)  # as in a notebook, where a function is found under no name of a module
    return space["told"]  # type: ignore[return-value]  # what the text defines


def _in_a_closure() -> Callable[[pl.DataFrame], pl.DataFrame]:
    first: list[pl.DataFrame] = []

    def told(bars: pl.DataFrame) -> pl.DataFrame:
        if not first:
            first.append(leak(bars))
        return rows_of(first[0], bars)

    return told


def _in_a_default() -> Callable[[pl.DataFrame], pl.DataFrame]:
    def told(bars: pl.DataFrame, first: list[pl.DataFrame] = []) -> pl.DataFrame:  # noqa: B006  # that is the point
        if not first:
            first.append(leak(bars))
        return rows_of(first[0], bars)

    return told


def _in_an_attribute() -> Callable[[pl.DataFrame], pl.DataFrame]:
    def told(bars: pl.DataFrame) -> pl.DataFrame:
        if not hasattr(told, "first"):
            told.first = leak(bars)  # type: ignore[attr-defined]  # that is the point
        return rows_of(told.first, bars)  # type: ignore[attr-defined]

    return told


def _in_a_library() -> Callable[[pl.DataFrame], pl.DataFrame]:
    def told(bars: pl.DataFrame) -> pl.DataFrame:
        if not hasattr(pl, "remembered"):
            pl.remembered = leak(bars)
        return rows_of(pl.remembered, bars)

    return told


@pytest.mark.parametrize("made", [_in_a_global, _in_a_closure, _in_a_default, _in_an_attribute, _in_a_library])
def test_a_function_that_remembers_its_first_call_is_refuted(
    made: Callable[[], Callable[[pl.DataFrame], pl.DataFrame]], bars: pl.DataFrame
) -> None:
    assert [one.feature for one in lab.prove(bars, made()).ahead] == ["x"]


def test_what_an_earlier_call_in_the_notebook_left_behind_is_not_carried(bars: pl.DataFrame) -> None:
    told = _in_a_closure()
    told(bars)
    proof = lab.prove(bars, told)
    assert not proof.proven
    assert not proof.holds
    assert "'first' holds a DataFrame" in proof.unjudged[0].why


class Scaler:
    def __init__(self) -> None:
        self.by = 2.0


def test_what_refers_to_an_object_is_not_judged_unless_it_is_refuted(bars: pl.DataFrame) -> None:
    scaler = Scaler()

    def scaled(bars: pl.DataFrame) -> pl.DataFrame:
        return bars.select(S, T, a=CLOSE * scaler.by, b=CLOSE.shift(-1).over(S) * scaler.by)

    proof = lab.prove(bars, scaled)
    assert [one.feature for one in proof.ahead] == ["b"]
    assert [one.feature for one in proof.unjudged] == ["a"]
    assert "'scaler' is a Scaler, which cannot go to a fresh process" in proof.unjudged[0].why


def test_an_expression_that_calls_python_is_not_carried(bars: pl.DataFrame) -> None:
    doubled = CLOSE.map_elements(lambda price: price * 2.0, return_dtype=pl.Float64)
    proof = lab.prove(bars, lambda bars: bars.select(S, T, x=doubled))
    assert [one.feature for one in proof.unjudged] == ["x"]


def test_a_function_goes_with_all_that_it_refers_to(bars: pl.DataFrame) -> None:
    weights, table = np.array([0.5, 0.25]), pl.DataFrame({S: ["S0", "S1"], "k": [1.0, 2.0]})
    names, start, floor = {"a": [1, 2.5, None]}, datetime(1970, 1, 3, tzinfo=UTC), functools.partial(max, 3.0)

    @functools.lru_cache(maxsize=4)
    def factor(number: int) -> float:
        return 1.0 if number == 0 else number * factor(number - 1)

    def told(bars: pl.DataFrame, *, by: float = 2.0) -> pl.DataFrame:
        joined = bars.join(table, on=S, how="left", maintain_order="left")
        scale = by * float(weights.sum()) * factor(3) * floor(1.0) * names["a"][1]  # type: ignore[operator]
        later = pl.when(pl.col(T) >= start).then(CLOSE * pl.col("k") * scale)
        return joined.select(S, T, later.alias("x"), y=(lambda column: column + 1.0)(pl.col("open")))

    with Fresh(carried(told)) as fresh:
        assert fresh(bars).equals(told(bars), null_equal=True)
        assert fresh(bars).equals(told(bars), null_equal=True)


def test_what_was_imported_by_name_goes_by_name(bars: pl.DataFrame) -> None:
    from numpy import log
    from polars import Float64, col, when

    def told(bars: pl.DataFrame) -> pl.DataFrame:
        made = when(col("close") > 0.0).then(col("close").cast(Float64))
        return bars.select(S, T, x=made).with_columns(y=pl.Series(log(bars["close"].to_numpy())))

    with Fresh(carried(told)) as fresh:
        assert fresh(bars).equals(told(bars), null_equal=True)


def test_a_module_of_ones_own_that_computes_when_it_is_imported_is_imported_by_each_call(
    bars: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = "pl.DataFrame({'a': [1.0, 2.0]}).lazy().select(pl.col('a').sum().over('a'))"
    text = f"import polars as pl\nby = {frame}.collect()['a'][1]\n"
    (tmp_path / "helper_of_mine.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    helper = importlib.import_module("helper_of_mine")

    def told(bars: pl.DataFrame) -> pl.DataFrame:
        return bars.select(S, T, x=CLOSE.shift(1).over(S) * helper.by)

    with Fresh(carried(told)) as fresh:
        assert fresh(bars).equals(told(bars), null_equal=True)


def test_errors_keep_their_name_and_words(bars: pl.DataFrame) -> None:
    def failing(bars: pl.DataFrame) -> pl.DataFrame:
        raise KeyError("absent")

    def ending(bars: pl.DataFrame) -> pl.DataFrame:
        import os

        os._exit(3)

    with Fresh(carried(failing)) as fresh, pytest.raises(Exception, match="absent") as found:
        fresh(bars)
    assert type(found.value).__name__ == "KeyError"
    with Fresh(carried(ending)) as fresh:
        for _ in range(2):
            with pytest.raises(Exception, match="its process ended with the status"):
                fresh(bars)


def test_what_it_holds_is_its_own(bars: pl.DataFrame) -> None:
    numbers = [1, 2]

    def told() -> list[int]:
        numbers.append(3)
        return numbers

    assert rebuilt(carried(told))() == [1, 2, 3]
    assert numbers == [1, 2]
    with pytest.raises(NotCarriedError, match="holds a ndarray"):
        carried(lambda: {"a": held})


held = [np.zeros(2)]
