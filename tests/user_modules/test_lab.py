"""Files of one's own in notebooks."""

import polars as pl
import pytest

from tests.features.conftest import random_panel
from tests.study.panels import daily_bars
from tests.user_modules.conftest import Write, example
from tidemill import lab
from tidemill.domain.errors import InputError


def test_what_a_file_declares_can_be_used_by_name(write: Write) -> None:
    made = lab.load(write(example()))
    assert made.strategies == ("my_strategy",)
    bars = random_panel(1, symbols=2, slots=60)
    frame = lab.features(bars, *made.features, "ROC5")
    assert frame.columns == ["symbol", "open_time", "my_gap", "my_reversal", "ROC5"]


def test_a_function_that_fails_is_an_error_where_nobody_asked_for_the_rest(write: Write) -> None:
    path = write(example().replace("    change = ", "    bars['absent']\n    change = "))
    made = lab.load(path)
    with pytest.raises(InputError, match=r"The function weekly of mine.py failed on line \d+: ColumnNotFoundError"):
        lab.features(random_panel(1, symbols=2, slots=60), *made.features)


def test_a_strategy_over_bars_can_be_traded(write: Write) -> None:
    text = (
        "import polars as pl\n"
        "def above(bars, window=5):\n"
        "    mean = pl.col('close').rolling_mean(window).over('symbol')\n"
        "    return bars.select('symbol', 'open_time', weight=pl.when(pl.col('close') > mean).then(0.5).otherwise(0.0))\n"
        "strategy('my_above', above, needs='bars')\n"
    )
    lab.load(write(text))
    result = lab.backtest(_bars(), strategy="my_above", params={"window": 10}, can_short=False)
    assert result.trades.height > 0


def _bars() -> pl.DataFrame:
    moment = pl.col("date").cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias("open_time")
    return daily_bars(120, ("AAA", "BBB")).with_columns(moment).drop("date")
