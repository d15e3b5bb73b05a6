"""The decider that a promotion would store, stepped over the bars of its comparison as a session would step it.

For a step no later row exists, and nothing is kept but what a chain carries. Where the steps say what was measured on whole
frames, to the bit, nothing in it looked ahead on these bars, in whatever way and however rarely.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tidemill.calendars import epochs
from tidemill.domain.errors import IntegrityError, StopError
from tidemill.strategies.slots import Axes
from tidemill.study.deciders import Term
from tidemill.study.study import Study
from tidemill.study.tables import ENSEMBLE
from tidemill.trading.decider import without_steps

Floats = NDArray[np.float64]

_PARTS = 4
_MEND = (
    "What was measured hung there on something that no session has: later rows, other rows, or what another call had kept. "
    "Mend it, and run its experiment again."
)


class Measured(NamedTuple):
    """What a comparison was made of, frames of symbol, open_time and values.

    features: a column for each. predicted: engine → prediction, and that of the ensemble where it is the book. weights: weight.
    """

    features: pl.DataFrame
    predicted: Mapping[str, pl.DataFrame]
    weights: pl.DataFrame


class Walk(NamedTuple):
    """slots: how many were stepped. departure: the first difference, in sentences; empty where there is none."""

    slots: int
    departure: str = ""


def unsteppable(study: Study, engines: tuple[str, ...]) -> tuple[str, ...]:
    """Why a book of these engines can be neither walked nor traded bar by bar; empty where it can."""
    known, strategy = study.registry, study.registry.strategies.find(study.experiment.strategy.name)
    return tuple(without_steps(strategy, study.available.functions, [known.engines.find(name) for name in engines]))


def walk(study: Study, term: Term, measured: Measured) -> Walk:
    """Step what decides in a term over the bars of a comparison, up to the first that is not what was measured.

    StopError where a step fails: what was measured is neither confirmed nor refuted then.
    """
    slots, whole = 0, measured.features["open_time"].n_unique()
    try:
        for terms in _ways(study, term, measured):
            slots = 0
            for departure in _departures(study, terms, measured):
                slots += 1
                if departure:
                    return Walk(slots, departure)
    except IntegrityError:
        raise
    except StopError as exc:
        raise StopError(
            f"Not promoted: what would trade fails where it is stepped, on the bars of the comparison. {exc}"
        ) from exc
    if slots < whole:
        raise IntegrityError(
            f"Not promoted: {slots} of the {whole} bars of the comparison were stepped. Run its experiment again."
        )
    return Walk(slots)


def _ways(study: Study, term: Term, measured: Measured) -> Iterator[list[Term]]:
    """In one go; and where modules are known, in parts: with each their processes begin anew, as a session does at any bar, and
    what an earlier call kept in them is gone.
    """
    yield [term]
    if study.registry.files or study.registry.beside:
        times = measured.features["open_time"].unique().sort()
        borders = [times[len(times) * part // _PARTS] for part in range(1, _PARTS)]
        yield [
            Term(term.decider, start, end)
            for start, end in zip([term.start, *borders], [*borders, term.end], strict=True)
            if start != end
        ]


def _departures(study: Study, terms: list[Term], measured: Measured) -> Iterator[str]:
    """Of each slot of the comparison where its step parts from what was measured; empty where it does not."""
    from tidemill.study.scheduled import walked  # numba, which a comparison that is not won does without

    expected = _Expected.of(measured, tuple(study.bars["symbol"].unique().sort()), terms[0].decider.strategy.name)
    traded = len(measured.predicted)  # the last column is the ensemble's, which a book of one engine has not
    for time, wanted in walked(study, terms):
        if time in expected.places:
            said = np.vstack((wanted.features.T, wanted.predictions.T[:traded], wanted.weights))
            yield expected.departure(time, said)


class _Expected(NamedTuple):
    """values: measured ones [links, times, symbols], the weights last. says: what each link answers, in words.

    places: time → its place. there: [times, symbols], whether there is a bar.
    """

    symbols: tuple[str, ...]
    places: Mapping[datetime, int]
    says: tuple[str, ...]
    values: Floats
    there: NDArray[np.bool_]

    @classmethod
    def of(cls, measured: Measured, symbols: tuple[str, ...], strategy: str) -> _Expected:
        names, times = measured.features.columns[2:], measured.features["open_time"].unique().sort()
        axes = Axes(times, epochs(times), symbols)
        cells = axes.cells(measured.features)
        columns = [axes.panel(cells, measured.features[name]) for name in names]
        columns += [axes.panel(axes.cells(frame), frame["prediction"]) for frame in measured.predicted.values()]
        asked = measured.weights.filter(pl.col("symbol").is_in(symbols), pl.col("open_time").is_in(times.implode()))
        columns.append(axes.panel(axes.cells(asked), asked["weight"]))
        says = (
            *(f"The feature {name} of" for name in names),
            *(f"The prediction of {'the' if name == ENSEMBLE else 'the engine'} {name} for" for name in measured.predicted),
            f"The weight that the strategy {strategy} asks for",
        )
        places = {time: at for at, time in enumerate(times)}
        return cls(symbols, places, says, np.stack(columns), axes.flags(cells, "features"))

    def departure(self, time: datetime, said: Floats) -> str:
        """The first link that answers something else at a time, in any bit, of the first symbol; empty where none does."""
        at = self.places[time]
        held = self.values[:, at]
        apart = (said != held) & ~(np.isnan(said) & np.isnan(held))
        apart[:-1] &= self.there[at]  # without a bar nothing but a weight counts
        if not apart.any():
            return ""
        link, symbol = np.argwhere(apart)[0]
        measured, stepped = _distinct(float(held[link, symbol]), float(said[link, symbol]))
        where = f"{self.says[link]} {self.symbols[symbol]} at {time:%Y-%m-%d %H:%M}"
        return f"{where} was measured as {measured}, and is {stepped} where it is stepped bar by bar. {_MEND}"


def _distinct(*values: float) -> tuple[str, ...]:
    """Numbers with as few digits as tell them apart."""
    for digits in (4, 8, 17):
        told = tuple("nothing" if np.isnan(value) else f"{value:.{digits}g}" for value in values)
        if len(set(told)) == len(told):
            break
    return told
