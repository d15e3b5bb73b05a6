"""An experiment: everything that decides a result, in one frozen value. `docs/experiment.schema.json` is made from it."""

from typing import Any, Literal

import msgspec


class DatasetSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the bars come from. `start` is inclusive, `end` exclusive, ISO dates; `symbols` empty means all there are."""

    source: str = "sample"
    interval: str = "1d"
    symbols: tuple[str, ...] = ()
    start: str | None = None
    end: str | None = None


class FeatureSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which features the models see: named sets, and single names beside them."""

    sets: tuple[str, ...] = ("alpha30", "classic")
    names: tuple[str, ...] = ()


class LabelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Return from the next open, held for `horizon` of the symbol's own bars."""

    horizon: int = 5


class EngineSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One scorer of symbols; `params` override its documented defaults, an unknown one is an error."""

    name: str
    params: dict[str, Any] = {}


class SplitSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Walk-forward splits in bar times of the dataset, anchored at its first bar, so that new bars move no boundary.

    `embargo` None means max(horizon, longest finite look-back of the features); it is printed.
    """

    train: int
    test: int
    min_folds: int = 6
    embargo: int | None = None


class StrategySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: str = "quantile"
    params: dict[str, Any] = {}


class CostSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Basis points of notional, one way. `capital` in the quote currency."""

    fee_bps: float = 5.0
    slippage_bps: float = 5.0
    capital: float = 1_000_000.0


class Experiment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole of it. The benchmark is a name (`equal_weight`) or one symbol, bought and held."""

    name: str
    dataset: DatasetSpec
    features: FeatureSpec = FeatureSpec()
    label: LabelSpec = LabelSpec()
    engines: tuple[EngineSpec, ...] = ()
    ensemble: Literal["equal"] = "equal"
    splits: SplitSpec | None = None
    strategy: StrategySpec = StrategySpec()
    costs: CostSpec = CostSpec()
    benchmark: str = "equal_weight"
    seed: int = 7
