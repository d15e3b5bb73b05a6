"""Warms up as set-up does, steps chains of many kinds, and prints which entries were compiled for a step: none, if all is well.

In a process of its own, since in one that ran other tests all is compiled already.
"""

import json
import sys
from collections.abc import Iterator

from numba.core.registry import CPUDispatcher

from tests.trading.markets import SYMBOLS, UNIVERSE, deciding, desk, links, market
from tidemill.compiled import Kernel
from tidemill.domain.experiment import NeutraliseSpec
from tidemill.maintenance.warm import warm
from tidemill.trading.chain import Chain

QUICK = {"transformer": {"minimum_steps": 2, "maximum_steps": 3}, "gru": {"minimum_steps": 2, "maximum_steps": 3}}
STRATEGIES = ("quantile", "long_only_top_k", "inverse_volatility", "sma_cross")
NEUTRAL = (NeutraliseSpec(by="sector", sectors=dict.fromkeys(SYMBOLS, "x")), NeutraliseSpec(by="beta", window=10, least=5))


def compiled() -> set[str]:
    """Every signature of every entry of the package."""
    found = set()
    for name, module in list(sys.modules.items()):
        for what in vars(module).values() if name.startswith("tidemill.") else ():
            if isinstance(what, CPUDispatcher) and not isinstance(what, Kernel):
                found.update(f"{what.py_func.__module__}.{what.py_func.__name__}{one}" for one in what.signatures)
    return found


def chains() -> Iterator[Chain]:
    """Engines one by one, then strategies, neutralisation, and an ensemble."""
    for engine in ("ridge", "momentum", "mean_reversion", "lightgbm", "transformer", "gru"):
        yield Chain(links(engine), UNIVERSE, deciding({engine: engine}, QUICK.get(engine, {})), desk=desk())
    ridge = deciding({"ridge": "ridge"}, {})
    for strategy in STRATEGIES:
        yield Chain(links("ridge", strategy), UNIVERSE, ridge, desk=desk())
    for neutral in NEUTRAL:
        yield Chain(links("ridge", neutral=neutral), UNIVERSE, ridge)
    both = deciding({"a": "ridge", "b": "ridge"}, {}, mixed=True)
    yield Chain(links(None), UNIVERSE, both, desk=desk())
    yield Chain(links(None, fused=False), UNIVERSE, both, desk=desk())


def main() -> None:
    warm()
    made, bars = list(chains()), market(1)[:40]
    before, stepped = compiled(), 0
    for chain in made:
        for one in bars:
            chain.step(one)
        stepped += 1
    print(json.dumps({"stepped": stepped, "compiled": sorted(compiled() - before)}))


if __name__ == "__main__":
    main()
