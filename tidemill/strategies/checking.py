"""What an experiment says of its strategy, checked before any work."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from tidemill.domain.errors import InputError
from tidemill.domain.experiment import NeutraliseSpec, StrategySpec
from tidemill.domain.market import valid_symbol
from tidemill.strategies.neutral import checked, with_sectors
from tidemill.strategies.registry import SHIPPED_STRATEGIES, Strategies

if TYPE_CHECKING:
    import polars as pl


def check(spec: StrategySpec, read_sectors: Callable[[str], pl.DataFrame], known: Strategies = SHIPPED_STRATEGIES) -> None:
    """UnknownNameError or InputError unless the strategy exists and its parameters and neutralisation can be followed.

    read_sectors: the table of symbol, sector in a file; it is called for `neutralise.sector_file` alone. known: where the
    strategy is found.
    """
    for name, value in spec.params.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"strategy.params.{name} is {value}; it must be a finite number.")
    known.find(spec.name).parse(spec.params)
    if spec.neutralise is not None:
        _check_neutralise(spec.neutralise, read_sectors)


def _check_neutralise(spec: NeutraliseSpec, read_sectors: Callable[[str], pl.DataFrame]) -> None:
    try:
        checked(spec)
    except InputError as exc:
        raise InputError(f"strategy.neutralise cannot be applied: {exc}") from exc
    if spec.by == "beta" and (spec.sectors or spec.sector_file is not None):
        raise InputError("strategy.neutralise.by is beta, which uses no sectors. Write by: sector, or leave the sectors out.")
    if spec.sectors and spec.sector_file is not None:
        raise InputError("strategy.neutralise has both sectors and sector_file. Keep one of them.")
    if spec.sector_file is not None:
        try:
            with_sectors(spec, read_sectors(spec.sector_file))
        except InputError as exc:
            raise InputError(f"strategy.neutralise.sector_file cannot be used: {exc}") from exc
    for symbol, sector in spec.sectors.items():
        valid_symbol(symbol)
        if not sector.strip():
            raise InputError(f"strategy.neutralise.sectors names no sector for {symbol}. Write one, or leave the symbol out.")
