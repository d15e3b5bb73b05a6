"""Which rows are cut where features live, and on which panels bars are altered."""

import numpy as np
import polars as pl

from tests.features.conftest import random_panel
from tidemill.validation.causality.inputs import ProofInputs, proof_inputs
from tidemill.validation.causality.living import Draw, Values, few_symbols, rounds, span_starts
from tidemill.validation.causality.observation import Observation


def panel() -> ProofInputs:
    return proof_inputs(random_panel(3, symbols=4, slots=120), {}, None, 7)


def closes(inputs: ProofInputs) -> Observation:
    return inputs.answer(lambda bars: bars.select("symbol", "open_time", "close"))


def test_few_rows_are_all_cut_and_of_many_some_and_the_ends_of_each_symbol() -> None:
    base = closes(panel())
    every, draw = np.arange(len(base.known)), Draw(base, 20, seed=1)
    assert draw.drawn(every[:20]).tolist() == every[:20].tolist()
    drawn = draw.drawn(every)
    ends = base.frame.with_row_index().group_by("symbol").agg(pl.col("index").first(), last=pl.col("index").last())
    assert set(ends["index"]) | set(ends["last"]) <= set(drawn.tolist())
    assert 20 <= len(drawn) <= 28


def test_where_a_cut_is_one_of_all_symbols_whole_times_are_drawn_until_there_are_enough_rows() -> None:
    base = closes(panel())
    drawn = Draw(base, 60, seed=1).drawn_together(np.arange(len(base.known)))
    times, counts = np.unique(base.known[drawn], return_counts=True)
    assert len(drawn) >= 60
    assert len(times) >= 48
    whole = dict(zip(*np.unique(base.known, return_counts=True), strict=True))
    assert sum(count < whole[time] for time, count in zip(times, counts, strict=True)) <= 8  # the ends of four symbols


def test_every_row_has_its_turn_when_symbols_are_cut_at_times_of_their_own() -> None:
    base = closes(panel())
    rows = np.arange(0, len(base.known), 7)
    cut = [(symbol, time) for limits in rounds(base, rows) for symbol, time in limits.items()]
    assert sorted(cut) == sorted(zip(base.keys["symbol"][rows], base.known[rows].tolist(), strict=True))


def test_a_large_panel_is_altered_in_some_symbols_and_windows_alone() -> None:
    inputs = panel()
    assert few_symbols(inputs, 10_000) is inputs
    few = few_symbols(inputs, 200).bars.frame
    assert 0 < few.height <= 200
    assert few_symbols(inputs, 1).bars.frame["symbol"].n_unique() == 1
    assert span_starts(130, 64, 256, 7) == [0, 64, 128]
    starts = span_starts(6_400, 64, 256, 7)
    assert (len(starts), starts[0], starts[-1]) == (4, 0, 6_336)


def test_a_feature_lives_where_it_has_another_value_than_the_only_one_that_was_seen() -> None:
    base = Observation(
        pl.DataFrame({"symbol": ["A"] * 5, "open_time": range(5), "x": [None, 1.0, 1.0, 2.0, float("nan")]}), np.arange(5)
    )
    values = Values()
    assert values.others(base, "x").tolist() == [1, 2, 3]
    values.look(base, np.arange(3))
    assert values.others(base, "x").tolist() == [3]
    values.look(base, np.arange(5))
    assert values.several == {"x"}
    assert values.others(base, "x").tolist() == []
