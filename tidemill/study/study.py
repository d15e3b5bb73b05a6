"""A study: one experiment on one dataset in one workspace, and the names under which its parts are kept in the lake."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from tidemill.domain.errors import InputError
from tidemill.domain.experiment import DatasetSpec, EngineSpec, Experiment, NewsSpec, PromotionSpec, SplitSpec
from tidemill.domain.intervals import Interval, moment
from tidemill.domain.market import Dataset
from tidemill.provenance import fingerprint
from tidemill.storage.ordered import by_symbol
from tidemill.study.registry import SHIPPED_REGISTRY, Registry
from tidemill.study.workspace import Workspace

if TYPE_CHECKING:
    import polars as pl

    from tidemill.features.api import FeatureSet
    from tidemill.storage.lake import Lake
    from tidemill.validation.labels import Label
    from tidemill.validation.splits import Fold

ALL = "all"
# In the manifest of a month of features: feature → why it was left out.
LEFT_OUT = "left out"
T = TypeVar("T")
# What a study reads once and holds, by name; all of it follows from the bars.
_READ = ("bars", "adjustments", "adjusted", "times", "splits", "folds", "feature_frame", "training_frame")


def dataset_for(spec: DatasetSpec, venue: str) -> Dataset:
    """The dataset that a specification selects. A selection of symbols or dates is a universe of its own."""
    chosen = (tuple(sorted(spec.symbols)), spec.start, spec.end)
    universe = ALL if chosen == ((), None, None) else f"u{fingerprint(*chosen)[:8]}"
    return Dataset(venue=venue, interval=Interval.parse(spec.interval), universe=universe)


def features_of(experiment: Experiment, registry: Registry = SHIPPED_REGISTRY) -> "FeatureSet":
    from tidemill.features.api import feature_set

    spec = experiment.features
    context = {"fear_greed": spec.fear_greed is not None, "sentiment": experiment.news is not None}
    wanted = (*spec.sets, *spec.names, *(name for name, there in context.items() if there))
    return feature_set(*wanted, known=registry.features)


def features_key(dataset: Dataset, experiment: Experiment, registry: Registry = SHIPPED_REGISTRY) -> str:
    """Where the features of an experiment lie: definitions, kernels and what is read beside bars decide it.

    So a changed one starts anew, and two experiments on different news share nothing.
    """
    definitions, context = features_of(experiment, registry).fingerprint, context_of(experiment)
    return f"{dataset.key}.{(fingerprint(definitions, *context) if context else definitions)[:8]}"


def context_of(experiment: Experiment) -> tuple[dict[str, object], ...]:
    """Where an experiment has from what features read beside bars. Nothing without it: keys on bars alone stay as they were.

    The default of a field is left out and a file is named by its whole path, so that one source has one name.
    """
    found: dict[str, object] = {}
    if experiment.news is not None:
        plain = msgspec.to_builtins(NewsSpec(source=""))
        stated = msgspec.to_builtins(msgspec.structs.replace(experiment.news, source=_place(experiment.news.source)))
        found["news"] = {name: value for name, value in stated.items() if value != plain[name]}
    if experiment.features.fear_greed is not None:
        found["fear_greed"] = _place(experiment.features.fear_greed)
    return (found,) if found else ()


def _place(source: str) -> str:
    kind, colon, path = source.partition(":")
    return f"file:{Path(path).expanduser().absolute()}" if (kind, colon) == ("file", ":") else source


def study_key(experiment: Experiment, venue: str, registry: Registry = SHIPPED_REGISTRY) -> str:
    """Where the results of an experiment lie. Its name, the places of its modules and what is promoted do not matter.

    What its modules declare does: another one may mean something else by the same names.
    """
    content = msgspec.structs.replace(experiment, name="", modules=(), promotion=PromotionSpec())
    return f"{dataset_for(experiment.dataset, venue).key}.{fingerprint(content, *registry.code_of(experiment))[:8]}"


class Study:
    """Loads what the steps need, once; every step is a function of a study. Not thread-safe."""

    def __init__(self, workspace: Workspace, experiment: Experiment, venue: str) -> None:
        self.workspace = workspace
        self.registry = Registry.of(workspace.settings).with_files(experiment.modules)
        self.experiment = self.registry.known(experiment)
        self.dataset = dataset_for(experiment.dataset, venue)
        self.start = moment(experiment.dataset.start, "dataset.start")
        self.end = moment(experiment.dataset.end, "dataset.end")
        self.opened_at = datetime.now(UTC)
        self._made: dict[object, object] = {}

    @property
    def lake(self) -> "Lake":
        return self.workspace.lake

    @cached_property
    def features(self) -> "FeatureSet":
        return features_of(self.experiment, self.registry)

    @cached_property
    def features_key(self) -> str:
        return features_key(self.dataset, self.experiment, self.registry)

    @property
    def available(self) -> "FeatureSet":
        """The features that there are: all but those of a module's function that failed when they were computed."""
        if not self.features.functions:
            return self.features
        manifests = self.lake.manifests("features", self.features_key)
        newest = manifests[max(manifests)].metadata if manifests else {}
        return self.features.without(newest.get(LEFT_OUT, {}))

    @cached_property
    def label(self) -> "Label | None":
        """The label of a module; None for the return from the next open."""
        return self.registry.labels.find(self.experiment.label.name)

    @cached_property
    def labels_key(self) -> str:
        horizon = f"h{self.experiment.label.horizon}"
        if self.label is None:
            return f"{self.dataset.key}.{horizon}"
        return f"{self.dataset.key}.{self.label.name}-{horizon}-{self.label.source[:8]}"

    def engine_key(self, spec: EngineSpec) -> str:
        """Where one engine's predictions lie: the engine, features and what they read, label, splits and seed decide it.

        What comes after decides nothing: which predictions count, the ensemble, strategy, costs.
        """
        experiment, registry = self.experiment, self.registry
        decided = (spec, self.features.fingerprint, experiment.label, experiment.splits, experiment.seed)
        code = (*registry.code("labels", experiment.label.name), *registry.code("engines", spec.name))
        return f"{self.dataset.key}.{spec.name}-{fingerprint(*decided, *code, *context_of(experiment))[:8]}"

    @property
    def failed(self) -> dict[str, str]:
        """Engine → why it failed when it was last asked to train or predict; see `study.failures`."""
        notes = self.lake.manifests("failures", self.key)
        return {spec.name: notes[spec.name].metadata["why"] for spec in self.experiment.engines if spec.name in notes}

    @property
    def engines(self) -> tuple[EngineSpec, ...]:
        """The engines that take part: those of the experiment but the ones that failed."""
        failed = self.failed
        return tuple(spec for spec in self.experiment.engines if spec.name not in failed)

    @cached_property
    def ensemble_key(self) -> str:
        """Where the ensemble's predictions lie: its members, failed or not, and how they are weighed decide it."""
        members = [self.engine_key(spec) for spec in self.experiment.engines]
        return f"{self.dataset.key}.ensemble-{fingerprint(self.experiment.ensemble, members)[:8]}"

    @cached_property
    def key(self) -> str:
        """Where results lie that depend on the whole experiment."""
        return study_key(self.experiment, self.dataset.venue, self.registry)

    @cached_property
    def bars(self) -> "pl.DataFrame":
        """Raw bars of the dataset, sorted by symbol and time. InputError when there are none."""
        frame = by_symbol(self._selected(self.lake.scan("bars", self.dataset.bars_key)).collect())
        if frame.is_empty():
            raise InputError(
                f"There are no bars in {self.dataset.bars_key} for this selection. Widen the dates or check the symbols."
            )
        return frame

    def _selected(self, scan: "pl.LazyFrame") -> "pl.LazyFrame":
        """What the experiment asks for of stored bars, each known at its close: a study works on corrected history.

        Stored bars say when they were received. One that was restated would count as known long after the values that were
        made of it; what was known at some time is asked of the store, `as_of`.
        """
        import polars as pl

        if "known_at" in scan.collect_schema():
            scan = scan.with_columns(known_at=pl.col("open_time") + self.dataset.interval.delta)
        if self.experiment.dataset.symbols:
            scan = scan.filter(pl.col("symbol").is_in(list(self.experiment.dataset.symbols)))
        if self.start is not None:
            scan = scan.filter(pl.col("open_time") >= self.start)
        if self.end is not None:
            scan = scan.filter(pl.col("open_time") < self.end)
        return scan

    def bars_as_of(self, at: datetime, *, adjusted: bool = False) -> "pl.DataFrame":
        """The bars of the dataset as they were known at `at`, before later restatements; each known from its receipt.

        adjusted: by the corporate actions that were known then. Empty where nothing was known.
        """
        from tidemill.market.adjustments import adjust

        store, chosen = self.workspace.store, self.experiment.dataset.symbols
        venue, interval = self.dataset.venue, self.dataset.interval
        read = self.workspace.call(store.read, venue, interval, symbols=chosen, start=self.start, end=self.end, as_of=at)
        bars = by_symbol(read)
        return adjust(bars, self.workspace.call(store.read_adjustments, venue, chosen, as_of=at)) if adjusted else bars

    @cached_property
    def adjustments(self) -> "pl.DataFrame":
        store = self.workspace.store
        return self.workspace.call(store.read_adjustments, self.dataset.venue, self.experiment.dataset.symbols or ())

    @property
    def action_rows(self) -> "list[tuple[Any, ...]]":
        """The corporate actions as fingerprints count them: in an order that does not depend on how they were stored."""
        return self.adjustments.sort("symbol", "ex_time", "kind").rows()

    @cached_property
    def adjusted(self) -> "pl.DataFrame":
        """Bars on a total-return basis, forward-adjusted by what was known at each bar."""
        from tidemill.market.adjustments import adjust

        return adjust(self.bars, self.adjustments)

    def adjusted_of(self, months: "Sequence[str]") -> "pl.DataFrame":
        """The rows of `adjusted` in these months. Where there are actions their factors accumulate from the first bar on."""
        if "adjusted" not in self.__dict__ and self.adjustments.is_empty():
            return self.bars_of(months)
        import polars as pl

        first = datetime.fromisoformat(f"{min(months)}-01").replace(tzinfo=UTC)
        late = self.adjusted.filter(pl.col("open_time") >= first)  # a comparison costs less than a text for each bar
        return late.filter(pl.col("open_time").dt.strftime("%Y-%m").is_in(list(months)))

    @cached_property
    def times(self) -> "pl.Series":
        """Unique bar times of the dataset, ascending. Reads one column, not the bars."""
        if "bars" in self.__dict__:
            return self.bars["open_time"].unique().sort()
        times = self._selected(self.lake.scan("bars", self.dataset.bars_key)).select("open_time")
        return times.unique().collect()["open_time"].sort()

    @cached_property
    def splits(self) -> SplitSpec:
        from tidemill.validation.splits import suggest_splits

        horizon = self.experiment.label.horizon
        embargo = max(horizon, self.features.lookback)
        return self.experiment.splits or suggest_splits(len(self.times), embargo=embargo, horizon=horizon)

    @cached_property
    def folds(self) -> "list[Fold]":
        from tidemill.validation.splits import walk_forward

        return walk_forward(self.times, self.splits, horizon=self.experiment.label.horizon, lookback=self.features.lookback)

    @cached_property
    def feature_frame(self) -> "pl.DataFrame":
        """All feature rows, sorted by symbol and time; float64. Held for the life of the study, since every engine reads it."""
        return by_symbol(self.lake.scan("features", self.features_key).collect())

    @cached_property
    def training_frame(self) -> "pl.DataFrame":
        """The feature rows with `label` and `label_end_at` beside them."""
        labels = by_symbol(self.lake.scan("labels", self.labels_key).collect())
        return self.feature_frame.join(labels, on=("symbol", "open_time"), how="left", maintain_order="left")

    def features_of_month(self, month: str) -> "pl.DataFrame":
        """The rows of `feature_frame` in one month, read alone: what a new bar costs must not grow with the history."""
        return self._month("features", self.features_key, month)

    def training_month(self, month: str) -> "pl.DataFrame":
        """The rows of `training_frame` in one month, read alone."""
        labels = self._month("labels", self.labels_key, month)
        return self.features_of_month(month).join(labels, on=("symbol", "open_time"), how="left", maintain_order="left")

    def _month(self, table: str, key: str, month: str) -> "pl.DataFrame":
        if month not in self.lake.manifests(table, key):
            return self.lake.scan(table, key).clear().collect()  # a window may end where a month begins that has no bar yet
        return self.lake.scan(table, key, partitions=[month]).sort("symbol", "open_time").collect()

    def features_until(self, end: datetime, start: datetime, history: int) -> "pl.DataFrame":
        """Feature rows of the months that [start, end) touches, and at least `history` own bars of each symbol before it.

        Fewer only where a symbol has no more. The whole frame, where it has been read already.
        """
        import polars as pl

        if "feature_frame" in self.__dict__:
            return self.feature_frame
        months = sorted(month for month in self.lake.manifests("features", self.features_key) if month <= f"{end:%Y-%m}")
        first = next((at for at, month in enumerate(months) if month >= f"{start:%Y-%m}"), len(months) - 1)
        frame = self._months_of(months[first:])
        before = (pl.col("open_time") < start).sum().over("symbol")
        while first and float(frame.select(before.median()).item() or 0) < history:
            first -= 1
            frame = pl.concat([self._months_of(months[first : first + 1]), frame])
        # Who was listed or halted lately has fewer bars in these months: only their own are looked for in the earlier ones.
        short = frame.filter(before < history)["symbol"].unique().to_list()
        if first and short:
            earlier = self.lake.scan("features", self.features_key, partitions=months[:first])
            frame = pl.concat([earlier.filter(pl.col("symbol").is_in(short)).collect(), frame])
        return by_symbol(frame)

    def bars_of(self, months: "Sequence[str]") -> "pl.DataFrame":
        """Raw bars of these months, sorted by symbol and time."""
        scan = self.lake.scan("bars", self.dataset.bars_key, partitions=months)
        return by_symbol(self._selected(scan).collect())

    def features_of(self, months: "Sequence[str]") -> "pl.DataFrame":
        """The rows of `feature_frame` in these months."""
        everything = len(months) == len(self.lake.manifests("features", self.features_key))
        return self.feature_frame if everything and "feature_frame" in self.__dict__ else self._months_of(months)

    def _months_of(self, months: "Sequence[str]") -> "pl.DataFrame":
        scan = self.lake.scan("features", self.features_key, partitions=months)
        return by_symbol(scan.collect())

    @property
    def features_version(self) -> str:
        return self.table_version("features", self.features_key)

    @property
    def bars_version(self) -> str:
        return self.table_version("bars", self.dataset.bars_key)

    @property
    def labels_version(self) -> str:
        return self.table_version("labels", self.labels_key)

    def table_version(self, table: str, key: str) -> str:
        """Of all that a table holds under a key."""
        return fingerprint(self.part_versions(table, key))

    def part_versions(self, table: str, key: str) -> dict[str, str]:
        """Part → data version of what it holds, by their names."""
        return {part: manifest.data_version for part, manifest in self.lake.manifests(table, key).items()}

    def forget(self, *frames: str) -> None:
        """Forget what was read, since what it was read from was written. frames: by name; all where none is named."""
        self._made.clear()
        for name in frames or _READ:
            self.__dict__.pop(name, None)

    def once(self, key: object, make: Callable[[], T]) -> T:
        """`make()` the first time, the same value afterwards."""
        if key not in self._made:
            self._made[key] = make()
        return cast(T, self._made[key])
