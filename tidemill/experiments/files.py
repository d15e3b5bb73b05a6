"""Experiment files: reading, checking, the published schema and the ones that ship."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.domain.experiment import DatasetSpec, EngineSpec, Experiment, PromotionSpec
from tidemill.domain.reading import require_fitting
from tidemill.study.places import experiment_from
from tidemill.study.registry import SHIPPED_REGISTRY, Registry
from tidemill.user_modules.adoption import beside, with_modules

if TYPE_CHECKING:
    import polars as pl

SHIPPED = Path(__file__).with_name("shipped")
SAMPLE = SHIPPED / "sample.yaml"
DEFAULT_ENGINES = ("momentum", "mean_reversion", "ridge", "lightgbm", "transformer")


def experiment_from_text(text: str, origin: str) -> Experiment:
    """An experiment from YAML text; `origin` names it in errors. InputError for what does not fit the schema."""
    from tidemill.experiments.yaml import read_yaml

    return experiment_from(read_yaml(text, origin), origin)


def load_experiment(path: Path, modules: Sequence[Path] = (), *, registry: Registry = SHIPPED_REGISTRY) -> Experiment:
    """Read and check an experiment file. InputError names the file and the field that is wrong.

    path: a file, or the name of an experiment that ships, such as `all_engines`.
    modules: further files of one's own, whose names the experiment may use. registry: what every experiment may name.
    """
    return checked(with_modules(written(path), modules, registry.bounds, adopt=False), registry)


def shipped() -> dict[str, Path]:
    """The experiments that come with Tidemill, by name."""
    return {file.stem: file for file in sorted(SHIPPED.glob("*.yaml"))}


def written(path: Path) -> Experiment:
    """What a file says, unchecked: a door may still replace some of it. Its modules have absolute paths."""
    if not path.exists():
        path = shipped().get(str(path), path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        names = ", ".join(shipped())
        raise InputError(
            f"The experiment file {path} cannot be read: {exc.strerror}. Give a YAML file, or one of {names}."
        ) from exc
    except UnicodeDecodeError as exc:
        raise InputError(f"The experiment file {path} is not UTF-8 text. Save it in that encoding.") from exc
    return beside(experiment_from_text(text, str(path)), path.absolute().parent)


def experiment_for(dataset: DatasetSpec, modules: Sequence[Path] = (), *, registry: Registry = SHIPPED_REGISTRY) -> Experiment:
    """The default experiment on a dataset: every engine, splits chosen by the length of the history.

    modules: files of one's own; what they declare takes part (see `with_modules`). registry: as for `load_experiment`.
    """
    if modules:
        plain = experiment_for(dataset, registry=registry)
        return checked(with_modules(plain, modules, registry.bounds, adopt=True), registry)
    if dataset.source == "sample" and dataset == DatasetSpec():
        return load_experiment(SAMPLE, registry=registry)
    name = dataset.source.rsplit("/", 1)[-1].removeprefix("file:") or "file"
    engines = tuple(EngineSpec(name=engine) for engine in DEFAULT_ENGINES)
    return checked(Experiment(name=f"{name}-{dataset.interval}", dataset=dataset, engines=engines), registry)


def experiment_on(
    file: Path | None, dataset: Mapping[str, Any], modules: Sequence[Path] = (), *, registry: Registry = SHIPPED_REGISTRY
) -> Experiment:
    """The experiment of `file`, or the default one without it, on a dataset of which `dataset` replaces the fields it names."""
    if file is None:
        return experiment_for(msgspec.structs.replace(DatasetSpec(), **dataset), modules, registry=registry)
    experiment = with_modules(written(file), modules, registry.bounds, adopt=False)
    chosen = msgspec.structs.replace(experiment, dataset=msgspec.structs.replace(experiment.dataset, **dataset))
    return checked(chosen, registry)


def to_text(experiment: Experiment) -> str:
    """Canonical YAML; `experiment_from_text` reads it back to an equal value."""
    import yaml

    return str(yaml.safe_dump(msgspec.to_builtins(experiment), sort_keys=False, allow_unicode=True))


def schema() -> dict[str, object]:
    """JSON schema of an experiment, as published in docs/experiment.schema.json."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **msgspec.json.schema(Experiment)}


def checked(experiment: Experiment, registry: Registry = SHIPPED_REGISTRY) -> Experiment:
    """The experiment, if every name in it exists, every number makes sense and every engine has the features that it needs;
    else InputError or UnknownNameError.

    registry: what names mean beside its modules. A label of a module brings its horizon; nothing else changes. Nothing is
    computed and no engine's library is imported. What can be known before any work is refused here, by the package whose part
    it is.
    """
    require_fitting(experiment)
    registry = registry.with_files(experiment.modules)
    experiment = registry.known(experiment)
    for check in (_check_features, _check_engines, _check_strategy, _check_promotion, _check_splits, _check_rest):
        check(experiment, registry)
    return experiment


def _check_features(experiment: Experiment, registry: Registry) -> None:
    from tidemill.features import checking

    try:
        checking.check(experiment, registry.features)
    except UnknownNameError as exc:
        # A function that fails before its columns are known would otherwise show as a name that nobody wrote down wrongly.
        for reason in registry.failed.values():
            raise InputError(f"{reason} So there is no feature named {exc.name!r}.") from exc
        raise


def _check_engines(experiment: Experiment, registry: Registry) -> None:
    from tidemill.models import checking
    from tidemill.study.study import features_of

    if experiment.news is not None:
        checking.check_classifier(experiment.news.classifier)
    elif [spec.name for spec in experiment.engines] == ["sentiment"]:
        raise InputError("The engine sentiment predicts nothing without news. Add `news:` with a source, or another engine.")
    checking.check(experiment.engines, features_of(experiment, registry).names, registry.engines)


def _check_strategy(experiment: Experiment, registry: Registry) -> None:
    from tidemill.strategies import checking

    checking.check(experiment.strategy, _read_sectors, registry.strategies)


def _read_sectors(path: str) -> "pl.DataFrame":
    from tidemill.market.column_files import read_sectors

    return read_sectors(path)


def _check_promotion(experiment: Experiment, _: Registry) -> None:
    spec, books = experiment.promotion, ("ensemble", *(engine.name for engine in experiment.engines))
    if spec.book not in books:
        raise UnknownNameError("book to promote", spec.book, books, "Correct promotion.book.")
    # What nobody wrote is no reason to refuse a run, which promotes nothing.
    if spec != PromotionSpec() and experiment.label.horizon > spec.bars:
        raise InputError(
            f"promotion.bars is {spec.bars}; it must be at least label.horizon ({experiment.label.horizon}): a longer label "
            "has no outcome among the bars that are held out."
        )


def _check_splits(experiment: Experiment, registry: Registry) -> None:
    from tidemill.study.study import features_of
    from tidemill.validation import checking

    checking.check(experiment.label, experiment.splits, features_of(experiment, registry).lookback)


def _check_rest(experiment: Experiment, _: Registry) -> None:
    from tidemill.market import checking as market
    from tidemill.risk import checking as risk

    risk.check(experiment.risk)
    risk.check_limits(experiment.limited)
    market.check(experiment)
