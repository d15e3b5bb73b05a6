"""Experiment files: what ships is valid, what is published is true, and a wrong one is refused before any work."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import msgspec
import pytest

from tidemill.domain.errors import InputError, IntegrityError, UnknownNameError
from tidemill.domain.experiment import (
    CostSpec,
    DatasetSpec,
    DrawdownSpec,
    EngineSpec,
    Experiment,
    FeatureSpec,
    LabelSpec,
    LimitsSpec,
    NeutraliseSpec,
    NewsSpec,
    PromotionSpec,
    RiskSpec,
    SplitSpec,
    StrategySpec,
)
from tidemill.experiments.files import (
    DEFAULT_ENGINES,
    SAMPLE,
    SHIPPED,
    checked,
    experiment_for,
    experiment_from_text,
    experiment_on,
    load_experiment,
    schema,
    to_text,
)
from tidemill.models.registry import engines
from tidemill.study.places import stored_experiment

PROJECT = Path(__file__).resolve().parents[2]
PUBLISHED = PROJECT / "docs" / "experiment.schema.json"
REGENERATE = (
    "import json; from tidemill.experiments.files import schema; "
    "open('docs/experiment.schema.json', 'w').write(json.dumps(schema(), indent=2) + chr(10))"
)

SOUND = Experiment(name="sound", dataset=DatasetSpec(), engines=(EngineSpec(name="momentum"),))


def test_the_published_schema_is_that_of_the_code() -> None:
    assert PUBLISHED.read_text() == json.dumps(schema(), indent=2) + "\n", f"write it again: python -c {REGENERATE!r}"


def test_the_experiment_that_ships_fits_the_schema_and_is_what_the_sample_runs() -> None:
    import yaml

    jsonschema.validate(yaml.safe_load(SAMPLE.read_text()), json.loads(PUBLISHED.read_text()))
    sample = load_experiment(SAMPLE)
    assert sample == experiment_for(DatasetSpec())
    assert sample.splits is not None
    assert sample.splits.min_folds >= 6


def test_the_schema_refuses_what_the_code_refuses() -> None:
    published = json.loads(PUBLISHED.read_text())
    for change in ({"colour": "red"}, {"seed": "many"}, {"ensemble": "best"}, {"limits": "none"}, {"engines": [{"name": 5}]}):
        value = {**msgspec.to_builtins(SOUND), **change}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(value, published)
        with pytest.raises(InputError):
            experiment_from_text(json.dumps(value), "it")


def test_an_experiment_survives_its_text() -> None:
    sample = load_experiment(SAMPLE)
    assert experiment_from_text(to_text(sample), "it") == sample


def test_limits_by_default_are_the_defaults_written_out_and_single_ones_may_be_written() -> None:
    def told(text: str) -> LimitsSpec | None:
        return experiment_from_text(f"name: x\ndataset: {{}}\n{text}", "it").limited

    assert told("limits: default") == told("limits: {}") == LimitsSpec()
    spec = LimitsSpec()
    assert (spec.position, spec.gross, spec.net, spec.collar) == (0.1, 1.0, 1.0, 0.05)
    assert (spec.drawdown.block, spec.drawdown.reduce, spec.drawdown.flatten) == (0.01, 0.015, 0.02)
    assert told("limits: {net: 0.2}") == LimitsSpec(net=0.2)
    limited = msgspec.structs.replace(SOUND, limits=LimitsSpec(net=0.2))
    assert experiment_from_text(to_text(limited), "it") == limited


def test_an_experiment_without_limits_is_written_as_before_there_were_any() -> None:
    assert SOUND.limited is None
    assert b"limits" not in msgspec.json.encode(SOUND)
    assert "limits" not in msgspec.to_builtins(SOUND)
    assert experiment_from_text(to_text(SOUND), "it") == SOUND


def test_a_date_without_quotation_marks_is_a_text() -> None:
    text = to_text(SOUND).replace("start: null", "start: 2011-01-31")
    assert experiment_from_text(text, "it").dataset.start == "2011-01-31"


def test_another_dataset_gets_every_engine_and_a_name_of_its_own() -> None:
    made = experiment_for(DatasetSpec(source="file:/data/prices.csv", interval="1h"))
    assert made.name == "prices.csv-1h"
    assert tuple(spec.name for spec in made.engines) == DEFAULT_ENGINES


def test_texts_that_grow_without_bound_are_refused_quickly() -> None:
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" if n else "l0: &l0 [x]" for n in range(30))
    with pytest.raises(InputError):
        experiment_from_text(f"name: x\n{levels}\n", "it")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"engines": ()}, "names no engine"),
        ({"engines": (EngineSpec(name="ridge", params={"speed": 1}),)}, "speed"),
        ({"engines": (EngineSpec(name="ridge", params={"alpha": float("nan")}),)}, "finite"),
        ({"engines": (EngineSpec(name="ensemble"),)}, "Leave it out"),
        ({"strategy": StrategySpec(name="quantile", params={"quantile": 0.9})}, "quantile"),
        ({"strategy": StrategySpec(name="sma_cross", params={"fast": float("inf")})}, "finite"),
        ({"features": FeatureSpec(sets=("rsi_14",))}, "features.names"),
        ({"features": FeatureSpec(sets=(), names=())}, "No feature"),
        ({"splits": SplitSpec(train=-5, test=5)}, "splits.train is -5"),
        ({"splits": SplitSpec(train=5, test=5, embargo=-1)}, "splits.embargo is -1"),
        ({"splits": SplitSpec(train=5, test=5, min_folds=0)}, "splits.min_folds is 0"),
        ({"seed": 2**40}, "seed"),
        ({"dataset": DatasetSpec(end="31.1.2011")}, "dataset.end"),
        ({"limits": LimitsSpec(position=2.0)}, r"limits\.position is 2\.0"),
        ({"limits": LimitsSpec(drawdown=DrawdownSpec(block=0.03))}, r"block 0\.03, reduce 0\.015, flatten 0\.02; each must be"),
        ({"news": NewsSpec(source="reuters")}, "feed:URL"),
        ({"news": NewsSpec(source="file:n.csv", classifier="oracle")}, "lexicon"),
        ({"news": NewsSpec(source="file:n.csv", half_life=0.0)}, r"news\.half_life is 0\.0"),
        ({"news": NewsSpec(source="file:n.csv", aliases={"../x": ("X",)})}, "symbol"),
        ({"features": FeatureSpec(sets=("sentiment",))}, "news.source"),
        ({"engines": (EngineSpec(name="sentiment"),)}, "predicts nothing without news"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(change: dict[str, object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        checked(msgspec.structs.replace(SOUND, **change))


def test_the_experiment_with_all_engines_has_every_one_that_ships_and_suits_any_data() -> None:
    made = load_experiment(SAMPLE.with_name("all_engines.yaml"))
    shipped = {one.info.name for one in engines() if one.info.kind != "ensemble"}
    assert {spec.name for spec in made.engines} == shipped
    assert (made.splits, made.news, made.risk) == (None, None, RiskSpec())


def test_an_unknown_engine_names_the_choices() -> None:
    with pytest.raises(UnknownNameError, match="gru, lightgbm, mean_reversion, momentum, ridge"):
        checked(msgspec.structs.replace(SOUND, engines=(EngineSpec(name="oracle"),)))


def test_an_engine_is_refused_without_the_features_that_it_needs_by_its_own_parameters() -> None:
    features = FeatureSpec(sets=(), names=("roc_10", "natr_14"))
    reversal = (EngineSpec(name="mean_reversion"),)
    checked(msgspec.structs.replace(SOUND, features=features, engines=reversal))
    other = (EngineSpec(name="mean_reversion", params={"bars": 12}),)
    with pytest.raises(InputError, match=r"ROC12 and STD20, or roc_12 and natr_14.* hold no roc_12.* Did you mean roc_10"):
        checked(msgspec.structs.replace(SOUND, features=features, engines=other))
    checked(msgspec.structs.replace(SOUND, features=FeatureSpec(names=("roc_12",)), engines=other))


def test_what_nothing_can_sell_short_is_not_neutralised_by_beta() -> None:
    strategy = StrategySpec(neutralise=NeutraliseSpec(by="beta"))
    checked(msgspec.structs.replace(SOUND, strategy=strategy))
    with pytest.raises(InputError, match="none can on kraken"):
        checked(msgspec.structs.replace(SOUND, strategy=strategy, dataset=DatasetSpec(source="kraken")))


def test_a_benchmark_is_one_of_the_symbols_that_are_chosen() -> None:
    chosen = msgspec.structs.replace(SOUND, dataset=DatasetSpec(symbols=("AAPL", "MSFT")))
    checked(msgspec.structs.replace(chosen, benchmark="MSFT"))
    with pytest.raises(UnknownNameError, match=r"no benchmark named 'MSFTT'\. Did you mean MSFT\?"):
        checked(msgspec.structs.replace(chosen, benchmark="MSFTT"))


def test_what_the_command_line_replaces_is_not_held_against_an_experiment(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(to_text(msgspec.structs.replace(SOUND, dataset=DatasetSpec(symbols=("AAPL",)), benchmark="MSFT")))
    assert experiment_on(file, {"symbols": ("AAPL", "MSFT")}).benchmark == "MSFT"
    for told in ({}, {"symbols": ("XOM",)}):
        with pytest.raises(UnknownNameError, match="no benchmark named 'MSFT'"):
            experiment_on(file, told)


def test_a_promotion_that_nobody_wrote_down_refuses_no_label() -> None:
    long = msgspec.structs.replace(SOUND, label=LabelSpec(horizon=100))
    assert checked(long) == long
    with pytest.raises(InputError, match=r"promotion\.bars is 63"):
        checked(msgspec.structs.replace(long, promotion=PromotionSpec(book="momentum")))


@pytest.mark.parametrize("name", [path.stem for path in sorted(SHIPPED.glob("*.yaml"))])
def test_every_experiment_that_ships_is_sound(name: str) -> None:
    assert load_experiment(Path(name)).engines


def test_what_a_run_left_beside_its_report_is_read_as_an_experiment(tmp_path: Path) -> None:
    path = tmp_path / "experiment.json"
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(SOUND, costs=CostSpec(fee_bps=1e-7))))
    assert stored_experiment(path).costs.fee_bps == 1e-7
    path.write_bytes(path.read_bytes().replace(b"1e-7", b"-2.0"))
    with pytest.raises(InputError, match=r"experiment\.json is not an experiment: costs\.fee_bps is -2\.0"):
        stored_experiment(path)
    path.write_bytes(b"{")
    with pytest.raises(IntegrityError, match=r"experiment\.json is damaged\. Mend it with `tidemill data repair`"):
        stored_experiment(path)


def test_checking_imports_no_library_of_an_engine() -> None:
    code = (
        "import sys\n"
        "from tidemill.experiments.files import SAMPLE, load_experiment\n"
        "load_experiment(SAMPLE)\n"
        "print([name for name in ('torch', 'lightgbm', 'numba', 'pandas', 'dagster', 'httpx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_the_readme_shows_the_experiment_that_ships() -> None:
    readme = (SAMPLE.parents[3] / "README.md").read_text(encoding="utf-8")
    assert f"```yaml\n{SAMPLE.read_text(encoding='utf-8')}```" in readme
