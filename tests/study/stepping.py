"""A book stepped on by a process of its own, which knows what is stored and nothing else.

    python -m tests.study.stepping TASKS.json

in the home that the environment names. The deciders come from Postgres, models, bars and the state of the chain from files.
What a run worked out of these (features, predictions, rejections, signals) is not looked at: to look at it is an error.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np
import polars as pl

from tests.study.accounts import Kept, Recorder
from tidemill.config import Settings, load_settings
from tidemill.experiments.tracked import content_of, experiments_of, meant
from tidemill.storage.lake import Lake
from tidemill.study.deciders import Term, terms_of
from tidemill.study.rejections import rejections_of
from tidemill.study.scheduled import walked
from tidemill.study.scoring import predicted_by
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.tables import SIGNALS
from tidemill.study.workspace import Workspace, open_workspace
from tidemill.trading.chain import Wanted
from tidemill.trading.confidence import confidence

# All that a session reads of the lake. The rest is what is to be found again.
_READ = {"bars", "flags", "imports", "failures"}
KEYS = ("symbol", "open_time")


class Task(msgspec.Struct, frozen=True):
    """One book of an experiment, by its id, from the slot after a saved state (None: from the first bar) until a slot.

    until: opens the last slot that is stepped, None for that of the last decider. save: where the state after it is kept.
    said: what each slot came to is written there, a row for each bar, and beside it what the account came to.
    """

    experiment: str
    book: str
    state: str | None
    until: datetime | None
    save: str | None
    said: str

    @property
    def accounts(self) -> list[str]:
        """The files of the frames of `accounts.Kept`."""
        return [f"{self.said}.{name}" for name in Kept._fields]


def step_apart(tasks: Sequence[Task], settings: Settings, folder: Path) -> None:
    """Step in a new process. CalledProcessError, with what it said, where that fails."""
    order = folder / "tasks.json"
    order.write_bytes(msgspec.json.encode(tasks))
    assert settings.postgres_dsn is not None
    assert settings.redis_url is not None
    told = {
        "TIDEMILL_HOME": str(settings.home),
        "TIDEMILL_POSTGRES_DSN": settings.postgres_dsn.reveal(),
        "TIDEMILL_REDIS_URL": settings.redis_url.reveal(),
        "TIDEMILL_CONNECTIONS": "2",
    }
    call = [sys.executable, "-m", "tests.study.stepping", str(order)]
    subprocess.run(call, check=True, timeout=900, env=os.environ | told)


def said_by(study: Study, terms: Sequence[Term], slots: Iterator[tuple[datetime, Wanted]]) -> tuple[pl.DataFrame, Kept]:
    """What slots came to, a row for each bar: features, predictions and rejections of each engine and the ensemble (those of a
    traded engine alone where it is one), and the signal, with nulls where nothing is asked. And what they made of the account.
    """
    names, symbols = _names(terms), np.array(sorted(study.bars["symbol"].unique()))
    present = {time: rows["symbol"].to_list() for (time,), rows in study.bars.select(KEYS).group_by("open_time")}
    traded = names.index(terms[0].decider.book)
    rows, recorder = [], Recorder(symbols.tolist())
    for time, wanted in slots:
        if wanted.traded is not None:
            recorder.take(time, wanted.traded)
        there = np.searchsorted(symbols, sorted(present.get(time, ())))
        rows.append(_rows(time, symbols, there, wanted, names, study.available.names, traded, _deciding(terms, time)))
    return pl.concat(rows).sort("symbol", "open_time"), recorder.kept()


def _names(terms: Sequence[Term]) -> list[str]:
    """The ensemble is the last of its engines; an engine that is traded for itself stands alone."""
    decider = terms[0].decider
    return [*decider.models, decider.book] if decider.ensemble else [*decider.models]


def _deciding(terms: Sequence[Term], time: datetime) -> Term:
    return terms[max(sum(term.start <= time for term in terms) - 1, 0)]


def _rows(
    time: datetime,
    symbols: np.ndarray[Any, Any],
    there: np.ndarray[Any, Any],
    wanted: Wanted,
    names: Sequence[str],
    features: Sequence[str],
    traded: int,
    term: Term,
) -> pl.DataFrame:
    weights = wanted.weights[there]
    direction = np.sign(weights)
    predictions = {f"prediction {name}": wanted.predictions[there, at] for at, name in enumerate(names)}
    return pl.DataFrame(
        {
            "symbol": symbols[there],
            "open_time": pl.Series([time] * len(there), dtype=pl.Datetime("us", "UTC")),
            **{f"feature {name}": wanted.features[there, at] for at, name in enumerate(features)},
            **predictions,
            **{f"rejected {name}": wanted.rejected[there, at] for at, name in enumerate(names)},
            "weight": weights,
            "direction": direction,
            "confidence": confidence(term.decider.confidence, wanted.predictions[there, traded], direction),
            "decider": pl.Series([term.decider.id] * len(there), dtype=pl.String),
        }
    )


def stored_by(study: Study, names: Sequence[str], book: str) -> pl.DataFrame:
    """What a run stored of all bars, in the form of `said_by`; names: of engines, and the ensemble last where it is traded."""
    rows = study.bars.select(KEYS)
    features = study.feature_frame.rename({name: f"feature {name}" for name in study.available.names})
    rejected = rejections_of(study)
    frames = [features.select(*KEYS, *(f"feature {name}" for name in study.available.names))]
    frames += [predicted_by(study, name).rename({"prediction": f"prediction {name}"}) for name in names]
    for name in names:
        own = rejected.filter(pl.col("book") == name).select(KEYS).unique()
        frames.append(own.with_columns(pl.lit(value=True).alias(f"rejected {name}")))
    signals = study.lake.scan(SIGNALS, study.key, partitions=[book]).collect()
    frames.append(signals.select(*KEYS, "weight", "direction", "confidence", "decider"))
    for frame in frames:
        rows = rows.join(frame, on=KEYS, how="left")
    return rows.with_columns(pl.col("^rejected .*$").fill_null(value=False)).sort(KEYS)


def differing(said: pl.DataFrame, stored: pl.DataFrame, since: datetime) -> dict[str, int]:
    """Column → how many values differ in a bit. Before `since` features alone are stored; a signal is one that asks."""
    keys = stored.filter(pl.col("open_time").is_between(said["open_time"].min(), said["open_time"].max()))
    assert said.select(KEYS).equals(keys.select(KEYS))
    counts, tested = {}, (said["open_time"] >= since).to_numpy()
    for name in said.columns[2:]:
        counts[name] = int(((_bits(said, name) != _bits(keys, name)) & (tested | name.startswith("feature "))).sum())
    return {name: count for name, count in counts.items() if count}


def _bits(frame: pl.DataFrame, name: str) -> np.ndarray[Any, Any]:
    values = frame[name]
    if name in {"direction", "confidence", "decider"}:
        values = frame.select(pl.when(pl.col("weight").is_finite()).then(name))[name]
    if values.dtype in {pl.String, pl.Boolean}:
        return values.fill_null("" if values.dtype == pl.String else False).to_numpy()
    numbers = values.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return np.where(np.isnan(numbers), np.nan, numbers).view(np.int64)


def step(workspace: Workspace, task: Task) -> None:
    known = workspace.call(experiments_of, workspace.database, workspace.settings.home)
    study = study_of(workspace, content_of(meant(known, task.experiment)))
    terms = terms_of(study, task.experiment, task.book)
    saving = {task.until: Path(task.save)} if task.until is not None and task.save is not None else {}
    begun = Path(task.state) if task.state else None
    slots = _until(walked(study, terms, trading=True, state=begun, save_after=saving), task.until)
    said, account = said_by(study, terms, slots)
    said.write_parquet(task.said)
    for frame, file in zip(account, task.accounts, strict=True):
        frame.write_parquet(file)


def _until(slots: Iterator[tuple[datetime, Wanted]], last: datetime | None) -> Iterator[tuple[datetime, Wanted]]:
    for time, wanted in slots:
        yield time, wanted
        if time == last:
            return


def _read_what_is_given_alone() -> None:
    scan, scan_partition = Lake.scan, Lake.scan_partition

    def refuse(table: str) -> NoReturn:
        raise AssertionError(f"the table {table} is what a run worked out")

    def scanning(self: Lake, table: str, *args: Any, **kwargs: Any) -> pl.LazyFrame:
        return scan(self, table, *args, **kwargs) if table in _READ else refuse(table)

    def scanning_partition(self: Lake, manifest: Any) -> pl.LazyFrame:
        return scan_partition(self, manifest) if manifest.table in _READ else refuse(manifest.table)

    Lake.scan, Lake.scan_partition = scanning, scanning_partition  # type: ignore[method-assign]


def main() -> None:
    _read_what_is_given_alone()
    tasks = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=list[Task])
    with open_workspace(load_settings()) as workspace:
        for task in tasks:
            step(workspace, task)


if __name__ == "__main__":
    main()
