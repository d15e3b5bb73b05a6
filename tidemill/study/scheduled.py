"""The chain over the bars of a study, by a schedule of deciders: what each asked for, slot by slot, while it was in force."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

import numpy as np
import polars as pl

from tidemill.backtest.result import BacktestResult
from tidemill.domain.errors import InputError
from tidemill.domain.intervals import epoch_microseconds
from tidemill.market.adjusting import COLUMNS
from tidemill.market.told import told_actions
from tidemill.metrics.returns import performance_metrics
from tidemill.models.artifact import Artifact, load
from tidemill.strategies.base import Universe
from tidemill.strategies.slots import book_slots
from tidemill.study.book import Span, traded
from tidemill.study.counting import bars_a_year
from tidemill.study.deciders import Term, known_to
from tidemill.study.model_index import artifact_folder, models_home
from tidemill.study.sources import instruments_of
from tidemill.study.study import Study
from tidemill.trading.chain import BarsOfSlot, Chain, Wanted
from tidemill.trading.decider import deciding_of, links_of
from tidemill.trading.saved import SavedChain, load_chain, save_chain

_NOWHERE: Mapping[datetime, Path] = MappingProxyType({})


def walked(
    study: Study, terms: Sequence[Term], *, state: Path | None = None, save_after: Mapping[datetime, Path] = _NOWHERE
) -> Iterator[tuple[datetime, Wanted]]:
    """Every slot of the study's bars up to the end of the last term, through the chain; before the first one it warms up.

    terms: of one book, in order of time. state: file of a chain that was stopped; the slots after it are stepped. save_after:
    when a slot opens → the file that keeps the state after it. Arrays of an answer are the chain's own until the next slot.
    """
    _require_bars_alone(study)
    universe, slots = slots_of(study, terms[0].decider.anchor)
    known, read = known_to(study), partial(_load, study)
    begun = None if state is None else load_chain(state, terms[0].decider, known)
    now, *waiting = terms if begun is None else _left(terms, begun.after)
    links, carried = links_of(now.decider, known), None if begun is None else begun.state
    chain = Chain(links, universe, deciding_of(now.decider, read), carried, since=terms[0].start)
    for bars in slots if begun is None else _following(slots, begun.after):
        if terms[-1].end is not None and bars.open_time >= terms[-1].end:
            return
        if waiting and bars.open_time >= waiting[0].start:
            now = waiting.pop(0)
            chain.decide_by(deciding_of(now.decider, read))
        wanted = chain.step(bars)
        if bars.open_time in save_after:
            save_chain(save_after[bars.open_time], SavedChain(chain.state(), bars.open_time), now.decider, known)
        yield bars.open_time, wanted


def _left(terms: Sequence[Term], after: datetime) -> Sequence[Term]:
    """The term that held in the slot that opened then, or the first where none did yet, and those after it."""
    begun = sum(term.start <= after for term in terms)
    return terms[max(begun - 1, 0) :]


def _following(slots: Iterable[BarsOfSlot], after: datetime) -> Iterator[BarsOfSlot]:
    return (bars for bars in slots if bars.open_time > after)


def weights_by(study: Study, terms: Sequence[Term]) -> pl.DataFrame:
    """symbol, open_time, weight of what the deciders asked for while they held, by time and symbol."""
    require_following(terms)
    symbols, rows = slots_of(study, terms[0].decider.anchor)[0].symbols, []
    for time, wanted in walked(study, terms):
        asked = np.flatnonzero(~np.isnan(wanted.weights))
        rows += [(symbols[at], time, float(wanted.weights[at])) for at in asked]
    schema = {"symbol": pl.String(), "open_time": study.bars.schema["open_time"], "weight": pl.Float64()}
    return pl.DataFrame(rows, schema=schema, orient="row")


def book_by(study: Study, terms: Sequence[Term]) -> BacktestResult:
    """The book of a schedule over its own range, after the experiment's costs."""
    return traded(study, weights_by(study, terms), Span(terms[0].start, terms[-1].end))


def figures_by(study: Study, terms: Sequence[Term]) -> dict[str, float | int | None]:
    """What `book_by` came to, by the names of a run's metrics and of its totals."""
    result = book_by(study, terms)
    returns = result.returns.sort("time")
    measured = performance_metrics(returns["return"].to_numpy(), bars_a_year(study, returns["time"]))
    return {**measured, "final_equity": result.final_equity, "costs": result.costs, "trades": result.trades.height}


def require_following(terms: Sequence[Term]) -> None:
    """InputError unless the terms are of one book and follow each other without a hole."""
    if len({term.decider.book for term in terms}) != 1:
        raise InputError("These deciders are of several books. Choose those of one.")
    for before, after in pairwise(terms):
        if before.end != after.start:
            raise InputError(
                f"Between {before.decider.id} and {after.decider.id} nothing decides. Choose those that follow each other."
            )


def _require_bars_alone(study: Study) -> None:
    if study.experiment.news is not None or study.experiment.features.fear_greed is not None:
        raise InputError(
            f"The experiment {study.experiment.name!r} reads news or an index beside the bars, of which no history is stepped "
            "yet. Its book can be run again by `tidemill run` alone."
        )


def slots_of(study: Study, anchor: datetime) -> tuple[Universe, Iterator[BarsOfSlot]]:
    """All slots of the study's raw bars, each with the corporate actions that become known with it."""
    instruments = instruments_of(study.workspace, study.dataset.venue)
    axes, universe, slots = book_slots(None, study.bars, None, instruments, study.dataset.interval, epoch_microseconds(anchor))
    cells = axes.cells(study.bars)
    nothing = np.full(axes.shape, np.nan)
    panels = np.stack([axes.panel(cells, study.bars[name]) if name in study.bars.columns else nothing for name in COLUMNS])
    told = told_actions(study.bars, study.adjustments)

    def each() -> Iterator[BarsOfSlot]:
        for at, time in enumerate(axes.times):
            rows = np.ascontiguousarray(panels[:, at])
            yield BarsOfSlot(time, int(slots.number[at]), rows, slots.present[at], slots.own[at], told.get(time, ()))

    return universe, each()


def _load(study: Study, model_id: str) -> Artifact:
    return load(artifact_folder(models_home(study.workspace), model_id))
