"""The door to the trial ledger: for everything that evaluates a configuration, and for what asks how much was tried."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
import polars as pl

from tidemill.calendars import periods_per_year
from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.experiment import EngineSpec, LabelSpec
from tidemill.domain.numbers import finite
from tidemill.metrics.bootstrap import NOT_DEFINED, sharpe_interval
from tidemill.metrics.returns import Floats
from tidemill.provenance import fingerprint
from tidemill.storage.trials import (
    LedgerSince,
    Recorded,
    TrialBatch,
    ledger_since,
    read_returns,
    read_trials,
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
        periods_per_year=bars_a_year(study),
        metrics=list(what.metrics),
    )
    return record_trials(study.workspace, batch)


def label_text(label: LabelSpec) -> str:
    """A label as the ledger names it: all that declares it."""
    return " ".join(f"{name}={value}" for name, value in msgspec.to_builtins(label).items())


class Judgement(NamedTuple):
    """A selection, and what it makes of each trial that was looked at: one row each of `trials`.

    trials: the rows of `read_trials` with `deflated_sharpe`, `deflated_sharpe_clustered` and `pbo_when_best` beside them.
    """

    selection: Selection
    trials: pl.DataFrame


def judge(workspace: Workspace, counted: pl.DataFrame, looked_at: Sequence[str], *, alone: bool = False) -> Judgement:
    """The selection among all `counted` trials (rows of `read_trials`), and the figures of those that are looked at.

    alone: PBO among those that are looked at, instead of all that have returns at their times.
    """
    configurations = counted.sort("end_time", "counted_at", nulls_last=False).unique(_CONFIGURATION, keep="last")
    chosen = counted.filter(pl.col("trial_id").is_in(list(looked_at)))
    # A configuration stands for itself by its newest data, and by the very series that is looked at where there is one.
    rest = configurations.join(chosen.select(_CONFIGURATION), on=_CONFIGURATION, how="anti")
    shown = pl.concat([chosen.unique(_CONFIGURATION, keep="last", maintain_order=True), rest.sort("counted_at", "trial_id")])
    returns = _matrix(read_returns(workspace.lake, shown), shown["trial_id"].to_list())
    anchor = np.flatnonzero(shown["trial_id"].is_in(chosen["trial_id"].to_list()).to_numpy())
    sharpes = counted["sharpe"].fill_null(np.nan).to_numpy()
    selection = select(sharpes, returns, anchor=anchor, competitors=anchor if alone else None)
    column = {trial: at for at, trial in enumerate(shown["trial_id"])}
    figures = [_figures(selection, row, column.get(row["trial_id"])) for row in chosen.to_dicts()]
    schema = dict.fromkeys(("deflated_sharpe", "deflated_sharpe_clustered", "pbo_when_best"), pl.Float64)
    return Judgement(selection, pl.concat([chosen, pl.DataFrame(figures, schema=schema, orient="row")], how="horizontal"))


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Trials side by side. Sharpe ratios are annualised.

    rows: trial, experiment, engine, kind, config, label, universe, data_version, start, end, observations, sharpe, sharpe_low,
    sharpe_high, deflated_sharpe, deflated_sharpe_clustered, pbo_when_best. counted, clusters: trials on that source in all, and
    how many of them differ. pbo: among the compared ones over the times that they have in common, None where it is not
    defined; pbo_trials, pbo_blocks: how many took part, and into how many blocks the time was cut. since: when the ledger began
    to count.
    """

    family: str
    since: datetime
    counted: int
    clusters: int
    expected_maximum_sharpe: float
    expected_maximum_sharpe_clustered: float
    pbo: float | None
    pbo_trials: int | None
    pbo_blocks: int | None
    rows: tuple[dict[str, Any], ...]


def list_trials(workspace: Workspace, *, experiment: str | None = None, family: str | None = None) -> pl.DataFrame:
    """Trials in the order in which they were counted: trial, counted_at, experiment, engine, kind, …, Sharpe ratio a year."""
    found = workspace.call(read_trials, workspace.database, experiment=experiment, family=family)
    yearly = pl.col("sharpe") * pl.col("periods_per_year").sqrt()
    return found.select(
        pl.col("trial_id").alias("trial"),
        *("counted_at", "experiment", "engine", "kind", "family", "universe", "label", "data_version", "config"),
        *("start_time", "end_time", "observations"),
        yearly.alias("sharpe"),
        "metrics",
    )


def since(workspace: Workspace) -> LedgerSince:
    """Since when the ledger counts."""
    return workspace.call(ledger_since, workspace.database)


def reset(workspace: Workspace, reason: str) -> LedgerSince:
    """Forget all trials; every later answer says since when the ledger counts. The series stay in the lake."""
    return workspace.call(reset_ledger, workspace.database, reason)


def compare(workspace: Workspace, trial_ids: Sequence[str], *, experiment: str | None = None) -> Comparison:
    """Trials by id, or all of an experiment. InputError unless they are of one source, UnknownNameError for unknown ones."""
    if bool(trial_ids) == (experiment is not None):
        raise InputError("Name trials by their ids, or one experiment with --experiment.")
    wanted = list(dict.fromkeys(trial_ids)) if trial_ids else None
    chosen = workspace.call(read_trials, workspace.database, experiment=experiment, trial_ids=wanted)
    _require_found(chosen, wanted, experiment)
    families = chosen["family"].unique().sort().to_list()
    if len(families) > 1:
        raise InputError(
            f"These trials are of different sources ({', '.join(families)}) and do not compete. Compare those of one, by ids."
        )
    counted = workspace.call(read_trials, workspace.database, family=families[0])
    found = judge(workspace, counted, chosen["trial_id"].to_list(), alone=True)
    series = {str(key[0]): own["return"].to_numpy() for key, own in read_returns(workspace.lake, chosen).group_by("trial_id")}
    selection, overfitting = found.selection, found.selection.overfitting
    year = math.sqrt(chosen["periods_per_year"][-1] or 1.0)
    return Comparison(
        family=families[0],
        since=since(workspace).since,
        counted=selection.trials,
        clusters=selection.clusters,
        expected_maximum_sharpe=selection.expected_maximum * year,
        expected_maximum_sharpe_clustered=selection.expected_maximum_clustered * year,
        pbo=overfitting.pbo if overfitting else None,
        pbo_trials=overfitting.trials if overfitting else None,
        pbo_blocks=overfitting.blocks if overfitting else None,
        rows=tuple(_compared(row, series.get(row["trial_id"])) for row in found.trials.to_dicts()),
    )


def _require_found(chosen: pl.DataFrame, wanted: Sequence[str] | None, experiment: str | None) -> None:
    missing = sorted(set(wanted or ()) - set(chosen["trial_id"]))
    if missing:
        raise UnknownNameError("trial", missing[0], hint="`tidemill trials list` shows all.")
    if chosen.is_empty():
        raise UnknownNameError("experiment in the ledger", str(experiment), hint="`tidemill trials list` shows all trials.")


def _compared(row: Mapping[str, Any], returns: Floats | None) -> dict[str, Any]:
    periods = row["periods_per_year"] or 1.0
    interval = sharpe_interval(returns, periods) if returns is not None else NOT_DEFINED
    same = ("experiment", "engine", "kind", "label", "universe", "data_version", "observations")
    judged = ("deflated_sharpe", "deflated_sharpe_clustered", "pbo_when_best")
    return {
        "trial": row["trial_id"],
        **{name: row[name] for name in same},
        "config": msgspec.json.decode(row["config"]),
        "start": row["start_time"],
        "end": row["end_time"],
        "sharpe": None if row["sharpe"] is None else row["sharpe"] * math.sqrt(periods),
        "sharpe_low": finite(interval.low),
        "sharpe_high": finite(interval.high),
        **{name: row[name] for name in judged},
    }


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


def bars_a_year(study: Study) -> float:
    """Periods in a year of a book over this study's instruments: those of all their slots together."""
    interval, chosen = study.dataset.interval, set(study.experiment.dataset.symbols)
    known = instruments_of(study.workspace, study.dataset.venue)
    return periods_per_year(interval, {one.calendar for one in known.values() if not chosen or one.symbol in chosen})


_DECIDES_NOTHING = ("name", "dataset", "label", "benchmark", "promotion", "modules", "engines")


def configuration(study: Study, book: str | EngineSpec) -> dict[str, Any]:
    """Everything that decides a book besides data, label and universe, as the experiment states it with all defaults.

    The experiment's name, its benchmark and its rules of promotion decide nothing. Code of a user's own counts by its hash.
    """
    spec, registry = study.experiment.strategy, study.registry
    if isinstance(book, EngineSpec):
        members: tuple[EngineSpec, ...] = (book,)
    else:
        members = study.experiment.engines if book == ENSEMBLE else (spec_of(study, book),)
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
    actions = study.adjustments.sort("symbol", "ex_time", "kind").rows()
    return fingerprint(study.bars_version, actions)
