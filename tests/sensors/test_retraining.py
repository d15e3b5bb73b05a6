"""When a challenger is asked for, and that it is asked for once."""

from pathlib import Path

import dagster as dg
import msgspec
import polars as pl
import pytest

from sensors.retraining import Candidate, candidates, decide, retraining_schedule, retraining_sensor
from tests.study.panels import daily_bars, small_experiment
from tidemill.config import Settings
from tidemill.domain.experiment import LabelSpec, PromotionSpec
from tidemill.steps.performance.drift import Drift, reasons
from tidemill.storage.lake import Lake
from tidemill.study.registry import Registry
from tidemill.study.sources import venue_of
from tidemill.study.study import study_key

CALM = Drift(moved_features=0.1, worst="rsi_14", worst_index=0.3, skill_t=-0.5, bars=63, until="2024-05-01", new_bars=20)


def candidate(tmp_path: object, drift: Drift, name: str = "one") -> Candidate:
    experiment = msgspec.structs.replace(small_experiment(tmp_path), name=name)  # type: ignore[arg-type]  # a path
    return Candidate(experiment, drift)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"new_bars": None}, "no champion"),
        ({"new_bars": 126}, "126 new bars"),
        ({"moved_features": 0.3}, "30% of the features"),
        ({"skill_t": -2.0}, "rank IC fell"),
    ],
)
def test_each_reason_is_said_in_words(change: dict[str, object], words: str) -> None:
    assert reasons(CALM, PromotionSpec()) == ()
    (only,) = reasons(msgspec.structs.replace(CALM, **change), PromotionSpec())
    assert words in only


def test_a_reason_can_be_switched_off_or_made_stricter() -> None:
    many = msgspec.structs.replace(CALM, new_bars=10_000, skill_t=None)
    assert reasons(many, PromotionSpec(new_bars=0)) == ()
    assert reasons(CALM, PromotionSpec(moved_features=0.05)) != ()


def test_one_measurement_asks_once_and_the_next_asks_again(tmp_path: object) -> None:
    drifted = candidate(tmp_path, msgspec.structs.replace(CALM, moved_features=0.9))
    wanted, cursor = decide(None, [drifted, candidate(tmp_path, CALM, "calm")])
    assert [item.experiment.name for item in wanted] == ["one"]
    assert decide(cursor, [drifted]) == ([], cursor)
    later = msgspec.structs.replace(drifted, drift=msgspec.structs.replace(drifted.drift, until="2024-05-02"))
    again, _ = decide(cursor, [later])
    assert again[0].run_key != wanted[0].run_key


def test_what_was_never_measured_is_no_candidate(tmp_path: object, server_home: Settings) -> None:
    settings = msgspec.structs.replace(server_home, home=tmp_path)
    assert candidates([small_experiment(tmp_path)], settings) == []  # type: ignore[arg-type]  # a path


def test_an_experiment_with_a_label_of_its_own_is_found_under_the_horizon_that_the_label_has(
    tmp_path: Path, server_home: Settings
) -> None:
    (tmp_path / "own.py").write_text(
        'def rises(bars):\n    return bars.select("symbol", "open_time", later=pl.col("close"))\n\n\n'
        'label("later", rises, horizon=3)\n'
    )
    daily_bars(30).write_parquet(tmp_path / "bars.parquet")
    settings = msgspec.structs.replace(server_home, home=tmp_path / "home")
    stated = msgspec.structs.replace(
        small_experiment(tmp_path / "bars.parquet", limits="default"),
        label=LabelSpec(name="later"),
        modules=(str(tmp_path / "own.py"),),
    )
    registry = Registry.of(settings).with_files(stated.modules)
    known = registry.known(stated)
    assert (stated.label.horizon, known.label.horizon) == (5, 3)
    key = study_key(known, venue_of(known.dataset, settings), registry)
    Lake(settings.lake).write("drift", key, "features", pl.DataFrame(), metadata={"drift": msgspec.to_builtins(CALM)})
    assert [found.drift for found in candidates([stated], settings)] == [CALM]


def test_what_states_no_limits_is_no_candidate_since_its_promotion_is_refused(tmp_path: Path, server_home: Settings) -> None:
    settings = msgspec.structs.replace(server_home, home=tmp_path / "home")
    daily_bars(30).write_parquet(tmp_path / "bars.parquet")
    free = small_experiment(tmp_path / "bars.parquet")
    limited = msgspec.structs.replace(free, limits="default")
    for one in (free, limited):
        key = study_key(one, venue_of(one.dataset, settings))
        Lake(settings.lake).write("drift", key, "features", pl.DataFrame(), metadata={"drift": msgspec.to_builtins(CALM)})
    assert [found.experiment for found in candidates([free, limited], settings)] == [limited]


def test_nobody_is_promoted_before_somebody_switches_it_on() -> None:
    job = dg.define_asset_job("retraining", selection="*")
    assert retraining_sensor(job).default_status is dg.DefaultSensorStatus.STOPPED
    assert retraining_schedule(job).default_status is dg.DefaultScheduleStatus.STOPPED
