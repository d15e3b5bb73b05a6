"""The chain over the bars of a study, by a schedule of deciders: what each asked for, slot by slot, while it was in force."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import pairwise
from operator import itemgetter
from typing import Generic, TypeVar

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

T = TypeVar("T")


def walked(
    study: Study, terms: Sequence[Term], *, trading: bool = False, reload_at: Container[int] = ()
) -> Iterator[tuple[datetime, Wanted]]:
    """Every slot of the study's bars up to the end of the last term, through the chain; before the first one it warms up.

    terms: of one book, in order of time. trading: an account trades what is asked, as the book of the schedule does, but books
    suspected actions as they come (`with_suspected`). reload_at: numbers of slots before which the chain is made anew from its
    state, as a session that was stopped makes it. Arrays of an answer are the chain's own until the next slot.
    """
    return ((time, wanted) for time, wanted, _ in _stepped(study, terms, trading=trading, reload_at=reload_at))


def _stepped(
    study: Study, terms: Sequence[Term], *, trading: bool = False, reload_at: Container[int] = ()
) -> Iterator[tuple[datetime, Wanted, Chain]]:
    """`walked`, with the chain that answered."""
    universe, slots = slots_of(study, terms[0].decider.anchor)
    since, read = terms[0].start, partial(_load, study)
    links, deciding = links_of(terms[0].decider, known_to(study)), deciding_of(terms[0].decider, read)
    desk = desk_of(study, universe, terms[0].decider) if trading else None
    chain, waiting = Chain(links, universe, deciding, since=since, desk=desk), list(terms[1:])
    for at, bars in enumerate(slots):
        if terms[-1].end is not None and bars.open_time >= terms[-1].end:
            return
        if waiting and bars.open_time >= waiting[0].start:
            decider = waiting.pop(0).decider
            deciding, desk = deciding_of(decider, read), desk_of(study, universe, decider) if trading else None
            chain.decide_by(deciding, None if desk is None else desk.terms)
        if at in reload_at:
            chain = Chain(links, universe, deciding, chain.state(), since=since, desk=desk)
        yield bars.open_time, chain.step(bars), chain


def asked_by(study: Study, terms: Sequence[Term]) -> Weighed:
    """symbol, open_time, weight of what the deciders asked for while they held, and the prediction of the book behind it, by
    time and symbol; with what the chain says of its book.
    """
    require_following(terms, study.times)
    symbols, rows, last = slots_of(study, terms[0].decider.anchor)[0].symbols, [], None
    column = -1 if terms[0].decider.book == ENSEMBLE else 0  # a book of one engine has no other in it
    for time, wanted, chain in _stepped(study, terms):
        said, weights, last = wanted.predictions[:, column], wanted.weights, chain
        rows += [(symbols[at], time, float(weights[at]), float(said[at])) for at in np.flatnonzero(~np.isnan(weights))]
    numbers = dict.fromkeys(("weight", "prediction"), pl.Float64())
    schema = {"symbol": pl.String(), "open_time": study.bars.schema["open_time"], **numbers}
    return Weighed(pl.DataFrame(rows, schema=schema, orient="row"), () if last is None else last.notes)


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
