"""The chain over the bars of a study that was run: one decider for each fold, in a schedule."""

from collections.abc import Iterator
from datetime import datetime

from tidemill.study.deciders import Term, decider, window_of
from tidemill.study.scheduled import walked
from tidemill.study.study import Study
from tidemill.study.tables import ENSEMBLE
from tidemill.trading.chain import Wanted


def terms_of(study: Study, book: str) -> list[Term]:
    """The deciders of a book, that of a fold in each."""
    return [Term(decider(study, book, window_of(study, fold)), fold.test_start, fold.test_end) for fold in study.folds]


def chained(study: Study, book: str | None, *, reload_at: frozenset[int] = frozenset()) -> Iterator[tuple[datetime, Wanted]]:
    """The chain over all slots; at those of `reload_at` a state is saved and taken up. The first decider warms up, too."""
    return walked(study, terms_of(study, book or ENSEMBLE), reload_at=reload_at)
