"""A chain whose links go together in one compiled call says what they say one by one, to the bit."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from tidemill.backtest.backtest import Options, terms_of
from tidemill.calendars import NEVER
from tidemill.domain.experiment import CostSpec, NeutraliseSpec, ValidationSpec
from tidemill.domain.intervals import EPOCH, Interval, epoch_microseconds
from tidemill.domain.market import Instrument
from tidemill.features.api import feature_set
from tidemill.market.adjusting import ToldAction
from tidemill.models.artifact import Artifact
from tidemill.models.registry import SHIPPED_ENGINES, engine
from tidemill.quality.validity import PastRange, feature_bounds
from tidemill.risk.drawdown import DrawdownPolicy
from tidemill.risk.limits import Limits
from tidemill.strategies.base import Universe
from tidemill.strategies.registry import strategy
from tidemill.trading.arriving import BarsOfSlot
from tidemill.trading.chain import Chain, ChainState, Deciding, Links, Wanted
from tidemill.trading.ordering import Desk

DAY = Interval.parse("1d")
SYMBOLS = ("A", "B", "C", "D", "E")
NAMES = ("ROC5", "STD10", "rsi_14", "ema_20", "roc_10", "VWAP0")
SLOTS = 160


def training() -> pl.DataFrame:
    chance = np.random.default_rng(3)
    times = pl.Series([EPOCH + timedelta(days=at) for at in range(80)]).cast(pl.Datetime("us", "UTC"))
    frame = pl.DataFrame({"symbol": np.repeat(SYMBOLS, 80), "open_time": pl.concat([times] * 5)})
    columns = [pl.Series(name, chance.normal(size=400)) for name in (*NAMES, "label")]
    return frame.with_columns(*columns, label_end_at=pl.col("open_time") + timedelta(days=6))


def deciding(seed: int, *, mixed: bool) -> Deciding:
    rows = training()
    names = ("ridge", "second") if mixed else ("ridge",)
    made = [engine("ridge").fit(rows, features=NAMES, params={"penalty": 0.1 + seed + at}, seed=1) for at in range(len(names))]
    ensemble: Artifact | None = None
    if mixed:
        ensemble = engine("ensemble").fit(rows.head(0), features=names, params={"weights": (0.25, 0.75)}, seed=0)
    past = PastRange(-0.3, 0.3, 5_000)
    return Deciding(dict(zip(names, made, strict=True)), ensemble, feature_bounds(rows, NAMES), dict.fromkeys(names, past))


def market(seed: int) -> list[BarsOfSlot]:
    """Late listings, halts, missing volumes, a split and a dividend."""
    chance = np.random.default_rng(seed)
    close = 50.0 * np.exp(np.cumsum(0.02 * chance.normal(size=(SLOTS, 5)), axis=0))
    spread = 1.0 + 0.01 * np.abs(chance.normal(size=(2, SLOTS, 5)))
    opened = close * np.exp(0.005 * chance.normal(size=close.shape))
    high, low = np.maximum(opened, close) * spread[0], np.minimum(opened, close) / spread[1]
    volume = np.exp(chance.normal(12.0, 1.0, close.shape))
    rows = np.stack([opened, high, low, close, volume, volume * (high + low + close) / 3.0])
    there = chance.random(close.shape) > 0.05
    there[:40, 4] = False
    rows[:, ~there] = np.nan
    rows[5, chance.random(close.shape) < 0.3] = np.nan
    made = []
    for at in range(SLOTS):
        time = EPOCH + timedelta(days=100 + at)
        told = []
        if at in (60, 90):
            kind, value = ("split", 2.0) if at == 60 else ("dividend", 1.5)
            told = [ToldAction("B", kind, epoch_microseconds(time + timedelta(days=2)), value, epoch_microseconds(time))]
        made.append(BarsOfSlot(time, at - 30, np.ascontiguousarray(rows[:, at]), there[at], there[at], told))
    return made


def stepped(seed: int, *, fused: bool, mixed: bool, since: datetime | None) -> tuple[list[Wanted], ChainState]:
    chosen = strategy("quantile")
    rules, params = ValidationSpec(distance=30.0, range=0.8, disagreement=0.9), {"every": 2, "quantile": 0.4, "max_weight": 0.4}
    book = None if mixed else "ridge"
    links = Links(
        DAY, feature_set(*NAMES), 20.0, rules, chosen, chosen.parse(params), None, book, SHIPPED_ENGINES, fused
    )  # fmt: skip
    instruments = {name: Instrument(venue="none", symbol=name, calendar="24/7", can_short=name != "A") for name in SYMBOLS}
    universe = Universe(SYMBOLS, np.array([name != "A" for name in SYMBOLS]))
    options = Options(Limits(0.5, 1.0, 0.8), DrawdownPolicy(0.1, 0.2, 0.3), collar=0.05)
    desk = Desk(terms_of(SYMBOLS, instruments, CostSpec(), options), 1e6, np.full(5, NEVER))
    by = deciding(seed, mixed=mixed)
    chain, made = Chain(links, universe, by, since=since, desk=desk), []
    assert (chain._fused is not None) is fused
    for at, bars in enumerate(market(seed)):
        if at == 70:
            by = deciding(seed + 1, mixed=mixed)
            chain.decide_by(by, desk.terms)
        if at in (50, 71, 120):
            chain = Chain(links, universe, by, chain.state(), since=since, desk=desk)
        made.append(copied(chain.step(bars)))
    return made, chain.state()


def copied(wanted: Wanted) -> Wanted:
    """Its arrays are the chain's own until the next step."""
    arrays = ("quantity", "amount", "changes", "trades")
    traded = wanted.traded and wanted.traded._replace(**{name: getattr(wanted.traded, name).copy() for name in arrays})
    return Wanted(wanted.features.copy(), wanted.predictions.copy(), wanted.rejected.copy(), wanted.weights.copy(), traded)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("since", [None, EPOCH + timedelta(days=145)])
def test_one_compiled_call_gives_the_bits_of_the_links_one_by_one(mixed: bool, since: datetime | None) -> None:
    together, kept = stepped(4, fused=True, mixed=mixed, since=since)
    apart, expected = stepped(4, fused=False, mixed=mixed, since=since)
    for one, other in zip(together, apart, strict=True):
        for name in ("features", "predictions", "rejected", "weights"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
        assert (one.traded is None) is (other.traded is None)
        for left, right in zip(one.traded or (), other.traded or (), strict=True):
            np.testing.assert_array_equal(left, right)
    for left, right in zip(kept.account or (), expected.account or (), strict=True):
        np.testing.assert_equal(left, right)
    assert sum(len(one.traded.changes) for one in together if one.traded) > 20
    assert any(one.rejected.any() for one in together)


@pytest.mark.parametrize(
    ("engine_name", "strategy_name", "neutral"),
    [
        ("momentum", "quantile", None),
        ("ridge", "long_only_top_k", None),
        ("ridge", "quantile", NeutraliseSpec(by="sector", sectors=dict.fromkeys(SYMBOLS, "x"))),
    ],
)
def test_links_of_other_kinds_are_stepped_one_by_one(
    engine_name: str, strategy_name: str, neutral: NeutraliseSpec | None
) -> None:
    names = (*NAMES, "natr_14")
    rows = training().with_columns(pl.Series("natr_14", np.full(400, 2.0)))
    model = engine(engine_name).fit(rows, features=names, params={}, seed=1)
    chosen = strategy(strategy_name)
    links = Links(
        DAY, feature_set(*names), 20.0, ValidationSpec(), chosen, chosen.parse({}), neutral, engine_name, SHIPPED_ENGINES
    )  # fmt: skip
    by = Deciding({engine_name: model}, None, feature_bounds(rows, names), {engine_name: None})
    assert Chain(links, Universe(SYMBOLS, np.ones(5, np.bool_)), by)._fused is None
