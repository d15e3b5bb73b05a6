"""Whole experiments on panels that are odd: each ends in a report, or in one sentence that says what to do."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from tests.study.panels import START, daily_bars, small_experiment
from tests.study.running import run
from tidemill.domain.errors import InputError
from tidemill.domain.experiment import LabelSpec, PromotionSpec, SplitSpec
from tidemill.evaluation.cross_validation import Plan, cross_validate
from tidemill.steps.models.champion import challenge_fold
from tidemill.study.scoring import predictions_of
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.workspace import Workspace

PRICES = ("open", "high", "low", "close")
Change = Callable[[pl.DataFrame], pl.DataFrame]


def constant(bars: pl.DataFrame) -> pl.DataFrame:
    return bars.with_columns(*(pl.lit(50.0).alias(name) for name in PRICES), pl.lit(1000.0).alias("volume"))


def constant_symbol(bars: pl.DataFrame) -> pl.DataFrame:
    own = pl.col("symbol") == "AAA"
    return bars.with_columns(pl.when(own).then(50.0).otherwise(pl.col(name)).alias(name) for name in PRICES)


def holes(value: float) -> Change:
    def change(bars: pl.DataFrame) -> pl.DataFrame:
        every = pl.int_range(pl.len()) % 7 == 3
        return bars.with_columns(pl.when(every).then(value).otherwise(pl.col(name)).alias(name) for name in ("close", "volume"))

    return change


def gapped(bars: pl.DataFrame) -> pl.DataFrame:
    """A third of the bars of half of the symbols is missing, and a month of all of them."""
    drawn = (pl.int_range(pl.len()) % 3 == 1) & pl.col("symbol").is_in(["AAA", "CCC", "EEE"])
    away = pl.col("date").is_between((START + timedelta(days=150)).date(), (START + timedelta(days=180)).date())
    return bars.filter(~drawn & ~away)


def one_symbol(bars: pl.DataFrame) -> pl.DataFrame:
    return bars.filter(pl.col("symbol") == "AAA")


def dying(bars: pl.DataFrame) -> pl.DataFrame:
    """Each symbol ends 40 days before the next one; only the last lives on."""
    last = {symbol: 330 - 40 * number for number, symbol in enumerate(("FFF", "EEE", "DDD", "CCC", "BBB", "AAA"))}
    day = (pl.col("date") - START.date()).dt.total_days()
    return bars.filter(day < pl.col("symbol").replace_strict(last))


def study_on(workspace: Workspace, folder: Path, change: Change, **changes: object) -> Study:
    folder.mkdir()
    change(daily_bars()).write_parquet(folder / "bars.parquet")
    return run(workspace, small_experiment(folder, **changes))[0]


@pytest.mark.parametrize(
    "change", [constant_symbol, holes(float("nan")), holes(float("inf")), holes(0.0), gapped, one_symbol, dying]
)
def test_an_odd_panel_ends_in_a_report_whose_predictions_are_numbers(
    workspace: Workspace, tmp_path: Path, change: Change
) -> None:
    study = study_on(workspace, tmp_path / "odd", change, splits=SplitSpec(train=100, test=70, min_folds=3))
    for book in ("momentum", "ridge", "ensemble"):
        known = predictions_of(study, book)["prediction"].drop_nulls()
        assert len(known) > 0
        assert known.is_finite().all()


def test_prices_that_never_move_teach_nothing_and_say_so(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="never known together in the training window"):
        study_on(workspace, tmp_path / "constant", constant)


@pytest.mark.parametrize("horizon", [50, 95, 400])
def test_a_horizon_longer_than_the_training_window_is_refused_with_what_would_fit(
    workspace: Workspace, tmp_path: Path, horizon: int
) -> None:
    wanted = {"label": LabelSpec(horizon=horizon), "splits": SplitSpec(train=100, test=30)}
    with pytest.raises(InputError, match=rf"keeps no row after .* a label of {horizon} bars. Use at least") as refused:
        study_on(workspace, tmp_path / "long", lambda bars: bars, **wanted)
    assert "\n" not in str(refused.value)


def test_a_horizon_longer_than_a_fold_is_refused_by_every_splitter_and_before_a_challenge(
    workspace: Workspace, tmp_path: Path
) -> None:
    wanted = {"label": LabelSpec(horizon=40), "splits": SplitSpec(train=120, test=30)}
    with pytest.raises(InputError, match="A label of 40 bars is longer than a test window of 30 bar times"):
        study_on(workspace, tmp_path / "long", lambda bars: bars, **wanted)
    study = study_of(workspace, small_experiment(tmp_path / "long", **wanted))
    for splitter, said in (
        ("walk_forward", "longer than a test window"),
        ("purged_k_fold", "Take fewer folds"),
        ("combinatorial", "Take fewer folds"),
    ):
        with pytest.raises(InputError, match=said):
            cross_validate(study, "ridge", Plan(splitter=splitter, folds=8))  # type: ignore[arg-type]  # one of the three
    short = small_experiment(tmp_path / "long", label=LabelSpec(horizon=40), promotion=PromotionSpec(bars=39))
    with pytest.raises(InputError, match=r"longer than the 39 bar times held out"):
        challenge_fold(study_of(workspace, short))
