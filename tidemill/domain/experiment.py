"""An experiment: everything that decides a result, in one frozen value. `docs/experiment.schema.json` is made from it.

Each number's range stands in its type, so that msgspec refuses what lies outside when an experiment is read; NaN and the
infinite lie in no range. A value made in Python is held against the same types by `domain.reading.require_fitting`.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

_MOST = 2**31 - 1  # more bars than there are, and the largest seed that every library takes
Count = Annotated[int, Meta(ge=1, le=_MOST)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Positive = Annotated[float, Meta(gt=0.0, le=1e9)]
Exposure = Annotated[float, Meta(gt=0.0, le=10.0)]
Position = Annotated[float, Meta(gt=0.0, le=1.0)]  # more than all of the equity in one symbol no book may hold
Loss = Annotated[float, Meta(gt=0.0, le=1.0)]
BasisPoints = Annotated[float, Meta(ge=0.0, lt=10_000.0)]
NeutralBars = Annotated[int, Meta(ge=2, le=10_000)]
GarchBars = Annotated[int, Meta(ge=100, le=100_000)]


class DatasetSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the bars come from. `start` is inclusive, `end` exclusive, ISO dates; `symbols` empty means all there are."""

    source: str = "sample"
    interval: str = "1d"
    symbols: tuple[str, ...] = ()
    start: str | None = None
    end: str | None = None


class FeatureSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which features the models see: named sets, and single names beside them.

    fear_greed: where the Fear & Greed Index comes from, `alternative.me` or `file:PATH`; its features are then among those that
    the models see. None: it is neither fetched nor used.
    """

    sets: tuple[str, ...] = ("alpha30", "classic")
    names: tuple[str, ...] = ()
    fear_greed: str | None = None


class LabelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Return from the next open, held for `horizon` of the symbol's own bars; or a label of a module by its `name`, which
    brings its own horizon.
    """

    horizon: Count = 5
    name: str = "forward_return"


class EngineSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One scorer of symbols; `params` override its documented defaults, an unknown one is an error."""

    name: str
    params: dict[str, Any] = {}


class SplitSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Walk-forward splits in bar times of the dataset, anchored at its first bar, so that new bars move no boundary.

    `embargo` None means max(horizon, longest finite look-back of the features); it is printed.
    """

    train: Count
    test: Count
    min_folds: Count = 6
    embargo: Annotated[int, Meta(ge=0, le=_MOST)] | None = None


class NeutraliseSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the book shall not bet on: sectors, or the market's beta.

    sectors: symbol → sector; sector_file: a CSV or Parquet of symbol, sector instead. A symbol without a sector is one of its
    own kind. window: bars of the past from which beta to the equal-weight market is estimated; least: returns known in it.
    """

    by: Literal["sector", "beta"]
    sectors: dict[str, str] = {}
    sector_file: str | None = None
    window: NeutralBars = 120
    least: NeutralBars = 60


class StrategySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A strategy by its name; `neutralise` is a step that follows any strategy."""

    name: str = "quantile"
    params: dict[str, Any] = {}
    neutralise: NeutraliseSpec | None = None


class CostSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Basis points of notional, one way. `capital` in the quote currency."""

    fee_bps: BasisPoints = 5.0
    slippage_bps: BasisPoints = 5.0
    capital: Annotated[float, Meta(gt=0.0, le=1e15)] = 1_000_000.0


class DrawdownSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Losses from the highest equity, as shares of it: at `block` nothing is added, at `reduce` exposure is halved, at
    `flatten` everything is closed.
    """

    block: Loss = 0.010
    reduce: Loss = 0.015
    flatten: Loss = 0.020


class LimitsSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a book may hold, as shares of equity, what it may lose, and how far from the signal's close it may trade.

    position: of one symbol, long or short. gross: long plus short. net: long minus short. drawdown: the levels of its policy.
    collar: a buy dearer than the close of the signal's bar by more than this share, or a sale as much cheaper, is cancelled.
    """

    position: Position = 0.10
    gross: Exposure = 1.0
    net: Exposure = 1.0
    drawdown: DrawdownSpec = DrawdownSpec()
    collar: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.05


class PredictionGuard(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a prediction does not count: it is marked, shown and not traded. None switches a rule off.

    missing: largest share of features that may be unknown. distance: how far a row's features may lie from the training window,
    as a multiple of that window's own reach (root mean square over the features). range: how far a prediction may lie outside
    of what its engine said before, in widths of that range, judged once there are `history` earlier ones. disagreement: how far
    the engines' ranks of a symbol may lie apart, 1 being half of them first and half of them last. The defaults refuse what is
    broken and little else.
    """

    missing: Share | None = 0.5
    distance: Positive | None = 10.0
    range: Annotated[float, Meta(ge=0.0, le=1e9)] | None = 3.0
    history: Count = 1000
    disagreement: Share | None = 0.95


class PromotionSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a challenger becomes champion, and what counts as a reason to train one.

    book: `ensemble` or one engine. bars: bar times that are held out of its training and on which both are compared, after
    costs. confidence: one-sided, that the challenger earns more than the champion (or than cash, where there is none).
    new_bars: bar times since the champion's last training bar that call for a challenger; 0 never. moved_features: share of
    features whose population moved (stability index over 0.25); skill_t: fall of the rank IC, as Welch's t.
    """

    book: str = "ensemble"
    bars: Annotated[int, Meta(ge=2, le=_MOST)] = 63
    confidence: Annotated[float, Meta(gt=0.5, lt=1.0)] = 0.9
    new_bars: Annotated[int, Meta(ge=0, le=_MOST)] = 126
    moved_features: Share = 0.3
    skill_t: Annotated[float, Meta(ge=-1e6, le=0.0)] = -2.0


class NewsSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """News, and how its sentiment becomes features of the symbols that it is about.

    source: `file:PATH` (CSV, JSON lines or Parquet) or `feed:URL` (RSS, Atom or JSON). classifier: `lexicon`, or `model:FOLDER`
    for a sentence classifier on this machine. half_life: of the sentiment, in the symbol's own bars. aliases: symbol → names
    by which a text means it, for sources that do not say which symbols an item is about.
    """

    source: str
    classifier: str = "lexicon"
    half_life: Positive = 5.0
    aliases: dict[str, tuple[str, ...]] = {}


class RiskSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Forecasts of volatility and drawdown. decay: of EWMA; garch: whether GARCH(1,1) is fitted for each fold, on at least
    `least` and at most `window` returns of a symbol.
    """

    garch: bool = True
    decay: Annotated[float, Meta(gt=0.0, lt=1.0)] = 0.94
    least: GarchBars = 250
    window: GarchBars = 1000


class Experiment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole of it. The benchmark is a name (`equal_weight`) or one symbol, bought and held.

    limits: what the book is traded under, `default` being those of `LimitsSpec`. Without them weights are taken up to all of
    the equity, whatever is lost: that is for research, and is not promoted. modules: Python files of one's own features, label,
    engines and strategy, relative to the experiment's file.
    """

    name: Annotated[str, Meta(min_length=1)]
    dataset: DatasetSpec
    features: FeatureSpec = FeatureSpec()
    label: LabelSpec = LabelSpec()
    engines: tuple[EngineSpec, ...] = ()
    ensemble: Literal["skill", "equal"] = "skill"
    risk: RiskSpec | None = None
    splits: SplitSpec | None = None
    validation: PredictionGuard = PredictionGuard()
    strategy: StrategySpec = StrategySpec()
    costs: CostSpec = CostSpec()
    # Unset and not null: what was written before there were limits keeps every hash that its encoding is part of.
    limits: LimitsSpec | Literal["default"] | UnsetType = UNSET
    benchmark: str = "equal_weight"
    promotion: PromotionSpec = PromotionSpec()
    news: NewsSpec | None = None
    seed: Annotated[int, Meta(ge=0, le=_MOST)] = 7
    modules: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Two ways to say the same are one experiment; None is no limits too.
        if self.limits == "default":
            msgspec.structs.force_setattr(self, "limits", LimitsSpec())
        elif not isinstance(self.limits, LimitsSpec):
            msgspec.structs.force_setattr(self, "limits", UNSET)

    @property
    def limited(self) -> LimitsSpec | None:
        """The limits that its book is traded under, None where it states none."""
        return self.limits if isinstance(self.limits, LimitsSpec) else None
