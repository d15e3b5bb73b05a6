"""The chain over the bars of a study that was run: one decider for each fold, in a schedule."""

import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from tidemill.study.deciders import Term, decider, window_of
from tidemill.study.scheduled import walked
from tidemill.study.study import Study
from tidemill.trading.chain import Wanted


def terms_of(study: Study, book: str) -> list[Term]:
    """The deciders of a book, that of a fold in each."""
    return [Term(decider(study, book, window_of(study, fold)), fold.test_start, fold.test_end) for fold in study.folds]


def stepped(
    study: Study, terms: Sequence[Term], *, trading: bool = False, reload_at: frozenset[int] = frozenset()
) -> Iterator[tuple[datetime, Wanted]]:
    """The chain over all slots; before those of `reload_at` a state is saved and taken up. The first decider warms up, too."""
    times = study.times
    stops = [times[at - 1] for at in sorted(reload_at)]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{at}.state") for at in range(len(stops))]
        for (_, state), (stop, saved) in pairwise([(None, None), *zip(stops, files, strict=True), (None, None)]):
            saving = {} if stop is None or saved is None else {stop: saved}
            for time, wanted in walked(study, terms, trading=trading, state=state, save_after=saving):
                yield time, wanted
                if time == stop:
                    break
