"""A chain that was stopped: from its file another process goes on with the same bits, and what does not belong is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import polars as pl
import pytest

from tests.study.accounts import Kept, Recorder, backtested, booked, joined, require_same_account
from tests.study.changed_code import change_line
from tests.study.panels import small_experiment, stocks
from tests.study.running import run_signals
from tests.study.stepping import Task, differing, step_apart, stored_by
from tidemill.config import Settings
from tidemill.domain.errors import IntegrityError
from tidemill.domain.experiment import EngineSpec, NeutraliseSpec, PredictionGuard, StrategySpec
from tidemill.durable import read_sealed, write_sealed
from tidemill.experiments.tracked import id_of
from tidemill.study.deciders import Term, known_to, terms_of
from tidemill.study.scheduled import walked
from tidemill.study.sources import study_of
from tidemill.study.study import Study
from tidemill.study.tables import ENSEMBLE, SIGNALS
from tidemill.study.workspace import Workspace
from tidemill.trading.decider import Decider
from tidemill.trading.saved import load_chain, save_chain


class Stopped(NamedTuple):
    """A chain that was stopped after the slot number 150 of its study, and what its account had come to where it had one."""

    study: Study
    terms: list[Term]
    path: Path
    account: Kept


def stop(study: Study, path: Path, *, trading: bool = False) -> Stopped:
    terms, time = terms_of(study, id_of(study.experiment), ENSEMBLE), study.times[150]
    recorder = Recorder(sorted(study.bars["symbol"].unique()))
    for at, wanted in walked(study, terms, trading=trading, save_after={time: path}):
        if wanted.traded is not None:
            recorder.take(at, wanted.traded)
        if at == time:
            break
    return Stopped(study, terms, path, recorder.kept())


def test_another_process_goes_on_from_it_with_the_bits_of_the_run(
    workspace: Workspace, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stocks().write_parquet(tmp_path / "panel.parquet")
    quick = EngineSpec(name="gru", params={"minimum_steps": 2, "maximum_steps": 3})
    experiment = small_experiment(
        tmp_path / "panel.parquet",
        ensemble="skill",
        engines=(EngineSpec(name="momentum"), EngineSpec(name="ridge"), quick),
        strategy=StrategySpec(
            name="mean_variance",
            params={"window": 30, "least": 20, "every": 3, "quantile": 0.4},
            neutralise=NeutraliseSpec(by="beta", window=40, least=20),
        ),
        validation=PredictionGuard(distance=1.2, range=0.2, history=150, disagreement=0.8),
    )
    study, terms, path, begun = stop(run_signals(workspace, experiment), tmp_path / "states" / "one.state", trading=True)
    task = Task(id_of(experiment), ENSEMBLE, str(path), None, None, str(tmp_path / "said.parquet"))
    step_apart([task], settings, tmp_path)
    found, stored = pl.read_parquet(task.said), stored_by(study, [*terms[0].decider.models, ENSEMBLE], ENSEMBLE)
    assert differing(found, stored, study.folds[0].test_start) == {}
    assert found["open_time"].min() == study.times[151]
    assert found["open_time"].max() == study.times[-1]
    assert found.filter(pl.col("weight").is_finite() & (pl.col("weight") != 0.0)).height > 20
    assert found["rejected ridge"].sum() > 0
    account = joined([begun, Kept(*map(pl.read_parquet, task.accounts))])
    signals = study.lake.scan(SIGNALS, study.key, partitions=[ENSEMBLE]).collect()
    assert require_same_account(account, booked(backtested(study, signals))) > 20
    assert 20 < begun.slots.height < account.slots.height - 20
    with monkeypatch.context() as patch:
        change_line(patch, "tidemill.strategies.neutral")
        with pytest.raises(IntegrityError, match="was made with another code of neutralise, another code of strategy"):
            load_chain(path, terms[0].decider, known_to(study))


@pytest.fixture
def stopped(workspace: Workspace, folder: Path, tmp_path: Path) -> Stopped:
    """One without a neutral book."""
    return stop(study_of(workspace, small_experiment(folder)), tmp_path / "states" / "one.state")


@pytest.mark.finished
def test_it_holds_every_bit(stopped: Stopped, tmp_path: Path) -> None:
    known, decider = known_to(stopped.study), stopped.terms[0].decider
    loaded, again = load_chain(stopped.path, decider, known), tmp_path / "again.state"
    save_chain(again, loaded, decider, known)
    assert again.read_bytes() == stopped.path.read_bytes()
    assert loaded.after == stopped.study.times[150]


Change = Callable[[Decider], Decider]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda one: msgspec.structs.replace(one, feature_fingerprint="0" * 64), "another feature set"),
        (lambda one: msgspec.structs.replace(one, anchor=one.anchor.replace(year=2020)), "another anchor"),
        (lambda one: msgspec.structs.replace(one, interval="1h"), "another interval"),
        (
            lambda one: msgspec.structs.replace(one, strategy=msgspec.structs.replace(one.strategy, params={"window": 40})),
            "another strategy",
        ),
        (lambda one: msgspec.structs.replace(one, look_back=500), "look back at 500"),
    ],
)
@pytest.mark.finished
def test_a_decider_of_another_kind_does_not_go_on_from_it(stopped: Stopped, change: Change, what: str) -> None:
    known, decider = known_to(stopped.study), stopped.terms[0].decider
    with pytest.raises(IntegrityError, match=what):
        load_chain(stopped.path, change(decider), known)


@pytest.mark.finished
def test_other_code_of_a_link_that_has_a_state_refuses_it_by_name(stopped: Stopped, monkeypatch: pytest.MonkeyPatch) -> None:
    known, decider = known_to(stopped.study), stopped.terms[0].decider
    for module, link in (
        ("tidemill.market.adjusting", "adjust"),
        ("tidemill.trading.context", "context"),
        ("tidemill.features.stream", "features"),
        ("tidemill.strategies.quantile", "strategy"),
        ("tidemill.trading.chain", "chain"),
    ):
        with monkeypatch.context() as patch:
            change_line(patch, module)
            with pytest.raises(IntegrityError, match=f"code of {link}"):
                load_chain(stopped.path, decider, known)


@pytest.mark.finished
def test_damage_and_another_format_are_refused_by_name(stopped: Stopped) -> None:
    path, known, decider = stopped.path, known_to(stopped.study), stopped.terms[0].decider
    content, whole = read_sealed(path), path.read_bytes()
    for at in (0, 70, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(IntegrityError, match=r"one\.state"):
            load_chain(path, decider, known)
    form = msgspec.msgpack.decode(content)
    for changed in (content[:-9], b"", b"\x80", msgspec.msgpack.encode(form | {"features": b"none"}), *_broken(form)):
        write_sealed(path, changed)
        with pytest.raises(IntegrityError):
            load_chain(path, decider, known)
    write_sealed(path, msgspec.msgpack.encode(form | {"format": 2}))
    with pytest.raises(IntegrityError, match="has format 2, this version reads 1"):
        load_chain(path, decider, known)


def _broken(form: dict[str, dict[str, object]]) -> list[bytes]:
    """With an array of objects, of another shape, and of a negative one."""
    arrays = [("|O", (1,), b"\0" * 8), ("<f8", (3,), b"\0" * 8), ("<f8", (-2, 1), b"\0" * 8), ("nonsense", (1,), b"")]
    return [msgspec.msgpack.encode(form | {"adjust": form["adjust"] | {"factor": array}}) for array in arrays]
