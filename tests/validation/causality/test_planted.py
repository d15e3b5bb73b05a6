"""Fifty planted leaks of fourteen kinds are found, and fifty innocent suspects are not accused, each among all the others."""

from collections.abc import Callable

import polars as pl
import pytest

from tests.features.conftest import random_panel
from tests.validation.causality.planted import (
    LEAKS_ACROSS,
    LEAKS_ALONE,
    SUSPECTS_ACROSS,
    SUSPECTS_ALONE,
    S,
    T,
    columns,
    own,
)
from tidemill.validation.causality.prove import prove

# Features that hold one value or none on these panels.
DULL = {"constant", "nothing", "name"}
LEAKS, SUSPECTS = columns(LEAKS_ALONE) | columns(LEAKS_ACROSS), SUSPECTS_ALONE | SUSPECTS_ACROSS
# Panels on which every one of them lives.
SEEDS = [pytest.param(21), *(pytest.param(seed, marks=pytest.mark.long) for seed in (2, 6, 10, 12, 41))]


def panel_of(seed: int) -> pl.DataFrame:
    """Five symbols, four of them listed later, with absent slots, unknown cells and idle bars."""
    return random_panel(seed, symbols=5, slots=300)


def answering(made: dict[str, pl.Expr]) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """One function of a column each."""
    return lambda bars: bars.select(S, T).hstack(own(bars).select(one.alias(f"{name} ") for name, one in made.items()))


def test_there_are_fifty_leaks_of_twelve_kinds_and_fifty_suspects() -> None:
    assert len(LEAKS) >= 50
    assert len(LEAKS_ALONE) + len(LEAKS_ACROSS) >= 12
    assert len(SUSPECTS) >= 50
    values = answering(SUSPECTS)(panel_of(21)).drop(S, T).fill_nan(None)
    living = {name.strip() for name in values.columns if values[name].drop_nulls().n_unique() > 1}
    assert set(SUSPECTS) - living == DULL


@pytest.mark.parametrize("lookback", [None, 3])
@pytest.mark.parametrize("leaks", [columns(LEAKS_ALONE), columns(LEAKS_ACROSS)], ids=["alone", "across"])
@pytest.mark.parametrize("seed", SEEDS)
def test_no_planted_leak_is_missed(seed: int, leaks: dict[str, pl.Expr], lookback: int | None) -> None:
    proof = prove(answering(leaks), panel_of(seed), lookback=lookback)
    assert (proof.proven, proof.unjudged) == ((), ())
    assert {one.feature.strip() for one in proof.ahead} == set(leaks)


@pytest.mark.parametrize("lookback", [None, pytest.param(171, marks=pytest.mark.long)])
@pytest.mark.parametrize("suspects", [SUSPECTS_ALONE, SUSPECTS_ACROSS], ids=["alone", "across"])
@pytest.mark.parametrize("seed", SEEDS)
def test_no_innocent_suspect_is_accused(seed: int, suspects: dict[str, pl.Expr], lookback: int | None) -> None:
    proof = prove(answering(suspects), panel_of(seed), lookback=lookback)
    assert (proof.refuted, proof.unjudged) == ((), ())
    assert {name.strip() for name in proof.proven} == set(suspects)
    assert {name.strip() for name in proof.silent} <= DULL


@pytest.mark.long
@pytest.mark.parametrize("name", LEAKS)
def test_each_is_found_among_innocent_neighbours_that_are_proven(name: str) -> None:
    neighbours = {other: SUSPECTS_ALONE[other] for other in list(SUSPECTS_ALONE)[:19]}
    proof = prove(answering({name: LEAKS[name], **neighbours}), panel_of(21))
    assert [one.feature.strip() for one in proof.ahead] == [name]
    assert [one.strip() for one in proof.proven] == list(neighbours)
