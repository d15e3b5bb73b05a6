"""The limits that an experiment states bind its book, and without them it trades as if there were none."""

from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest

from tests.study.panels import small_experiment
from tests.study.running import run
from tidemill.backtest.result import BacktestResult
from tidemill.domain.experiment import DrawdownSpec, LimitsSpec, StrategySpec
from tidemill.domain.limits_reached import LimitsReached
from tidemill.queries.results import result_of
from tidemill.study.book import benchmark_book, book, book_fingerprint, limit_notes
from tidemill.study.book import tested as out_of_sample
from tidemill.study.rejections import tradable
from tidemill.study.scoring import predicted_by
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.tables import EQUITY
from tidemill.study.workspace import Workspace

pytestmark = pytest.mark.finished  # the books of another strategy on the predictions that there are

# Limits that nothing reaches.
WIDE = LimitsSpec(position=1.0, drawdown=DrawdownSpec(block=1.0, reduce=1.0, flatten=1.0), collar=0.9)
BOLD = StrategySpec(name="long_only_top_k", params={"k": 2, "max_weight": 0.5})


@pytest.fixture
def free(workspace: Workspace, folder: Path) -> Study:
    """Run without limits: half of the equity in each of two symbols."""
    return run(workspace, small_experiment(folder, strategy=BOLD))[0]


def under(free: Study, **limits: Any) -> Study:
    """The same experiment, run with some limits and otherwise wide ones."""
    limited = msgspec.structs.replace(free.experiment, limits=msgspec.structs.replace(WIDE, **limits))
    return run(free.workspace, limited)[0]


def traded_again(study: Study) -> BacktestResult:
    return book(study, tradable(study, "ridge", predicted_by(study, "ridge")), out_of_sample(study))


def facts(study: Study) -> dict[str, Any]:
    """What the run kept of its book."""
    return study.lake.manifests(EQUITY, study.key)["ridge"].metadata


def most(study: Study, name: str) -> float:
    """Largest value of a column of the book's exposure."""
    values = traded_again(study).exposure[name]
    return float(values.max())  # type: ignore[arg-type]  # a number


def test_limits_that_nothing_reaches_change_no_figure_and_no_stored_prediction(free: Study) -> None:
    wide = under(free)
    assert wide.key != free.key
    assert wide.engine_key(wide.experiment.engines[1]) == free.engine_key(free.experiment.engines[1])
    beside = ("notes", "limits")
    told = {name: value for name, value in facts(free).items() if name not in beside}
    assert told == {name: value for name, value in facts(wide).items() if name not in beside}
    assert facts(free)["limits"] is None
    assert traded_again(wide).limits == LimitsReached(slots=228, cut={"position": 0, "gross": 0, "net": 0})
    assert facts(wide)["notes"][-1] == "The drawdown policy was on; no level of it was reached."
    assert facts(free)["clips"] == dict.fromkeys(facts(free)["clips"], 0)


def test_each_limit_binds_the_book_of_a_run(free: Study) -> None:
    assert most(free, "gross") > 0.9
    position = under(free, position=0.2)
    assert most(position, "gross") == pytest.approx(0.4, abs=0.05)
    assert facts(position)["clips"]["position"] > 0
    gross = under(free, gross=0.3)
    assert most(gross, "gross") == pytest.approx(0.3, abs=0.05)
    assert facts(gross)["clips"]["gross"] > 0
    net = under(free, net=0.25)
    assert most(net, "net") == pytest.approx(0.25, abs=0.05)
    assert (facts(net)["clips"]["net"] > 0, facts(net)["clips"]["gross"]) == (True, 0)
    collar = under(free, collar=0.004)
    assert facts(collar)["orders"]["collar"] > 0
    assert facts(free)["orders"]["collar"] == 0
    assert any("over 0.4% off the signal's close" in note for note in facts(collar)["notes"])


def test_the_drawdown_policy_flattens_a_run_that_loses_two_percent(free: Study) -> None:
    assert facts(free)["max_drawdown"] < -0.02
    study = under(free, drawdown=DrawdownSpec())
    made = traded_again(study)
    flat = (pl.col("drawdown_level") == 3) & (pl.col("drawdown_level").shift(1) == 3)
    gross = made.exposure.filter(flat)["gross"]
    assert (len(gross) > 20, gross.max()) == (True, 0.0), "what is held when the level is reached is sold at the next open"
    assert made.max_drawdown > facts(free)["max_drawdown"]
    assert_told(study, made)


def assert_told(study: Study, made: BacktestResult) -> None:
    """What a flattened book says of itself is the same by every door, and in the result's first sentences."""
    result = study.workspace.call(result_of, study.workspace.settings, study.experiment)
    assert made.limits == result.limits["ridge"] is not None
    assert made.limits.levels[-1].level == "flatten"
    assert set(limit_notes(made.limits)) <= set(made.notes)
    traded = result.limits["ensemble"]
    assert traded is not None
    assert traded.flat_since is not None
    assert result.sentences[2 : 2 + len(limit_notes(traded))] == limit_notes(traded)
    page = result.path.read_text(encoding="utf-8")
    assert f"it has held nothing since {traded.flat_since:%Y-%m-%d}" in page
    assert "run a copy of the experiment that leaves out <code>limits</code>" in page


def test_a_benchmark_is_not_limited(free: Study) -> None:
    limited = study_of(free.workspace, msgspec.structs.replace(free.experiment, limits="default"))
    mine, theirs = (benchmark_book(study, out_of_sample(free)) for study in (limited, free))
    assert mine.equity.equals(theirs.equity)


def test_other_limits_are_another_trial_and_another_fingerprint_and_the_default_by_name_is_the_default(free: Study) -> None:
    def study(limits: Any) -> Study:
        return study_of(free.workspace, msgspec.structs.replace(free.experiment, limits=limits))

    named, written, other = study("default"), study(LimitsSpec()), study(LimitsSpec(net=0.5))
    assert named.key == written.key
    assert len({free.key, named.key, other.key}) == 3
    assert len({book_fingerprint(one) for one in (free, named, other)}) == 3
