from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.domain.errors import InputError
from tidemill.domain.intervals import Interval
from tidemill.validation.labels import forward_return

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = Interval.parse("1d")


def bars(opens: dict[str, list[float | None]], days: dict[str, list[int]] | None = None) -> pl.DataFrame:
    """Bars of each symbol on consecutive days, or on the given ones."""
    rows = [
        (symbol, START + timedelta(days=day), price)
        for symbol, prices in sorted(opens.items())
        for day, price in zip((days or {}).get(symbol, range(len(prices))), prices, strict=True)
    ]
    return pl.DataFrame(
        rows, schema={"symbol": pl.String, "open_time": pl.Datetime("us", "UTC"), "open": pl.Float64}, orient="row"
    )


def test_a_label_is_the_return_from_the_next_open_to_the_open_horizon_bars_later() -> None:
    labels = forward_return(bars({"A": [10.0, 100.0, 110.0, 121.0]}), 2, DAY)
    assert labels["label"].to_list() == [pytest.approx(0.21), None, None, None]
    assert labels["label_end_at"].to_list() == [START + timedelta(days=3), None, None, None]


def test_labels_keep_the_rows_and_order_of_the_bars_and_never_cross_symbols() -> None:
    frame = bars({"A": [1.0, 2.0, 4.0], "B": [10.0, 10.0, 5.0]})
    labels = forward_return(frame, 1, DAY)
    assert labels.select("symbol", "open_time").equals(frame.select("symbol", "open_time"))
    assert labels["label"].to_list() == [1.0, None, None, -0.5, None, None]


def test_the_horizon_counts_own_bars_so_a_missing_day_lengthens_the_holding_time() -> None:
    labels = forward_return(bars({"A": [1.0, 2.0, 3.0]}, {"A": [0, 1, 9]}), 1, DAY)
    assert labels["label_end_at"][0] == START + timedelta(days=9)


@pytest.mark.parametrize("price", [None, float("nan"), float("inf"), 0.0, -1.0])
def test_a_price_that_is_no_price_makes_the_labels_that_use_it_null(price: float | None) -> None:
    labels = forward_return(bars({"A": [1.0, 1.0, price, 1.0, 1.0]}), 1, DAY)
    assert labels["label"].is_null().to_list() == [True, True, False, True, True]
    assert labels["label"].is_null().equals(labels["label_end_at"].is_null())


@pytest.mark.parametrize(("marked", "gone"), [(0, []), (1, []), (2, [0]), (3, [0, 1]), (4, [1, 2]), (5, [2, 3])])
def test_only_labels_whose_holding_period_crosses_a_suspected_corporate_action_are_null(marked: int, gone: list[int]) -> None:
    frame = bars({"A": [1.0] * 7})
    mark = pl.DataFrame(
        {"symbol": ["A"], "open_time": [frame["open_time"][marked]]}, schema_overrides={"open_time": pl.Datetime("us", "UTC")}
    )
    labels = forward_return(frame, 2, DAY, suspected=mark)
    assert [row for row in range(4) if labels["label"][row] is None] == gone


def test_a_mark_of_one_symbol_leaves_the_others_alone() -> None:
    frame = bars({"A": [1.0] * 5, "B": [1.0] * 5})
    mark = frame.filter((pl.col("symbol") == "A") & (pl.col("open_time") == START + timedelta(days=2))).select(
        "symbol", "open_time"
    )
    labels = forward_return(frame, 1, DAY, suspected=mark)
    assert labels.group_by("symbol", maintain_order=True).agg(pl.col("label").count())["label"].to_list() == [2, 3]


@given(st.data(), st.integers(1, 4))
def test_labels_agree_with_a_loop_over_every_bar(data: st.DataObject, horizon: int) -> None:
    days = {name: sorted(data.draw(st.sets(st.integers(0, 25), max_size=12))) for name in ("A", "B")}
    opens = {
        name: data.draw(st.lists(st.floats(0.5, 100.0), min_size=len(own), max_size=len(own))) for name, own in days.items()
    }
    labels = forward_return(bars(opens, days), horizon, DAY)
    expected = [
        (opens[name][at + 1 + horizon] / opens[name][at + 1] - 1.0, START + timedelta(days=days[name][at + 1 + horizon]))
        if at + 1 + horizon < len(days[name])
        else (None, None)
        for name in ("A", "B")
        for at in range(len(days[name]))
    ]
    assert labels.select("label", "label_end_at").rows() == expected


@given(st.integers(1, 3), st.integers(0, 11))
def test_a_label_that_is_known_does_not_change_when_later_bars_arrive_or_change(horizon: int, cut: int) -> None:
    whole = bars({"A": [1.0 + 0.1 * day for day in range(12)]})
    known = forward_return(whole.head(cut), horizon, DAY).drop_nulls()
    altered = whole.with_columns(
        pl.when(pl.int_range(pl.len()) >= cut).then(pl.col("open") * 7).otherwise(pl.col("open")).alias("open")
    )
    after = forward_return(altered, horizon, DAY)
    assert after.head(known.height).equals(known)


def test_an_empty_frame_has_no_labels() -> None:
    assert forward_return(bars({}), 3, DAY).columns == ["symbol", "open_time", "label", "label_end_at"]


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (bars({"A": [1.0, 2.0]}).reverse(), "not sorted"),
        (pl.concat([bars({"A": [1.0]}), bars({"A": [1.0]})]), "not sorted"),
        (pl.concat([bars({"A": [1.0]}), bars({"B": [1.0]}), bars({"A": [1.0, 2.0]}).tail(1)]), "not sorted"),
        (bars({"A": [1.0, 2.0]}).drop("open"), "lacks the column"),
        (bars({"A": [1.0]}).with_columns(pl.col("open_time") + timedelta(hours=1)), "grid of 1d"),
        (bars({"A": [1.0]}).with_columns(pl.col("open_time").dt.replace_time_zone(None)), "UTC"),
        (bars({"A": [1.0]}).with_columns(pl.lit(None, pl.String).alias("symbol")), "without a symbol"),
    ],
)
def test_a_frame_that_is_no_panel_of_bars_is_refused_with_one_sentence(frame: pl.DataFrame, text: str) -> None:
    with pytest.raises(InputError, match=text):
        forward_return(frame, 1, DAY)


def test_a_horizon_below_one_bar_is_refused() -> None:
    with pytest.raises(InputError, match="at least 1"):
        forward_return(bars({"A": [1.0]}), 0, DAY)


def test_the_spin_off_of_ni_source_in_the_sp500_panel_loses_its_labels_when_it_is_marked(shared_data: Path) -> None:
    frame = (
        pl.read_parquet(shared_data / "sp500_daily_2013_2018" / "sp500_daily.parquet")
        .filter(pl.col("symbol") == "NI")
        .select("symbol", pl.col("date").cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias("open_time"), "open")
        .sort("open_time")
    )
    moves = frame.with_columns((pl.col("open") / pl.col("open").shift(1) - 1.0).alias("move"))
    mark = moves.filter(pl.col("move") < -0.35).select("symbol", "open_time")
    assert mark.height == 1
    plain, masked = forward_return(frame, 5, DAY), forward_return(frame, 5, DAY, suspected=mark)
    assert plain["label"].min() < -0.5  # type: ignore[operator]
    assert masked["label"].min() > -0.35  # type: ignore[operator]
    assert plain["label"].count() - masked["label"].count() == 5
