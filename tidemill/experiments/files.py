"""Experiment files: reading, checking, the published schema and the ones that ship."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.experiment import DatasetSpec, EngineSpec, Experiment, NewsSpec
from tidemill.domain.intervals import Interval
from tidemill.domain.market import valid_symbol
from tidemill.strategies.benchmark import EQUAL_WEIGHT
from tidemill.user_modules.adoption import beside, failures, known, with_modules

if TYPE_CHECKING:
    from tidemill.features.api import FeatureSet

SHIPPED = Path(__file__).with_name("shipped")
SAMPLE = SHIPPED / "sample.yaml"
DEFAULT_ENGINES = ("momentum", "mean_reversion", "ridge", "lightgbm", "transformer")


def experiment_from_text(text: str, origin: str) -> Experiment:
    """An experiment from YAML text; `origin` names it in errors. InputError for what does not fit the schema."""
    from tidemill.experiments.yaml import read_yaml

    try:
        return msgspec.convert(read_yaml(text, origin), Experiment)
    except (msgspec.ValidationError, RecursionError) as exc:
        raise InputError(f"{origin} is not an experiment: {exc}. The schema is docs/experiment.schema.json.") from exc


def load_experiment(path: Path, modules: Sequence[Path] = ()) -> Experiment:
    """Read and check an experiment file. InputError names the file and the field that is wrong.

    path: a file, or the name of an experiment that ships, such as `all_engines`.
    modules: further files of one's own, whose names the experiment may use.
    """
    shipped = {file.stem: file for file in sorted(SHIPPED.glob("*.yaml"))}
    if not path.exists():
        path = shipped.get(str(path), path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        names = ", ".join(shipped)
        raise InputError(
            f"The experiment file {path} cannot be read: {exc.strerror}. Give a YAML file, or one of {names}."
        ) from exc
    except UnicodeDecodeError as exc:
        raise InputError(f"The experiment file {path} is not UTF-8 text.") from exc
    experiment = beside(experiment_from_text(text, str(path)), path.absolute().parent)
    return checked(with_modules(experiment, modules, adopt=False))


def experiment_for(dataset: DatasetSpec, modules: Sequence[Path] = ()) -> Experiment:
    """The default experiment on a dataset: every engine, splits chosen by the length of the history.

    modules: files of one's own; what they declare takes part (see `with_modules`).
    """
    if modules:
        return checked(with_modules(experiment_for(dataset), modules, adopt=True))
    if dataset.source == "sample" and dataset == DatasetSpec():
        return load_experiment(SAMPLE)
    name = dataset.source.rsplit("/", 1)[-1].removeprefix("file:") or "file"
    engines = tuple(EngineSpec(name=engine) for engine in DEFAULT_ENGINES)
    return checked(Experiment(name=f"{name}-{dataset.interval}", dataset=dataset, engines=engines))


def experiment_on(file: Path | None, dataset: Mapping[str, Any], modules: Sequence[Path] = ()) -> Experiment:
    """The experiment of `file`, or the default one without it, on a dataset of which `dataset` replaces the fields it names."""
    if file is None:
        return experiment_for(msgspec.structs.replace(DatasetSpec(), **dataset), modules)
    experiment = load_experiment(file, modules)
    if not dataset:
        return experiment
    return checked(msgspec.structs.replace(experiment, dataset=msgspec.structs.replace(experiment.dataset, **dataset)))


def to_text(experiment: Experiment) -> str:
    """Canonical YAML; `experiment_from_text` reads it back to an equal value."""
    import yaml

    return str(yaml.safe_dump(msgspec.to_builtins(experiment), sort_keys=False, allow_unicode=True))


def schema() -> dict[str, object]:
    """JSON schema of an experiment, as published in docs/experiment.schema.json."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Experiment)}


def checked(experiment: Experiment) -> Experiment:
    """The experiment, if every name in it exists and every number makes sense; else InputError or UnknownNameError.

    Its modules are loaded, and a label of theirs brings its horizon; nothing else changes. Nothing is computed and no engine's
    library is imported.
    """
    experiment = known(experiment)
    _check_dataset(experiment)
    _check_engines(experiment)
    _check_strategy(experiment)
    _check_features(experiment)
    _check_numbers(experiment)
    return experiment


def _check_dataset(experiment: Experiment) -> None:
    from tidemill.market.sources import SOURCES
    from tidemill.study.study import moment

    spec = experiment.dataset
    if spec.source not in SOURCES and not (spec.source.startswith("file:") and spec.source != "file:"):
        raise UnknownNameError("source", spec.source, SOURCES)
    Interval.parse(spec.interval)
    for symbol in spec.symbols:
        valid_symbol(symbol)
    if experiment.benchmark != EQUAL_WEIGHT:
        valid_symbol(experiment.benchmark)
    start, end = moment(spec.start, "dataset.start"), moment(spec.end, "dataset.end")
    if start is not None and end is not None and end <= start:
        raise InputError(f"dataset.end {spec.end} is not after dataset.start {spec.start}. Exchange them.")
    if start is not None and start > datetime.now(UTC):
        raise InputError(f"dataset.start {spec.start} lies in the future; no bar can be there yet. Give an earlier date.")


def _check_engines(experiment: Experiment) -> None:
    from tidemill.models.base import decoded
    from tidemill.models.registry import engine

    if not experiment.engines:
        raise InputError(f"The experiment {experiment.name!r} names no engine. Add `engines:`, such as `- name: momentum`.")
    names = [spec.name for spec in experiment.engines]
    if len(set(names)) < len(names):
        raise InputError(f"The experiment {experiment.name!r} names an engine twice. Keep each once.")
    for spec in experiment.engines:
        info = engine(spec.name).info
        if info.kind == "ensemble":
            raise InputError(f"The engine {spec.name} is made of the others by itself. Leave it out of `engines:`.")
        _require_finite(spec.params, f"the engine {spec.name}")
        if info.params is not None:
            decoded(info.params, spec.params, spec.name)


def _check_strategy(experiment: Experiment) -> None:
    from tidemill.strategies.registry import strategy

    _require_finite(experiment.strategy.params, f"the strategy {experiment.strategy.name}")
    strategy(experiment.strategy.name).parse(experiment.strategy.params)


def _check_features(experiment: Experiment) -> None:
    from tidemill.features.api import feature_set
    from tidemill.features.declaration import sets

    for name in experiment.features.sets:
        if name not in sets():
            raise UnknownNameError("feature set", name, sets(), hint="Single features stand under features.names.")
    try:
        chosen = feature_set(*experiment.features.sets, *experiment.features.names)
    except UnknownNameError as exc:
        # A function that fails before its columns are known would otherwise show as a name that nobody wrote down wrongly.
        for reason in failures(experiment).values():
            raise InputError(f"{reason} So there is no feature named {exc.name!r}.") from exc
        raise
    _check_context(experiment, chosen)


def _check_context(experiment: Experiment, chosen: "FeatureSet") -> None:
    from tidemill.features.expression import FEAR_GREED, SENTIMENT

    if experiment.features.fear_greed is not None:
        from tidemill.market.fear_greed import require_source

        require_source(experiment.features.fear_greed)
    else:
        advice = "reads the Fear & Greed Index. Say where it comes from with features.fear_greed: alternative.me or file:PATH"
        _require_unread(chosen, FEAR_GREED, advice)
    if experiment.news is not None:
        _check_news(experiment.news)
    else:
        if [spec.name for spec in experiment.engines] == ["sentiment"]:
            raise InputError(
                "The engine sentiment has nothing to say without news. Add `news:` with a source, or another engine."
            )
        _require_unread(chosen, SENTIMENT, "reads the news. Say where it comes from with news.source: file:PATH or feed:URL")


def _require_unread(chosen: "FeatureSet", columns: tuple[str, ...], advice: str) -> None:
    for feature in chosen.features:
        if not feature.expression.inputs.isdisjoint(columns):
            raise InputError(f"The feature {feature.name} {advice}.")


def _check_news(news: NewsSpec) -> None:
    from tidemill.features.sentiment import require_half_life
    from tidemill.market.news_sources import require_source
    from tidemill.models.text.registry import require_classifier

    require_source(news.source)
    require_classifier(news.classifier)
    require_half_life(news.half_life)
    for symbol in news.aliases:
        valid_symbol(symbol)


def _check_numbers(experiment: Experiment) -> None:
    label, costs, splits = experiment.label, experiment.costs, experiment.splits
    _require(label.horizon >= 1, "label.horizon", label.horizon, "at least 1")
    _require(0.0 < costs.capital < float("inf"), "costs.capital", costs.capital, "above zero and finite")
    for name, cost in (("fee_bps", costs.fee_bps), ("slippage_bps", costs.slippage_bps)):
        _require(0.0 <= cost < 10_000.0, f"costs.{name}", cost, "at least 0 and below 10,000 basis points")
    _require(0 <= experiment.seed < 2**31, "seed", experiment.seed, "between 0 and 2,147,483,647")
    if splits is not None:
        for name in ("train", "test", "min_folds"):
            _require(getattr(splits, name) >= 1, f"splits.{name}", getattr(splits, name), "at least 1")
        rule = f"at most splits.test ({splits.test} bar times): a longer label has no outcome inside its fold"
        _require(label.horizon <= splits.test, "label.horizon", label.horizon, rule)
        _require(splits.embargo is None or splits.embargo >= 0, "splits.embargo", splits.embargo, "0 or more")


def _require(fine: bool, field: str, value: object, rule: str) -> None:
    # Written so that NaN, which compares false with everything, is refused.
    if not fine:
        raise InputError(f"{field} is {value}; it must be {rule}. Correct the experiment.")


def _require_finite(params: Mapping[str, Any], what: str) -> None:
    for name, value in params.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"The parameter {name} of {what} is {value}; it must be a finite number.")
