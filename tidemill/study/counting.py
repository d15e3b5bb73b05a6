"""The door to the trial ledger for everything that evaluates a configuration; `queries.trials` asks what was tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
import polars as pl

from tidemill.calendars import by_calendar, epochs, periods_per_year_of
from tidemill.domain.experiment import EngineSpec, LabelSpec
from tidemill.domain.numbers import finite
from tidemill.metrics.returns import Floats
from tidemill.provenance import fingerprint
from tidemill.storage.lake import Lake
from tidemill.storage.trials import (
    LedgerSince,
    Recorded,
    TrialBatch,
    read_returns,
    reset_ledger,
)
from tidemill.storage.trials import record_trials as record_in
from tidemill.study.model_index import spec_of
from tidemill.study.sources import instruments_of
from tidemill.study.study import Study
from tidemill.study.tables import ENSEMBLE
from tidemill.study.workspace import Workspace
from tidemill.validation.selection import Estimate, Selection, select

_CONFIGURATION = ("config_hash", "label", "universe")


def record_trials(workspace: Workspace, batch: TrialBatch) -> Recorded:
    """Count the trials of a batch in this workspace's ledger; the same again changes nothing.

    One call for a whole sweep: a thousand trials of 1,259 returns take well under a second. Whatever looks at how a
    configuration did on data calls this, before its result is shown.
    """
    return workspace.call(record_in, workspace.database, workspace.lake, batch)


class Evaluated(NamedTuple):
    """What was evaluated on a study's data: one configuration for each column of `returns`.

    names: the engine or book of each. times: of the returns. version: of the data looked at, where it is less than all of it.
    """

    kind: str
    names: Sequence[str]
    configs: Sequence[dict[str, Any]]
    times: pl.Series
    returns: Floats
    version: str | None = None
    metrics: Sequence[dict[str, Any]] = ()

    @classmethod
    def one(cls, kind: str, name: str, config: dict[str, Any], returns: pl.DataFrame, **more: Any) -> Self:
        """A single configuration, with the `time, return` that it made."""
        series = np.asarray(returns["return"].to_numpy(), dtype=np.float64)[:, None]
        return cls(kind, [name], [config], returns["time"], series, **more)


def count(study: Study, what: Evaluated) -> Recorded:
    """Count evaluations of a study as trials of its source, label and universe."""
    batch = TrialBatch(
        experiment=study.experiment.name,
        kind=what.kind,
        family=study.dataset.bars_key,
        universe=study.dataset.key,
        data_version=what.version or data_version(study),
        label=label_text(study.experiment.label),
        engines=list(what.names),
        configs=list(what.configs),
        times=what.times.cast(pl.Datetime("us", "UTC")),
        returns=what.returns,
        periods_per_year=bars_a_year(study, what.times.filter(pl.Series(np.isfinite(what.returns).any(axis=1)))),
        metrics=list(what.metrics),
    )
    return record_trials(study.workspace, batch)


def label_text(label: LabelSpec) -> str:
    """A label as the ledger names it: all that declares it."""
    return " ".join(f"{name}={value}" for name, value in msgspec.to_builtins(label).items())


class TrialSelection(NamedTuple):
    """A selection, and what it makes of each trial that was looked at: one row each of `trials`.

    trials: the rows of `read_trials` with `deflated_sharpe`, `deflated_sharpe_clustered` and `pbo_when_best` beside them.
    """

    selection: Selection
    trials: pl.DataFrame


def select_trials(lake: Lake, counted: pl.DataFrame, looked_at: Sequence[str], *, alone: bool = False) -> TrialSelection:
    """The selection among all `counted` trials (rows of `read_trials`), and the figures of those that are looked at.

    alone: PBO among those that are looked at, instead of all that have returns at their times.
    """
    configurations = counted.sort("end_time", "counted_at", nulls_last=False).unique(_CONFIGURATION, keep="last")
    chosen = counted.filter(pl.col("trial_id").is_in(list(looked_at)))
    # A configuration stands for itself by its newest data, and by the very series that is looked at where there is one.
    rest = configurations.join(chosen.select(_CONFIGURATION), on=_CONFIGURATION, how="anti")
    shown = pl.concat([chosen.unique(_CONFIGURATION, keep="last", maintain_order=True), rest.sort("counted_at", "trial_id")])
    returns = _matrix(read_returns(lake, shown), shown["trial_id"].to_list())
    anchor = np.flatnonzero(shown["trial_id"].is_in(chosen["trial_id"].to_list()).to_numpy())
    sharpes = counted["sharpe"].fill_null(np.nan).to_numpy()
    selection = select(sharpes, returns, anchor=anchor, competitors=anchor if alone else None)
    column = {trial: at for at, trial in enumerate(shown["trial_id"])}
    figures = [_figures(selection, row, column.get(row["trial_id"])) for row in chosen.to_dicts()]
    schema = dict.fromkeys(("deflated_sharpe", "deflated_sharpe_clustered", "pbo_when_best"), pl.Float64)
    return TrialSelection(selection, pl.concat([chosen, pl.DataFrame(figures, schema=schema, orient="row")], how="horizontal"))


def reset(workspace: Workspace, reason: str) -> LedgerSince:
    """Forget all trials; every later answer says since when the ledger counts. The series stay in the lake."""
    return workspace.call(reset_ledger, workspace.database, reason)


def _matrix(returns: pl.DataFrame, trials: Sequence[str]) -> Floats:
    """[times, trials] over all times that any of them has, NaN where a trial has no return."""
    times = returns["time"].unique().sort()
    matrix = np.full((len(times), len(trials)), np.nan)
    column = {trial: at for at, trial in enumerate(trials)}
    for (trial,), own in returns.group_by("trial_id"):
        matrix[times.search_sorted(own["time"]).to_numpy(), column[str(trial)]] = own["return"].to_numpy()
    return matrix


def _figures(selection: Selection, row: Mapping[str, Any], column: int | None) -> tuple[float | None, ...]:
    named = ("sharpe", "skew", "kurtosis")
    moments = {name: float("nan") if row[name] is None else row[name] for name in named}
    trial = Estimate(observations=row["observations"], **moments)
    found = (
        selection.deflated(trial),
        selection.deflated_clustered(trial),
        float("nan") if column is None else selection.pbo_when_best(column),
    )
    return tuple(finite(value) for value in found)


def bars_a_year(study: Study, times: pl.Series) -> float:
    """Periods in a year of a book over this study's instruments that has returns at these times: those of all their slots
    together, while they were listed.
    """
    return periods_per_year_of(study.dataset.interval, epochs(times), study.once("listed", lambda: _listed(study)))


def _listed(study: Study) -> Mapping[str, tuple[int, int]]:
    chosen = study.experiment.dataset.symbols
    followed = {
        symbol: one.calendar
        for symbol, one in instruments_of(study.workspace, study.dataset.venue).items()
        if not chosen or symbol in chosen
    }
    return listed_by_calendar(followed, lambda: study.bars)


def listed_by_calendar(followed: Mapping[str, str], read: Callable[[], pl.DataFrame]) -> dict[str, tuple[int, int]]:
    """Calendar → epoch microseconds of the first and the last bar of any symbol that follows it.

    followed: symbol → calendar. read: the bars; not called where all follow one calendar, which is there at any time.
    """
    if len(names := set(followed.values())) < 2:
        return dict.fromkeys(names, (0, 0))
    bars, listed = read(), {}
    for name, own in by_calendar(bars["symbol"].unique().sort(), followed).items():
        times = epochs(bars.filter(pl.col("symbol").is_in(own))["open_time"])
        listed[name] = (int(times.min()), int(times.max()))
    return listed


_DECIDES_NOTHING = ("name", "dataset", "label", "benchmark", "promotion", "modules", "engines")


def configuration(study: Study, book: str | EngineSpec) -> dict[str, Any]:
    """Everything that decides a book besides data, label and universe, as the experiment states it with all defaults.

    The experiment's name, its benchmark and its rules of promotion decide nothing. Code of a user's own counts by its hash.
    """
    spec, registry = study.experiment.strategy, study.registry
    if isinstance(book, EngineSpec):
        members: tuple[EngineSpec, ...] = (book,)
    else:
        members = study.engines if book == ENSEMBLE else (spec_of(study, book),)
    stated: dict[str, Any] = msgspec.to_builtins(study.experiment)
    for name in _DECIDES_NOTHING if book == ENSEMBLE else (*_DECIDES_NOTHING, "ensemble"):
        del stated[name]
    stated["features"]["definitions"] = study.features.fingerprint
    stated["strategy"]["params"] = msgspec.to_builtins(registry.strategies.find(spec.name).parse(spec.params))
    own = {"strategy": registry.code("strategies", spec.name), "label": registry.code("labels", study.experiment.label.name)}
    own |= {member.name: registry.code("engines", member.name) for member in members}
    return {
        **stated,
        "engines": [msgspec.to_builtins(member) for member in members],
        "code": {name: source[0] for name, source in own.items() if source},
    }


def data_version(study: Study) -> str:
    """Of the bars and the corporate actions of the source."""
    return fingerprint(study.bars_version, study.action_rows)
