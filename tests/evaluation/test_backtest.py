"""Backtests of a person's own bars and weights: what is read, what is refused, what is written."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from tests.study.panels import daily_bars
from tidemill.calendars import ALWAYS, XNYS, calendar_named
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.experiment import NeutraliseSpec
from tidemill.domain.intervals import Interval
from tidemill.evaluation.backtest import backtest_frame, run_backtest, weights_from
from tidemill.market.column_files import read_returns, read_weights
from tidemill.market.panel_files import interval_of, read_bars, read_panel

COSTS = {"fee_bps": 10.0, "slippage_bps": 0.0}


@pytest.fixture
def bars_file(tmp_path: Path) -> Path:
    path = tmp_path / "bars.csv"
    daily_bars(60, ("AAA", "BBB")).write_csv(path)
    return path


def run(source: Path, **changes: object) -> dict[str, object]:
    given: dict[str, object] = {"strategy": None, "weights": None, "params": {}, "output": None, **COSTS, **changes}
    return run_backtest(source, **given)  # type: ignore[arg-type]  # any argument


def test_half_of_it_earns_half_the_way_from_the_next_open_to_the_last_close(bars_file: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.csv"
    weights.write_text("symbol,date,weight\nAAA,2021-01-04,0.5\n")
    own = daily_bars(60, ("AAA", "BBB")).filter(pl.col("symbol") == "AAA")
    found = run(bars_file, weights=weights, fee_bps=0.0)
    growth = own["close"][-1] / own["open"][1]  # the weight is known at the first close and filled at the next open
    assert found["final_equity"] == pytest.approx(500_000.0 + 500_000.0 * growth, rel=1e-9)
    dear = run(bars_file, weights=weights)
    assert dear["fees"] == pytest.approx(500.0, rel=0.05)
    assert dear["final_equity"] < found["final_equity"]


def test_results_are_written_as_three_files_that_agree_with_the_answer(bars_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    found = run(bars_file, strategy="sma_cross", params={"fast": 2, "slow": 5}, output=folder)
    equity = pl.read_parquet(folder / "equity.parquet")
    trades = pl.read_parquet(folder / "trades.parquet")
    positions = pl.read_parquet(folder / "positions.parquet")
    assert equity.columns == ["time", "equity"]
    assert [*trades.columns[:4]] == ["symbol", "side", "entry_time", "exit_time"]
    assert [*trades.columns[4:]] == ["entry_price", "exit_price", "quantity", "fees", "profit"]
    assert positions.columns == ["time", "symbol", "quantity"]
    assert equity["equity"][-1] == found["final_equity"]
    assert trades.height == found["trades"]
    assert found["equity"] == equity["equity"].to_list()
    assert {path.name for path in folder.iterdir()} == {"equity.parquet", "trades.parquet", "positions.parquet"}


def test_spot_cannot_be_sold_short_and_a_stock_can() -> None:
    weekdays = daily_bars(400, ("AAA",)).filter(pl.col("date").dt.weekday() <= 5)
    start = datetime(2021, 1, 5, tzinfo=UTC)
    weights = pl.DataFrame({"symbol": ["AAA"], "open_time": [start], "weight": [-0.5]})

    def positions(can_short: bool | None) -> pl.DataFrame:
        bars = weekdays.select(
            "symbol", pl.col("date").cast(pl.Datetime("us", "UTC")).alias("open_time"), "open", "high", "low", "close", "volume"
        )
        result = backtest_frame(
            bars, weights, strategy=None, params={}, can_short=can_short, interval=Interval.parse("1d"), **COSTS
        )
        return result.positions

    assert (positions(True)["quantity"] < 0).any()
    assert not (positions(False)["quantity"] < 0).any()


def mixed_file(folder: Path, first: datetime, hours: int) -> Path:
    """BTC by the clock and KO in the hours of New York, a bar each `hours`, 90 days long; both at the price 10."""
    interval = Interval.parse(f"{hours}h")
    times = {name: calendar_named(kind).slots(interval, first, first + timedelta(days=90)) for name, kind in MIXED.items()}
    price = dict.fromkeys(("open", "high", "low", "close"), 10.0)
    rows = [{"symbol": symbol, "time": time, **price, "volume": 1e9} for symbol, own in times.items() for time in own.to_list()]
    path = folder / "mixed.parquet"
    pl.DataFrame(rows).write_parquet(path)
    return path


MIXED = {"BTC": ALWAYS, "KO": XNYS}


def test_a_stocks_order_of_friday_waits_for_the_session_after_the_holiday_though_a_coin_trades_at_weekends(
    tmp_path: Path,
) -> None:
    # 15 January 2024 was Martin Luther King day.
    weights = tmp_path / "weights.csv"
    weights.write_text("symbol,date,weight\nKO,2024-01-12,0.5\nBTC,2024-01-12,0.4\nKO,2024-02-02,0\n")
    run(mixed_file(tmp_path, datetime(2024, 1, 1, tzinfo=UTC), 24), weights=weights, output=tmp_path / "out")
    positions = pl.read_parquet(tmp_path / "out" / "positions.parquet")
    first = dict(positions.group_by("symbol").agg(pl.col("time").min()).iter_rows())
    assert first == {"BTC": datetime(2024, 1, 13, tzinfo=UTC), "KO": datetime(2024, 1, 16, tzinfo=UTC)}
    trades = pl.read_parquet(tmp_path / "out" / "trades.parquet")
    assert trades["exit_time"].to_list() == [datetime(2024, 2, 5, tzinfo=UTC)]


def test_the_hours_of_stocks_begin_with_the_session_and_none_is_refused(tmp_path: Path) -> None:
    bars, interval, refused = read_bars(mixed_file(tmp_path, datetime(2024, 1, 1, tzinfo=UTC), 1))
    assert (interval, refused) == (Interval.parse("1h"), 0)
    assert set(bars["symbol"]) == set(MIXED)


def test_of_a_mixed_file_the_stocks_can_be_sold_short(tmp_path: Path) -> None:
    weights = tmp_path / "weights.csv"
    weights.write_text("symbol,date,weight\nKO,2024-01-10,-0.5\nBTC,2024-01-10,-0.5\n")
    found = run(mixed_file(tmp_path, datetime(2024, 1, 1, tzinfo=UTC), 24), weights=weights, output=tmp_path / "out")
    assert pl.read_parquet(tmp_path / "out" / "positions.parquet")["symbol"].unique().to_list() == ["KO"]
    assert any("cannot be sold short: BTC" in note for note in found["notes"])  # type: ignore[attr-defined]  # a list


def test_exactly_one_of_strategy_and_weights_is_taken(bars_file: Path) -> None:
    bars, interval, refused = read_bars(bars_file)
    assert (interval, refused) == (Interval.parse("1d"), 0)
    for strategy, weights in ((None, None), ("sma_cross", pl.DataFrame())):
        with pytest.raises(InputError, match="either"):
            backtest_frame(bars, weights, strategy=strategy, params={}, **COSTS)
    with pytest.raises(UnknownNameError, match="sma_cross"):
        run(bars_file, strategy="oracle")
    with pytest.raises(InputError, match="works on predictions"):
        run(bars_file, strategy="quantile")


def test_a_folder_that_is_a_file_is_refused(bars_file: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        run(bars_file, strategy="sma_cross", output=bars_file / "inside")


def test_weights_frames_are_read_with_dates_times_and_zones() -> None:
    day = datetime(2021, 1, 5)
    moments = {
        "date": pl.Series([day.date()]),
        "ts": pl.Series([day]),
        "open_time": pl.Series([day]).dt.replace_time_zone("UTC"),
        "time": pl.Series([day - timedelta(hours=5)]).dt.replace_time_zone("America/New_York"),
    }
    for name, column in moments.items():
        frame = pl.DataFrame({"symbol": ["A"], name: column, "weight": [1]})
        assert weights_from(frame, "it")["open_time"][0] == day.replace(tzinfo=UTC)
    with pytest.raises(InputError, match="lacks the column weight"):
        weights_from(pl.DataFrame({"symbol": ["A"], "date": [day]}), "it")
    with pytest.raises(InputError, match="cannot be read"):
        weights_from(pl.DataFrame({"symbol": ["A"], "date": ["soon"], "weight": [1.0]}), "it")


def test_a_weights_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "weights.csv"
    path.write_text("\ufeffTicker;Date;Weight\n BBB ;2021-01-05; 0.5\nAAA;2021-01-05T09:30;\n", encoding="utf-8")
    frame = read_weights(path)
    assert frame.rows() == [
        ("AAA", datetime(2021, 1, 5, 9, 30, tzinfo=UTC), None),
        ("BBB", datetime(2021, 1, 5, tzinfo=UTC), 0.5),
    ]


def test_returns_come_in_the_order_of_their_dates(tmp_path: Path) -> None:
    path = tmp_path / "returns.csv"
    path.write_text("Date,other,Return\n2024-01-03,x,-0.02\n2024-01-02,y,0.01\n2024-01-04,z,NaN\n")
    assert read_returns(path).to_list() == [0.01, -0.02, None]
    frame = pl.DataFrame({"date": [datetime(2024, 1, 3), datetime(2024, 1, 2)], "return": [1, 2]})
    frame.write_parquet(tmp_path / "returns.parquet")
    assert read_returns(tmp_path / "returns.parquet").to_list() == [2.0, 1.0]


def test_the_interval_is_the_commonest_step(tmp_path: Path) -> None:
    start = datetime(2021, 1, 4, tzinfo=UTC)
    times = [start + timedelta(hours=hour) for hour in (0, 1, 2, 5, 6, 30)]
    assert interval_of(pl.DataFrame({"symbol": ["A"] * 6, "open_time": times})) == Interval.parse("1h")
    with pytest.raises(InputError, match="two bars"):
        interval_of(pl.DataFrame({"symbol": ["A", "B"], "open_time": times[:2]}))


def test_bars_for_features_are_kept_as_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    path.write_text("symbol,date,open,high,low,close,volume\nA,2021-01-05,1,1,1,,0\nA,2021-01-04,1,1,1,x,5\n")
    panel = read_panel(path)
    assert panel["open_time"].is_sorted()
    assert panel["close"].is_nan().all()
    path.write_text("symbol,date,open,high,low,close,volume\nA,2021-01-05,1,1,1,1,0\nA,soon,1,1,1,1,5\n")
    with pytest.raises(InputError, match="row 3"):
        read_panel(path)


def test_a_strategy_whose_book_is_closed_by_neutrality_says_so(bars_file: Path) -> None:
    bars = read_bars(bars_file)[0]
    one = NeutraliseSpec(by="sector", sectors=dict.fromkeys(bars["symbol"].unique().to_list(), "one"))

    def notes(neutralise: NeutraliseSpec | None) -> str:
        costs = {"fee_bps": 0.0, "slippage_bps": 0.0}
        params = {"fast": 2, "slow": 5}
        made = backtest_frame(bars, None, strategy="sma_cross", params=params, can_short=True, neutralise=neutralise, **costs)
        return " ".join(made.notes)

    assert "was closed" not in notes(None)
    assert "was closed" in notes(one)
