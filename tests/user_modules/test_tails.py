"""What is declared `by_tail`: its values are those of its tail, whatever was asked before."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.features.conftest import random_panel
from tests.study.panels import small_experiment
from tests.study.running import run
from tidemill.domain.errors import InputError
from tidemill.domain.experiment import FeatureSpec
from tidemill.features.declaration import Feature
from tidemill.features.external import External, Function, Run
from tidemill.features.feature_set import FeatureSet
from tidemill.strategies.base import Slots, Universe
from tidemill.study.study import LEFT_OUT
from tidemill.study.workspace import Workspace
from tidemill.user_modules.loading import load_module
from tidemill.validation.causality.features import prove_features
from tidemill.validation.causality.proof import Proof

HEAD = "import polars as pl\nkept = {}\n"
HONEST = "return bars.select('symbol', 'open_time', pl.col('close').mean().over('symbol').alias('own'))"
# Ways to remember: how often it was asked, what it was asked last, all that it ever saw, what it was asked first.
REMEMBERING = (
    "kept['n'] = kept.get('n', 0) + 1; return bars.select('symbol', 'open_time', own=pl.lit(float(kept['n'])))",
    "last, kept['at'] = kept.get('at', 0.0), bars['close'][-1]; return bars.select('symbol', 'open_time', own=pl.lit(last))",
    "kept.update(zip(bars['open_time'], bars['close'])); "
    "return bars.select('symbol', 'open_time', own=pl.lit(sum(kept.values())))",
    "kept.setdefault('at', bars['close'][0]); return bars.select('symbol', 'open_time', own=pl.col('close') / kept['at'])",
    "at = bars['open_time'].max(); kept.setdefault(at, float(len(kept))); "
    "return bars.select('symbol', 'open_time', own=pl.lit(kept[at]))",
)
LONG_AGO = "return bars.select('symbol', 'open_time', own=pl.when(pl.col('open_time').dt.epoch('d') < 20).then('close'))"
REFUSED = r"(function f|strategy s) of mine.py keeps something from call to call: at .* it returns something else"


@pytest.fixture
def features(tmp_path: Path) -> Callable[[str], Run]:
    """Body → the function over all bars."""

    def made(body: str) -> Run:
        file = tmp_path / "mine.py"
        file.write_text(f"{HEAD}def f(bars):\n    {body}\nfeatures(f, by_tail=3, columns=['own'])\n")
        expression = next(iter(load_module(file).own.features.values())).expression
        assert isinstance(expression, External)
        return expression.function.run

    return made


def test_a_function_of_its_tail_alone_is_computed(features: Callable[[str], Run]) -> None:
    bars = random_panel(5, symbols=3, slots=40)
    found = features(HONEST)(bars)
    expected = bars.select("symbol", own=pl.col("close").rolling_mean(3, min_samples=1).over("symbol"))
    assert found["own"].to_list() == pytest.approx(expected["own"].to_list(), rel=1e-12, nan_ok=True)


def proof_of(function: Function, bars: pl.DataFrame) -> Proof:
    declared = Feature("own", External(function, "own"))
    return prove_features(FeatureSet((declared,)), bars)


def function_of(run: Run) -> Function:
    return Function(name="f", origin="mine.py", source="0", columns=("own",), lookback=3, run=run, by_tail=True)


def test_a_function_of_its_tail_is_proven_on_few_bars_whatever_it_says_there(features: Callable[[str], Run]) -> None:
    bars, asked = random_panel(5, symbols=3, slots=400), list[int]()

    def counted(run: Run, given: pl.DataFrame) -> pl.DataFrame:
        asked.append(given["open_time"].n_unique())
        return run(given)

    for body in (HONEST, LONG_AGO):
        proof = proof_of(function_of(partial(counted, features(body))), bars)
        assert (proof.proven, proof.refuted, proof.unjudged, proof.silent) == (("own",), (), (), ())
    assert max(asked) == 67


def test_what_is_said_to_be_by_tail_and_looks_ahead_is_refuted() -> None:
    def peeking(bars: pl.DataFrame) -> pl.DataFrame:
        return bars.select("symbol", "open_time", own=pl.col("close").shift(-1).over("symbol"))

    (found,) = proof_of(function_of(peeking), random_panel(5, symbols=3, slots=400)).ahead
    assert found.feature == "own"


@pytest.mark.parametrize("body", REMEMBERING)
def test_a_function_that_keeps_something_from_call_to_call_is_refused(features: Callable[[str], Run], body: str) -> None:
    with pytest.raises(InputError, match=REFUSED):
        features(body)(random_panel(5, symbols=3, slots=40))


def test_a_strategy_that_keeps_something_from_call_to_call_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    body = "kept['n'] = kept.get('n', 0) + 1; return predictions.select('symbol', 'open_time', weight=pl.lit(1.0 / kept['n']))"
    file.write_text(f"{HEAD}def s(predictions):\n    {body}\nstrategy('s', s, by_tail=1)\n")
    chosen = load_module(file).own.strategies["s"]
    assert chosen.start is not None
    true, count = np.ones((40, 2), np.bool_), np.arange(40)
    prices = np.random.default_rng(1).normal(size=(40, 2))
    slots = Slots(count, true, true, prices, true, prices + 9.0, count * 86_400_000_000)
    with pytest.raises(InputError, match=REFUSED):
        chosen.start(chosen.parse({}), Universe(("AAA", "BBB"), true[0]), None).scan(slots)


def test_a_run_leaves_out_a_function_that_remembers_and_says_why(workspace: Workspace, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"{HEAD}def f(bars):\n    {REMEMBERING[0]}\nfeatures(f, by_tail=3, columns=['own'])\n")
    chosen = FeatureSpec(sets=(), names=("ROC5", "STD10", "roc_10", "natr_14", "own"))
    study, _ = run(workspace, small_experiment(folder, features=chosen, modules=(str(file),)))
    assert "own" not in study.available.names
    reasons = [manifest.metadata[LEFT_OUT]["own"] for manifest in study.lake.manifests("features", study.features_key).values()]
    assert reasons
    assert all("The function f of mine.py keeps something from call to call" in reason for reason in reasons)
