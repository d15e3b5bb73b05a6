"""The ledger counts each trial once, keeps its returns, and takes thousands at once."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tidemill.domain.errors import InputError
from tidemill.storage.lake import Lake
from tidemill.storage.merge import Merged
from tidemill.storage.postgres import Database
from tidemill.storage.trials import (
    TrialBatch,
    family_version,
    ledger_since,
    read_returns,
    read_trials,
    record_trials,
    reset_ledger,
)

START = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def batch(count: int = 3, length: int = 50, seed: int = 1, **changes: Any) -> TrialBatch:
    times = pl.Series([START + timedelta(days=day) for day in range(length)], dtype=pl.Datetime("us", "UTC"))
    values: dict[str, Any] = {
        "experiment": "mine",
        "kind": "sweep",
        "family": "v.1d",
        "universe": "v.1d.all",
        "data_version": "d1",
        "label": "h5",
        "engines": ["sma_cross"] * count,
        "configs": [{"fast": number, "slow": 50} for number in range(count)],
        "times": times,
        "returns": np.random.default_rng(seed).normal(0.001, 0.01, (length, count)),
        "periods_per_year": 252.0,
        **changes,
    }
    return TrialBatch(**values)


async def test_a_rerun_counts_once_and_keeps_the_time_of_the_first(database: Database, lake: Lake) -> None:
    first = await record_trials(database, lake, batch())
    assert first.merged == Merged(inserted=3)
    counted = (await read_trials(database))["counted_at"].to_list()
    again = await record_trials(database, lake, batch())
    assert again.merged == Merged(unchanged=3)
    assert again.trial_ids == first.trial_ids
    assert (await read_trials(database))["counted_at"].to_list() == counted
    assert len(lake.manifests("trials", "v.1d")) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"data_version": "d2"},
        {"label": "h1"},
        {"universe": "v.1d.u1"},
        {"configs": [{"fast": number, "slow": 60} for number in range(3)]},
        {"engines": ["other"] * 3},
    ],
)
async def test_other_data_label_universe_or_configuration_is_another_trial(
    database: Database, lake: Lake, change: dict[str, Any]
) -> None:
    await record_trials(database, lake, batch())
    assert (await record_trials(database, lake, batch(**change))).merged == Merged(inserted=3)


async def test_what_is_not_part_of_a_trial_does_not_make_a_new_one(database: Database, lake: Lake) -> None:
    await record_trials(database, lake, batch())
    turned = [{"slow": 50, "fast": number} for number in range(3)]
    assert (await record_trials(database, lake, batch(configs=turned, kind="search"))).merged == Merged(updated=3)
    assert (await read_trials(database)).height == 3


async def test_changed_returns_replace_those_of_a_trial_and_of_no_other(database: Database, lake: Lake) -> None:
    await record_trials(database, lake, batch())
    changed = batch().returns.copy()
    changed[:, 1] *= 2.0
    assert (await record_trials(database, lake, batch(returns=changed))).merged == Merged(updated=1, unchanged=2)
    rows = await read_trials(database)
    stored = read_returns(lake, rows)
    ids = (await record_trials(database, lake, batch(returns=changed))).trial_ids
    for at, name in enumerate(ids):
        assert stored.filter(pl.col("trial_id") == name)["return"].to_list() == changed[:, at].tolist()


async def test_figures_of_a_trial_are_those_of_its_returns(database: Database, lake: Lake) -> None:
    returns = batch().returns.copy()
    returns[:7, 0] = np.nan
    returns[:, 2] = np.nan
    ids = (await record_trials(database, lake, batch(returns=returns, metrics=[{"ic": 0.1}, {}, {}]))).trial_ids
    rows = {row["trial_id"]: row for row in (await read_trials(database)).to_dicts()}
    late, whole, none = (rows[name] for name in ids)
    own = returns[7:, 0]
    assert late["sharpe"] == pytest.approx(own.mean() / own.std(ddof=1), rel=1e-12)
    assert (late["observations"], late["start_time"], late["metrics"]) == (43, START + timedelta(days=7), '{"ic": 0.1}')
    assert (whole["observations"], whole["start_time"], whole["end_time"]) == (50, START, START + timedelta(days=49))
    assert (none["observations"], none["sharpe"], none["start_time"]) == (0, None, None)
    assert read_returns(lake, await read_trials(database))["trial_id"].n_unique() == 2


async def test_a_thousand_trials_are_recorded_in_one_call(database: Database, lake: Lake) -> None:
    many = batch(count=1_000, length=300)
    recorded = await record_trials(database, lake, many)
    assert recorded.merged == Merged(inserted=1_000)
    assert (await read_trials(database)).height == 1_000
    chosen = (await read_trials(database, trial_ids=recorded.trial_ids[17:19])).head(1)
    assert read_returns(lake, chosen).height == 300


async def test_the_version_of_a_family_tells_its_trials_and_their_returns(database: Database, lake: Lake) -> None:
    empty = await family_version(database, "v.1d")
    await record_trials(database, lake, batch())
    one = await family_version(database, "v.1d")
    await record_trials(database, lake, batch(family="w.1d", universe="w.1d.all"))
    await record_trials(database, lake, batch(experiment="again"))
    assert await family_version(database, "v.1d") == one
    await record_trials(database, lake, batch(seed=2))
    two = await family_version(database, "v.1d")
    await record_trials(database, lake, batch(count=4, seed=2))
    assert len({empty, one, two, await family_version(database, "v.1d")}) == 4


async def test_a_configuration_that_a_batch_holds_twice_counts_once(database: Database, lake: Lake) -> None:
    same = [{"fast": 5}, {"fast": 7}, {"fast": 5}]
    recorded = await record_trials(database, lake, batch(configs=same))
    assert recorded.merged == Merged(inserted=2)
    assert recorded.trial_ids[0] == recorded.trial_ids[2]
    stored = read_returns(lake, await read_trials(database, trial_ids=recorded.trial_ids[:1]))
    assert stored["return"].to_list() == batch().returns[:, 0].tolist()


async def test_trials_are_found_by_family_and_experiment(database: Database, lake: Lake) -> None:
    await record_trials(database, lake, batch())
    await record_trials(database, lake, batch(family="w.1h", universe="w.1h.all", experiment="other"))
    assert (await read_trials(database, family="w.1h"))["experiment"].to_list() == ["other"] * 3
    assert (await read_trials(database, experiment="mine")).height == 3
    assert (await read_trials(database, experiment="nobody's")).height == 0


async def test_a_reset_ledger_says_since_when_it_counts_and_what_it_forgot(database: Database, lake: Lake) -> None:
    begun = await ledger_since(database)
    assert begun.forgotten == 0
    await record_trials(database, lake, batch())
    after = await reset_ledger(database, "new data")
    assert (after.forgotten, after.reason) == (3, "new data")
    assert after.since > begun.since
    assert await ledger_since(database) == after
    assert (await read_trials(database)).height == 0


async def test_an_empty_batch_counts_nothing(database: Database, lake: Lake) -> None:
    nothing = batch(count=0, returns=np.empty((50, 0)))
    assert (await record_trials(database, lake, nothing)).trial_ids == ()


@pytest.mark.parametrize(
    "change", [{"returns": np.zeros((50, 2))}, {"metrics": [{}]}, {"configs": [{}]}, {"returns": np.zeros(50)}]
)
async def test_shapes_that_do_not_agree_are_refused(database: Database, lake: Lake, change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="each"):
        await record_trials(database, lake, batch(**change))
