"""The chain over the bars of a study that was run: one decider for each fold, in a schedule."""

from collections.abc import Iterator
from datetime import datetime

import numpy as np

from tests.market.told import told_actions
from tidemill.calendars import epochs
from tidemill.domain.intervals import epoch_microseconds
from tidemill.domain.market import Instrument
from tidemill.market.adjusting import COLUMNS
from tidemill.models.artifact import Artifact, load
from tidemill.quality.validity import PastRange, widened
from tidemill.strategies.base import Universe
from tidemill.strategies.slots import book_slots
from tidemill.study.book import resolved, tested
from tidemill.study.model_index import artifact_folder, index_of, models_home, read_index
from tidemill.study.rejections import bounds_over, feature_rows
from tidemill.study.sources import instruments_of
from tidemill.study.study import Study
from tidemill.study.tables import REFUSALS, partition_of
from tidemill.trading.chain import BarsOfSlot, Chain, Deciding, Links, Wanted
from tidemill.validation.splits import Fold


def links_of(study: Study, book: str | None) -> Links:
    spec, known = resolved(study.experiment.strategy), study.registry.strategies
    strategy = known.find(spec.name)
    return Links(
        study.dataset.interval,
        study.available,
        3.0,
        study.experiment.validation,
        strategy,
        strategy.parse(spec.params),
        spec.neutralise,
        book,
        study.registry.engines,
    )


def deciding_of(study: Study, fold: Fold) -> Deciding:
    home = models_home(study.workspace)

    def model_of(model_id: str) -> Artifact:
        return load(artifact_folder(home, model_id))

    engines = {
        spec.name: model_of(next(one.model_id for one in index_of(study, spec).folds if one.fold == fold.number))
        for spec in study.experiment.engines
    }
    index = read_index(home, study.ensemble_key)
    assert index is not None
    ensemble = model_of(next(one.model_id for one in index.folds if one.fold == fold.number))
    bounds = bounds_over(study, feature_rows(study, fold.train_start, fold.train_end))
    return Deciding(engines, ensemble, bounds, {name: widened(said) for name, said in _said(study, fold).items()})


def _said(study: Study, fold: Fold) -> dict[str, list[PastRange | None]]:
    """What each engine said in the folds before."""
    earlier = {partition_of(one) for one in study.folds if one.number < fold.number}
    said: dict[str, list[PastRange | None]] = {spec.name: [] for spec in study.experiment.engines}
    for part, manifest in sorted(study.lake.manifests(REFUSALS, study.key).items()):
        for book, known in manifest.metadata["ranges"].items() if part in earlier else ():
            said[book].append(PastRange(*known) if known else None)
    return said


def slots_of(study: Study) -> tuple[Universe, Iterator[BarsOfSlot]]:
    instruments: dict[str, Instrument] = instruments_of(study.workspace, study.dataset.venue)
    axes, universe, slots = book_slots(
        None, study.bars, None, instruments, study.dataset.interval, epoch_microseconds(tested(study).start)
    )
    cells = axes.cells(study.bars)
    panels = np.stack([axes.panel(cells, study.bars[name]) if name in study.bars.columns else np.full(axes.shape, np.nan)
                       for name in COLUMNS])  # fmt: skip
    told = told_actions(study.bars, study.adjustments)

    def each() -> Iterator[BarsOfSlot]:
        for at, time in enumerate(axes.times):
            rows = np.ascontiguousarray(panels[:, at])
            yield BarsOfSlot(time, int(slots.number[at]), rows, slots.present[at], slots.own[at], told.get(time, ()))

    assert epochs(axes.times).tolist() == axes.opens.tolist()
    return universe, each()


def chained(study: Study, book: str | None, *, reload_at: frozenset[int] = frozenset()) -> Iterator[tuple[datetime, Wanted]]:
    """The chain over all slots; at those of `reload_at` a state is saved and taken up. The first decider warms up, too."""
    universe, slots = slots_of(study)
    links, folds = links_of(study, book), iter(study.folds)
    deciding = deciding_of(study, next(folds))
    chain, upcoming = Chain(links, universe, deciding), next(folds, None)
    for at, bars in enumerate(slots):
        if upcoming is not None and bars.open_time >= upcoming.test_start:
            deciding = deciding_of(study, upcoming)
            chain.decide_by(deciding)
            upcoming = next(folds, None)
        if at in reload_at:
            chain = Chain(links, universe, deciding, chain.state())
        yield bars.open_time, chain.step(bars)
