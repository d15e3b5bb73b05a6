"""The chain over the bars of a study, by a schedule of deciders: what each asked for, slot by slot, while it was in force."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from types import MappingProxyType
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import polars as pl

from tidemill.backtest.backtest import terms_of
from tidemill.backtest.panel import bars_panel
from tidemill.backtest.result import BacktestResult
from tidemill.backtest.sessions import contiguous_slots, sessions_of
from tidemill.calendars import NEVER
from tidemill.domain.errors import InputError
from tidemill.domain.intervals import epoch_microseconds
from tidemill.market.adjusting import COLUMNS
from tidemill.market.told import told_actions
from tidemill.metrics.returns import performance_metrics
from tidemill.models.artifact import Artifact, load
from tidemill.strategies.base import Universe, Weighed
from tidemill.strategies.slots import book_slots
from tidemill.study.book import Span, options_of, resizes, traded, with_notes
from tidemill.study.context import index_versions, items_of
from tidemill.study.counting import bars_a_year
from tidemill.study.deciders import Term, known_to
from tidemill.study.model_index import artifact_folder, models_home
from tidemill.study.sources import instruments_of
from tidemill.study.study import Study
from tidemill.study.tables import ENSEMBLE
from tidemill.trading.arriving import BarsOfSlot
from tidemill.trading.chain import Chain, Wanted
from tidemill.trading.context import IndexVersion
from tidemill.trading.decider import Decider, deciding_of, links_of
from tidemill.trading.ordering import Desk
from tidemill.trading.saved import SavedChain, load_chain, save_chain

T = TypeVar("T")
_NOWHERE: Mapping[datetime, Path] = MappingProxyType({})


def walked(
    study: Study,
    terms: Sequence[Term],
    *,
    trading: bool = False,
    state: Path | None = None,
    save_after: Mapping[datetime, Path] = _NOWHERE,
) -> Iterator[tuple[datetime, Wanted]]:
    """Every slot of the study's bars up to the end of the last term, through the chain; before the first one it warms up.

    terms: of one book, in order of time. trading: an account trades what is asked, as the book of the schedule does, but books
    suspected actions as they come (`with_suspected`). state: file of a chain that was stopped; the slots after it are stepped.
    save_after: when a slot opens → the file that keeps the state after it. Arrays of an answer are the chain's own until the
    next slot.
    """
    begun = None if state is None else load_chain(state, terms[0].decider, known_to(study))
    for bars, wanted, chain, now in _stepped(study, terms, begun, trading=trading):
        if bars.open_time in save_after:
            saved = SavedChain(chain.state(), bars.open_time)
            save_chain(save_after[bars.open_time], saved, now.decider, known_to(study))
        yield bars.open_time, wanted


class _Step(NamedTuple):
    """One slot, what the chain made of it, and who decided."""

    bars: BarsOfSlot
    wanted: Wanted
    chain: Chain
    term: Term


def _stepped(study: Study, terms: Sequence[Term], begun: SavedChain | None = None, *, trading: bool = False) -> Iterator[_Step]:
    universe, slots = slots_of(study, terms[0].decider.anchor)
    read, known = partial(_load, study), known_to(study)
    now, *waiting = terms if begun is None else _left(terms, begun.after)
    links, carried = links_of(now.decider, known), None if begun is None else begun.state
    desk = desk_of(study, universe, now.decider) if trading else None
    chain = Chain(links, universe, deciding_of(now.decider, read), carried, since=terms[0].start, desk=desk)
    for bars in slots if begun is None else _following(slots, begun.after):
        if terms[-1].end is not None and bars.open_time >= terms[-1].end:
            return
        if waiting and bars.open_time >= waiting[0].start:
            now = waiting.pop(0)
            account_terms = desk_of(study, universe, now.decider).terms if trading else None
            chain.decide_by(deciding_of(now.decider, read), account_terms)
        yield _Step(bars, chain.step(bars), chain, now)


def _left(terms: Sequence[Term], after: datetime) -> Sequence[Term]:
    """The term that held in the slot that opened then, or the first where none did yet, and those after it."""
    begun = sum(term.start <= after for term in terms)
    return terms[max(begun - 1, 0) :]


def _following(slots: Iterable[BarsOfSlot], after: datetime) -> Iterator[BarsOfSlot]:
    return (bars for bars in slots if bars.open_time > after)


def asked_by(study: Study, terms: Sequence[Term]) -> Weighed:
    """symbol, open_time, weight of what the deciders asked for while they held, and the prediction of the book behind it, by
    time and symbol; with what the chain says of its book.
    """
    require_following(terms, study.times)
    symbols, rows = slots_of(study, terms[0].decider.anchor)[0].symbols, []
    notes: tuple[str, ...] = ()
    column = -1 if terms[0].decider.book == ENSEMBLE else 0  # a book of one engine has no other in it
    for bars, wanted, chain, _ in _stepped(study, terms):
        said, weights, notes = wanted.predictions[:, column], wanted.weights, chain.notes
        asked = np.flatnonzero(~np.isnan(weights))
        rows += [(symbols[at], bars.open_time, float(weights[at]), float(said[at])) for at in asked]
    numbers = dict.fromkeys(("weight", "prediction"), pl.Float64())
    schema = {"symbol": pl.String(), "open_time": study.bars.schema["open_time"], **numbers}
    return Weighed(pl.DataFrame(rows, schema=schema, orient="row"), notes)


def weights_by(study: Study, terms: Sequence[Term]) -> pl.DataFrame:
    """`asked_by` without the predictions."""
    return asked_by(study, terms).weights.drop("prediction")


def book_by(study: Study, terms: Sequence[Term]) -> BacktestResult:
    """The book of a schedule over its own range, after the experiment's costs."""
    asked, notes = asked_by(study, terms)
    return with_notes(traded(study, asked.drop("prediction"), Span(terms[0].start, terms[-1].end)), notes)


def figures_of(study: Study, result: BacktestResult) -> dict[str, float | int | None]:
    """What a book came to, by the names of a run's metrics and of its totals."""
    returns = result.returns.sort("time")
    measured = performance_metrics(returns["return"].to_numpy(), bars_a_year(study, returns["time"]))
    return {**measured, "final_equity": result.final_equity, "costs": result.costs, "trades": result.trades.height}


def require_following(terms: Sequence[Term], times: pl.Series) -> None:
    """InputError unless the terms are of one book and follow each other, with none of the bar times between them.

    Over a weekend one may end on Saturday and the next begin on Monday.
    """
    if len({term.decider.book for term in terms}) != 1:
        raise InputError("These deciders are of several books. Choose those of one.")
    for before, after in pairwise(terms):
        if before.end is None or before.end > after.start or times.is_between(before.end, after.start, closed="left").any():
            raise InputError(
                f"Between {before.decider.id} and {after.decider.id} nothing decides. Choose those that follow each other."
            )


class _Told(Generic[T]):
    """What becomes known in time, handed out as the clock goes."""

    def __init__(self, known: Iterable[tuple[int, T]]) -> None:
        self._known, self._at = sorted(known, key=itemgetter(0)), 0

    def until(self, time: int) -> list[T]:
        """All that became known since the last call and is known at `time`, epoch microseconds; in order of time."""
        first = self._at
        while self._at < len(self._known) and self._known[self._at][0] <= time:
            self._at += 1
        return [one for _, one in self._known[first : self._at]]


def _versions_told(study: Study) -> _Told[IndexVersion]:
    """Of the index that the experiment names, as its run stored it; those of one time by their days."""
    if study.experiment.features.fear_greed is None:
        return _Told(())
    rows = (
        index_versions(study)
        .sort("known_at", "stamp")
        .select(pl.col("stamp").dt.epoch("us"), "value", pl.col("known_at").dt.epoch("us"))
    )
    return _Told((version.known_at, version) for version in map(IndexVersion._make, rows.iter_rows()))


def _news_told(study: Study) -> _Told[tuple[str, float]]:
    """Symbol and score of every item, as the run scored it; nothing where the experiment reads no news."""
    rows = items_of(study).select(pl.col("known_at").dt.epoch("us"), "symbol", "score")
    return _Told((time, (symbol, score)) for time, symbol, score in rows.iter_rows())


def desk_of(study: Study, universe: Universe, decider: Decider) -> Desk:
    """Under what an account trades for a decider."""
    instruments = instruments_of(study.workspace, study.dataset.venue)
    terms = terms_of(universe.symbols, instruments, decider.costs, options_of(decider.limits, resize=resizes(study)))
    ends = [instruments[symbol].delisted_at if symbol in instruments else None for symbol in universe.symbols]
    delisted = np.array([NEVER if end is None else epoch_microseconds(end) for end in ends], dtype=np.int64)
    return Desk(terms, decider.costs.capital, delisted)


def slots_of(study: Study, anchor: datetime) -> tuple[Universe, Iterator[BarsOfSlot]]:
    """All slots of the study's raw bars, each with what becomes known with it: corporate actions, the index, news."""
    instruments = instruments_of(study.workspace, study.dataset.venue)
    axes, universe, slots = book_slots(None, study.bars, None, instruments, study.dataset.interval, epoch_microseconds(anchor))
    cells = axes.cells(study.bars)
    nothing = np.full(axes.shape, np.nan)
    panels = np.stack([axes.panel(cells, study.bars[name]) if name in study.bars.columns else nothing for name in COLUMNS])
    told, interval = told_actions(study.bars, study.adjustments), study.dataset.interval
    versions, news = _versions_told(study), _news_told(study)
    panel = bars_panel(study.bars, interval)
    contiguous = contiguous_slots(panel, interval, instruments)
    sessions = sessions_of(panel, interval, instruments)
    due = None if sessions is None else sessions.due[:, sessions.group]

    def each() -> Iterator[BarsOfSlot]:
        for at, time in enumerate(axes.times):
            rows = np.ascontiguousarray(panels[:, at])
            closed = epoch_microseconds(time) + interval.microseconds
            yield BarsOfSlot(
                time,
                int(slots.number[at]),
                rows,
                slots.present[at],
                slots.own[at],
                told.get(time, ()),
                versions.until(closed),
                news.until(closed),
                contiguous=bool(contiguous[at]),
                due=None if due is None else due[at],
            )

    return universe, each()


def _load(study: Study, model_id: str) -> Artifact:
    return load(artifact_folder(models_home(study.workspace), model_id))
