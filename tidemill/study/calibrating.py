"""Whether the confidence of a book's signals came true as often as it was claimed, in folds that came after what it is from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from tidemill.metrics.calibration import Calibration, calibration, tenths_of
from tidemill.study.deciders import Term
from tidemill.study.scoring import scored_rows
from tidemill.study.study import Study
from tidemill.trading.confidence import confidence


def calibration_of(study: Study, terms: Sequence[Term]) -> Calibration:
    """Each decider's map on the outcomes of its own fold, whose labels it did not know; all folds together.

    terms: of one book. A tenth is that of the fold's predictions, so that each is there in every fold. A fold before whose cut
    too little was known claims nothing, and is left out.
    """
    rows = [_claimed(study, term) for term in terms if term.decider.confidence]
    told = pl.concat(rows) if rows else _claimed(study, terms[0]).clear()
    claimed, tenth = (told[name].to_numpy() for name in ("claimed", "tenth"))
    slot = told["open_time"].rank("dense").cast(pl.Int64).to_numpy() - 1
    return calibration(claimed, (told["label"] > 0.0).to_numpy(), tenth, slot, study.experiment.label.horizon)


def _claimed(study: Study, term: Term) -> pl.DataFrame:
    """open_time, label, claimed (that it is above 0) and tenth of a decider's own fold."""
    inside = pl.col("open_time") >= term.start
    if term.end is not None:
        inside &= pl.col("open_time") < term.end
    rows = scored_rows(study, term.decider.book).filter(inside)
    predictions = rows["prediction"].cast(pl.Float64).to_numpy()
    claimed = confidence(term.decider.confidence, predictions, np.ones(len(predictions)))
    columns = (pl.Series("claimed", claimed), pl.Series("tenth", tenths_of(predictions)))
    return rows.select("open_time", pl.col("label").cast(pl.Float64), *columns)
