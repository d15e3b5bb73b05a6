"""The causality proof of what is fitted: at the border of a fold a model fitted on what was known by then has the same hash.

Between the borders a prediction is inference, which `causality.prove` judges like a feature.
"""

from collections.abc import Callable, Iterable, Mapping

import polars as pl

from tidemill.domain.errors import InputError, RetryError
from tidemill.domain.intervals import Interval, epoch_microseconds
from tidemill.validation.causality.inputs import proof_inputs
from tidemill.validation.causality.proof import Proof, Refutation
from tidemill.validation.splits import Fold

# fit(bars, fold) → hash of what a model was made of and of what it is.
Fit = Callable[[pl.DataFrame, Fold], str]


def prove_folds(
    name: str,
    fit: Fit,
    bars: pl.DataFrame,
    folds: Iterable[Fold],
    *,
    interval: Interval,
    stored: Mapping[int, str] | None = None,
    seed: int = 7,
) -> Proof:
    """Fit each fold on all bars, on those known when its test window begins, and on bars that are altered from there on.

    name: of what is fitted; it stands as `feature` in the proof. fit: does all that leads from bars to a model: features,
    labels, split, training. stored: fold number → hash that its model has already; it is not fitted on all bars then.
    Raises InputError where a fold cannot be fitted on all bars; one that cannot be fitted on what was known is refuted.
    """
    inputs = proof_inputs(bars, {}, interval.microseconds, seed)
    runs = 0
    for fold in folds:
        cut = epoch_microseconds(fold.test_start)
        known = (stored or {}).get(fold.number)
        whole, runs = known or fit(inputs.bars.frame, fold), runs + (2 if known else 3)
        for made, what in ((inputs.until(cut), "without"), (inputs.altered_after(cut), "with other")):
            why = _why(fit, made.bars.frame, fold, whole, what)
            if why is not None:
                symbol = str(inputs.bars.frame["symbol"][0])
                return Proof(proven=(), refuted=(Refutation(name, symbol, fold.test_start, why),), runs=runs)
    return Proof(proven=(name,), refuted=(), runs=runs)


def _why(fit: Fit, bars: pl.DataFrame, fold: Fold, whole: str, what: str) -> str | None:
    border = f"fold {fold.number}, whose test begins {fold.test_start:%Y-%m-%d %H:%M}"
    try:
        made = fit(bars, fold)
    except RetryError:
        raise
    except InputError as exc:
        return f"the model of {border}, cannot be fitted on what was known by then: {exc}"
    if made != whole:
        return f"the model of {border}, is another one when it is fitted {what} bars after that"
    return None
