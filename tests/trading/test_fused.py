"""A chain whose links go together in one compiled call says what they say one by one, to the bit."""

from datetime import datetime, timedelta

import numpy as np
import pytest

from tests.trading.markets import SYMBOLS, UNIVERSE, deciding, desk, links, market
from tidemill.domain.experiment import NeutraliseSpec
from tidemill.domain.intervals import EPOCH
from tidemill.trading.chain import Chain, ChainState, Deciding, Wanted

QUANTILE = {"every": 2, "quantile": 0.4, "max_weight": 0.4}


def linear(penalty: float, *, mixed: bool) -> Deciding:
    """One linear engine, or two of which an ensemble makes one."""
    engines = {"ridge": "ridge", "second": "ridge"} if mixed else {"ridge": "ridge"}
    return deciding(engines, {"penalty": penalty}, mixed=mixed)


def stepped(*, fused: bool, mixed: bool, since: datetime | None) -> tuple[list[Wanted], ChainState]:
    """Every slot; on the way the models are replaced, and the chain saved and taken up."""
    own = links(None if mixed else "ridge", params=QUANTILE, fused=fused)
    by, account = linear(0.1, mixed=mixed), desk()
    chain, made = Chain(own, UNIVERSE, by, since=since, desk=account), []
    assert (chain._fused is not None) is fused
    for at, bars in enumerate(market(4)):
        if at == 70:
            by = linear(5.0, mixed=mixed)
            chain.decide_by(by, account.terms)
        if at in (50, 71, 120):
            chain = Chain(own, UNIVERSE, by, chain.state(), since=since, desk=account)
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
    together, kept = stepped(fused=True, mixed=mixed, since=since)
    one_by_one, expected = stepped(fused=False, mixed=mixed, since=since)
    for one, other in zip(together, one_by_one, strict=True):
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
    ("engine", "strategy", "neutral"),
    [
        ("momentum", "quantile", None),
        ("ridge", "long_only_top_k", None),
        ("ridge", "quantile", NeutraliseSpec(by="sector", sectors=dict.fromkeys(SYMBOLS, "x"))),
    ],
)
def test_links_of_other_kinds_are_stepped_one_by_one(engine: str, strategy: str, neutral: NeutraliseSpec | None) -> None:
    chain = Chain(links(engine, strategy, neutral=neutral), UNIVERSE, deciding({engine: engine}, {}))
    assert chain._fused is None
