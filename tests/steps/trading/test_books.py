"""What a run does with its books: rejected predictions are not traded, sizes come from the past, profit is taken apart."""

from pathlib import Path

import msgspec
import polars as pl
import pytest

from tests.study.panels import SYMBOLS, small_experiment
from tests.study.running import run
from tidemill.domain.errors import InputError
from tidemill.domain.experiment import Experiment, NeutraliseSpec, PredictionGuard, StrategySpec
from tidemill.quality.validity import DISAGREEMENT, RANGE
from tidemill.steps.predictions.validity import rejection_counts, validate_predictions
from tidemill.steps.trading.attribution import attribution_facts, attribution_frame, attribution_table
from tidemill.steps.trading.backtest import run_backtests
from tidemill.steps.trading.signals import make_signals
from tidemill.study.rejections import rejections_of
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.tables import EQUITY, PREDICTIONS, SIGNALS, partition_of
from tidemill.study.workspace import Workspace


def again(study: Study, **changes: object) -> Study:
    """The same data and models, another end of the experiment."""
    return study_of(study.workspace, msgspec.structs.replace(study.experiment, **changes))  # type: ignore[arg-type]  # any field


def signals(study: Study, book: str) -> pl.DataFrame:
    return study.lake.scan(SIGNALS, study.key, partitions=[book]).collect()


def test_books_are_judged_sized_and_taken_apart(workspace: Workspace, folder: Path) -> None:
    # One run carries all of it: training is what takes the time.
    study, reports = run(workspace, small_experiment(folder, validation=PredictionGuard(history=100)))
    _nothing_sound_is_rejected(study, reports["signals"].facts.predictions_rejected)
    _profit_adds_up(study)
    _what_is_refused_is_not_traded(study)
    _a_broken_prediction_is_refused(study)
    _a_strategy_that_sizes_by_risk_goes_through(study)
    _a_neutral_book_says_so(study, folder)


def _nothing_sound_is_rejected(study: Study, rejected: int) -> None:
    assert (
        rejected == rejections_of(study).filter(pl.col("why") != DISAGREEMENT).height + rejections_of(study, "ensemble").height
    )
    assert rejected < 0.1 * sum(m.rows for m in study.lake.manifests(PREDICTIONS, study.ensemble_key).values())
    assert validate_predictions(study).worked == 0
    off = again(study, validation=PredictionGuard(missing=None, distance=None, range=None, disagreement=None))
    assert validate_predictions(off).rejected == 0


def _profit_adds_up(study: Study) -> None:
    for book in ("ensemble", "momentum", "ridge"):
        facts = study.lake.manifests(EQUITY, study.key)[book].metadata
        earned = facts["final_equity"] - facts["capital"]
        parts = attribution_frame(study, book).group_by("part").agg(pl.col("profit").sum())
        assert set(parts["part"]) == {"total", "costs", "market", "symbols", *(["engines"] if book == "ensemble" else [])}
        assert parts["profit"].to_list() == pytest.approx([earned] * parts.height, abs=1e-3)
    assert attribution_table(study).filter(pl.col("part") == "symbols").height == len(SYMBOLS)
    facts = attribution_facts(study)
    assert {"market", "fees"} <= set(facts.return_from)
    assert {"ridge", "momentum"} == set(facts.return_through)
    assert isinstance(facts.beta, float)
    assert attribution_frame(again(study, seed=99)).is_empty()


def _what_is_refused_is_not_traded(study: Study) -> None:
    strict = again(study, validation=PredictionGuard(disagreement=0.3))
    made = make_signals(strict)
    assert made.facts.predictions_rejected > 0
    assert any("contradict" in note for note in made.notes)
    rejected = rejections_of(strict, "ensemble").select("symbol", "open_time")
    held = signals(strict, "ensemble").filter(pl.col("weight") != 0.0)
    assert held.join(rejected, on=["symbol", "open_time"], how="semi").is_empty()
    loose = signals(study, "ensemble").filter(pl.col("weight") != 0.0)
    assert not loose.join(rejected, on=["symbol", "open_time"], how="semi").is_empty()
    assert rejection_counts(strict).columns == ["book", "why", "predictions"]
    assert rejection_counts(strict)["predictions"].sum() == made.facts.predictions_rejected


def _a_broken_prediction_is_refused(study: Study) -> None:
    fold, key = study.folds[-1], study.engine_key(study.experiment.engines[1])
    partition = partition_of(fold)
    frame = study.lake.scan(PREDICTIONS, key, partitions=[partition]).collect()
    when = frame["open_time"].max()
    broken = (pl.col("symbol") == "CCC") & (pl.col("open_time") == when)
    wild = frame.with_columns(pl.when(broken).then(1e6).otherwise("prediction").alias("prediction"))
    study.lake.write(PREDICTIONS, key, partition, wild, fingerprint="broken")
    fresh = again(study)
    judged = validate_predictions(fresh)
    assert judged.worked == 1  # the other folds stand
    found = rejections_of(fresh, "ridge").filter(pl.col("why") == RANGE)
    assert found.select("symbol", "open_time").rows() == [("CCC", when)]
    assert "outside" in " ".join(judged.sentences())
    study.lake.write(PREDICTIONS, key, partition, frame, fingerprint="as before")


def _a_strategy_that_sizes_by_risk_goes_through(study: Study) -> None:
    for name in ("inverse_volatility", "mean_variance"):
        params = {"window": 40, "least": 20, "every": 10, "quantile": 0.4}
        other = again(study, strategy=StrategySpec(name=name, params=params))
        made = make_signals(other)
        assert made.worked
        assert (signals(other, "ensemble")["weight"] != 0.0).any()
        assert not make_signals(again(other)).worked
        assert run_backtests(other).worked
        assert not attribution_frame(other).is_empty()


def _a_neutral_book_says_so(study: Study, folder: Path) -> None:
    sectors = folder.parent / "sectors.csv"
    sectors.write_text("symbol,sector\n" + "".join(f"{symbol},{'ab'[at % 2]}\n" for at, symbol in enumerate(SYMBOLS)))
    spec = StrategySpec(params={"quantile": 0.4}, neutralise=NeutraliseSpec(by="sector", sector_file=str(sectors)))
    made = make_signals(again(study, strategy=spec))
    assert made.facts.neutralised_by == "sector"
    sectors.write_text(sectors.read_text().replace("AAA,a", "AAA,b"))
    assert make_signals(again(study, strategy=spec)).worked  # the content of the file decides, not its name
    gone = StrategySpec(neutralise=NeutraliseSpec(by="sector", sector_file=str(folder / "nowhere.csv")))
    with pytest.raises(InputError, match="sector file"):
        make_signals(again(study, strategy=gone))
    with pytest.raises(InputError, match="sold short"):
        make_signals(again(study, strategy=StrategySpec(neutralise=NeutraliseSpec(by="beta"))))


def test_an_experiment_with_strange_rules_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"name": "x", "dataset": {}, "strategy": {"neutralise": {"by": "weather"}}}, Experiment)
