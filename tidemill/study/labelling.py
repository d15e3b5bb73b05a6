"""The one way to labels: what bars of a study are followed by, none across what may be an unrecorded corporate action."""

from __future__ import annotations

import polars as pl

from tidemill.study.sources import suspected_actions
from tidemill.study.study import Study
from tidemill.validation.custom_labels import custom_labels
from tidemill.validation.labels import forward_return


def labelled(study: Study, bars: pl.DataFrame) -> pl.DataFrame:
    """symbol, open_time, label, label_end_at of the experiment's label, one row for each of these adjusted bars.

    The run, and whoever fits a model again to prove it, ask here: the same bars have the same labels for both.
    """
    marks = suspected_actions(study)
    if study.label is None:
        return forward_return(bars, study.experiment.label.horizon, study.dataset.interval, suspected=marks)
    return custom_labels(bars, study.label, suspected=marks)
