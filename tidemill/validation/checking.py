"""What an experiment says of its label and its splits, checked before any work."""

from tidemill.domain.errors import InputError
from tidemill.domain.experiment import LabelSpec, SplitSpec
from tidemill.validation.splits import TEST_LADDER, require_room


def check(label: LabelSpec, splits: SplitSpec | None, lookback: int) -> None:
    """InputError where no history could be long enough: a label outlasts its fold, or the embargo eats the training window.

    lookback: longest finite look-back of the features, in bars.
    """
    if splits is not None:
        if label.horizon > splits.test:
            raise InputError(
                f"label.horizon is {label.horizon}; it must be at most splits.test ({splits.test} bar times): a longer label "
                "has no outcome inside its fold."
            )
        require_room(splits, horizon=label.horizon, lookback=lookback)
    elif label.horizon > TEST_LADDER[-1]:
        raise InputError(f"label.horizon is {label.horizon}; without splits of your own it must be at most {TEST_LADDER[-1]}.")
