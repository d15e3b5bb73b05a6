"""The door to the trial ledger: for everything that evaluates a configuration, and for what asks how much was tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl

from tidemill.domain.experiment import LabelSpec
from tidemill.research.workspace import Workspace
from tidemill.storage.trials import Recorded, TrialBatch, read_returns
from tidemill.storage.trials import record_trials as record_in
from tidemill.validation.selection import Estimate, Selection, select

_CONFIGURATION = ("config_hash", "label", "universe")


def record_trials(workspace: Workspace, batch: TrialBatch) -> Recorded:
    """Count the trials of a batch in this workspace's ledger; the same again changes nothing.

    One call for a whole sweep: a thousand trials of 1,259 returns take well under a second. Whatever looks at how a
    configuration did on data calls this, before its result is shown.
    """
    return workspace.call(record_in, workspace.database, workspace.lake, batch)


def label_text(label: LabelSpec) -> str:
    """A label as the ledger names it: all that declares it."""
    return " ".join(f"{name}={value}" for name, value in msgspec.to_builtins(label).items())


class Judgement(NamedTuple):
    """A selection, and what it makes of each trial that was looked at: one row each of `trials`.

    trials: the rows of `read_trials` with `deflated_sharpe`, `deflated_sharpe_clustered` and `pbo_when_best` beside them.
    """

    selection: Selection
    trials: pl.DataFrame


def judge(workspace: Workspace, counted: pl.DataFrame, looked_at: Sequence[str]) -> Judgement:
    """The selection among all `counted` trials (rows of `read_trials`), and the figures of those that are looked at."""
    configurations = counted.sort("end_time", "counted_at", nulls_last=False).unique(_CONFIGURATION, keep="last")
    chosen = counted.filter(pl.col("trial_id").is_in(list(looked_at)))
    # A configuration stands for itself by its newest data, and by the very series that is looked at where there is one.
    rest = configurations.join(chosen.select(_CONFIGURATION), on=_CONFIGURATION, how="anti")
    shown = pl.concat([chosen.unique(_CONFIGURATION, keep="last", maintain_order=True), rest.sort("counted_at", "trial_id")])
    returns = _matrix(read_returns(workspace.lake, shown), shown["trial_id"].to_list())
    anchor = shown["trial_id"].is_in(chosen["trial_id"].to_list()).to_numpy()
    selection = select(counted["sharpe"].fill_null(np.nan).to_numpy(), returns, returns[:, anchor])
    column = {trial: at for at, trial in enumerate(shown["trial_id"])}
    figures = [_figures(selection, row, column.get(row["trial_id"])) for row in chosen.to_dicts()]
    schema = dict.fromkeys(("deflated_sharpe", "deflated_sharpe_clustered", "pbo_when_best"), pl.Float64)
    return Judgement(selection, pl.concat([chosen, pl.DataFrame(figures, schema=schema, orient="row")], how="horizontal"))


def _matrix(returns: pl.DataFrame, trials: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
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
    return tuple(value if np.isfinite(value) else None for value in found)
