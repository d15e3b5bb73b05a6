"""A decider: all that decides for one book while it is in force, as one value that is named by its content.

It refers to models by their ids, and holds what else a chain needs. What decides nothing is not in it: names of experiment and
dataset, paths, times at which it holds, numbers of trials. It is read by any version of the code; where code and libraries here
are others than it was made with, that is told (`strangers`), and it takes no new risk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
import polars as pl

from tidemill.domain.errors import IntegrityError, StopError, UnknownNameError
from tidemill.domain.experiment import CostSpec, LimitsSpec, PredictionGuard, StrategySpec
from tidemill.domain.intervals import Interval
from tidemill.features.api import feature_set
from tidemill.features.declaration import Features
from tidemill.models.artifact import Artifact
from tidemill.models.ensemble import ENGINE as ENSEMBLE
from tidemill.models.inference import can_step
from tidemill.models.registry import Engines, computing_libraries
from tidemill.models.registry import code_version as engine_version
from tidemill.provenance import fingerprint, library_version, source_version, stated
from tidemill.quality.validity import PastRange
from tidemill.strategies.registry import Strategies
from tidemill.trading.confidence import Knot

if TYPE_CHECKING:
    from tidemill.features.external import Function
    from tidemill.models.base import Engine
    from tidemill.strategies.base import Strategy
    from tidemill.trading.chain import Deciding, Links

FORMAT = 1
_ID_DIGITS = 16
_LINKS = {
    "adjust": "tidemill.market.adjusting",
    "context": "tidemill.trading.context",
    "features": "tidemill.features.stream",
    "ensemble": "tidemill.models.ensemble",
    "checks": "tidemill.trading.checks",
    "neutralise": "tidemill.strategies.neutral",
    "decide": "tidemill.trading.ordering",
}
_CHAIN = [f"tidemill.trading.{name}" for name in ("chain", "function_columns", "fused", "fused_kernel")]
_CHAIN.append("tidemill.models.recent")
# Those that every chain computes with; engines have more. What only trains, fits or reads is not among them.
_LIBRARIES = ("numba", "numpy", "polars")
_FEATURES = "feature set"
_BOUNDS = {"feature": pl.String, "median": pl.Float64, "low": pl.Float64, "high": pl.Float64}


class Bound(NamedTuple):
    """What a feature was in the training window; None where it was never known. See `quality.validity.feature_bounds`."""

    feature: str
    median: float | None
    low: float | None
    high: float | None


class Decider(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """features: names in order; functions of modules go by them too. models: engine → id, in the order of the experiment.

    ensemble: id of the model that weighs them, with its weights beside it. strategy: every parameter stated, sectors resolved.
    anchor: from which slots are counted. calendars: of the instruments of its universe, whose slots are the book's. past:
    engine → range of what it said before. half_life: of the sentiment, in bars. costs: with which orders are sized. limits:
    None for a book of research, which is held by none. reserve: share of cash that buys leave; no experiment states one yet.
    look_back: bars that its models look back at. code, libraries: link or library → version with which it was made. modules:
    name that a person's file declares → hash of what it declares. confidence: see `trading.confidence`, of the book's own
    predictions whose labels were known before it.
    """

    format: int = FORMAT
    book: str
    interval: str
    features: tuple[str, ...]
    feature_fingerprint: str
    models: dict[str, str]
    ensemble: str
    weights: dict[str, float]
    strategy: StrategySpec
    anchor: datetime
    calendars: tuple[str, ...]
    validation: PredictionGuard
    bounds: tuple[Bound, ...]
    past: dict[str, PastRange | None]
    half_life: float
    costs: CostSpec
    limits: LimitsSpec | None = None
    reserve: float = 0.0
    look_back: int
    code: dict[str, str]
    libraries: dict[str, str]
    modules: dict[str, str] = {}
    confidence: tuple[Knot, ...] = ()

    @property
    def id(self) -> str:
        """Of its content: what stands at its default is left out, so that a later field changes no id."""
        content = dict(stated(self))  # type: ignore[call-overload]  # of a struct it is a dict
        content["models"] = list(self.models.items())  # the order of engines decides ties
        return fingerprint(content)[:_ID_DIGITS]


class Known(NamedTuple):
    """What names mean here: engines, strategies and features, shipped and of a person's files."""

    engines: Engines
    strategies: Strategies
    features: Features


def to_text(decider: Decider) -> str:
    """As it is stored."""
    return msgspec.json.encode(decider).decode()


def from_text(text: str, id_: str) -> Decider:
    """The decider that is stored under an id. IntegrityError where it is damaged, or of a version that is to come."""
    try:
        form = msgspec.json.decode(text, type=_Form)
        if form.format > FORMAT:
            raise IntegrityError(
                f"The decider {id_} was written by a later version of Tidemill (format {form.format}, this one reads "
                f"{FORMAT}). Bring this installation up to date."
            )
        decider = msgspec.json.decode(text, type=Decider)
    except msgspec.DecodeError as exc:
        raise IntegrityError(f"The decider {id_} is damaged ({exc}). Run its experiment again.") from exc
    if decider.id != id_:
        raise IntegrityError(f"The decider {id_} is damaged: its content is another one. Run its experiment again.")
    return decider


class _Form(msgspec.Struct):
    format: int


def code_of(engines: Iterable[str], strategy: str, known: Known) -> dict[str, str]:
    """Link → version of the code here. engines: names of those that have a part."""
    return {name: version() for name, version in _versions(engines, strategy, known).items()}


def _versions(engines: Iterable[str], strategy: str, known: Known) -> dict[str, Callable[[], str]]:
    links: dict[str, Callable[[], str]] = {name: partial(source_version, module) for name, module in _LINKS.items()}
    links["chain"] = partial(source_version, own=_CHAIN)
    links["strategy"] = partial(known.strategies.code_version, strategy)
    return links | {f"engine {name}": partial(_of_engine, name, known) for name in engines}


def _of_engine(name: str, known: Known) -> str:
    return engine_version(known.engines.find(name))


def libraries_of(engines: Iterable[str], known: Known) -> dict[str, str]:
    """Library → version here, of those that compute what a decider of these engines asks for."""
    own = {name for engine in engines for name in computing_libraries(known.engines.find(engine))}
    return {name: library_version(name) for name in sorted({*_LIBRARIES, *own})}


class Part(NamedTuple):
    """What a decider computes with: its version when it was made, and here; empty where its name means nothing here."""

    name: str
    kind: Literal["link", "library"]
    made: str
    here: str

    @property
    def same(self) -> bool:
        return self.made == self.here


def parts_of(decider: Decider, known: Known) -> tuple[Part, ...]:
    """All that it computes with, links first."""
    here = _versions(decider.models, decider.strategy.name, known)
    here[_FEATURES] = lambda: feature_set(*decider.features, known=known.features).fingerprint
    made = {**decider.code, _FEATURES: decider.feature_fingerprint}
    links = [Part(name, "link", version, _if_known(here.get(name))) for name, version in made.items()]
    return (*links, *(Part(name, "library", version, library_version(name)) for name, version in decider.libraries.items()))


def _if_known(version: Callable[[], str] | None) -> str:
    with suppress(UnknownNameError):
        return version() if version else ""
    return ""


def strangers(decider: Decider, known: Known) -> tuple[Part, ...]:
    """What is another one here than when it was made; it takes no new risk then."""
    return tuple(part for part in parts_of(decider, known) if not part.same)


def links_of(decider: Decider, known: Known) -> Links:
    """What stays while deciders of one book follow each other. StopError for one of other features or without steps."""
    from tidemill.trading.chain import Links  # numba, which a run with nothing to do does without

    features = feature_set(*decider.features, known=known.features)
    if features.fingerprint != decider.feature_fingerprint:
        raise StopError(
            f"The decider {decider.id} is of another feature set ({decider.feature_fingerprint[:12]}, here is "
            f"{features.fingerprint[:12]}). Run its experiment again."
        )
    strategy = known.strategies.find(decider.strategy.name)
    engines = [known.engines.find(name) for name in decider.models]
    refused = next(without_steps(strategy, features.functions, engines), None)
    if refused is not None:
        raise StopError(refused)
    return Links(
        Interval.parse(decider.interval),
        features,
        decider.half_life,
        decider.validation,
        strategy,
        strategy.parse(decider.strategy.params),
        decider.strategy.neutralise,
        None if decider.book == ENSEMBLE.info.name else decider.book,
        known.engines,
    )


def without_steps(strategy: Strategy, functions: Sequence[Function], engines: Sequence[Engine]) -> Iterator[str]:
    """Why these cannot be stepped bar by bar, a sentence for each that a person's file declares over whole frames."""
    if strategy.start is None and strategy.needs != "predictions":
        yield (
            f"The strategy {strategy.name} is a function over whole frames, so it cannot be stepped bar by bar. One over bars "
            "serves research: give it what it reads of them as features."
        )
    elif strategy.start is None:
        yield _over_frames(f"strategy {strategy.name} is a function", "by_tail=…, the slots of predictions that it reads")
    for function in functions:
        if not function.by_tail:
            yield _over_frames(
                f"function {function.name} of {function.origin} is computed", "by_tail=…, the bars that it reads"
            )
    for one in engines:
        if not can_step(one):
            tail = one.info.history + 1
            yield _over_frames(f"engine {one.info.name} looks back", f"by_tail={tail} in place of history={tail - 1}")


def _over_frames(what: str, with_: str) -> str:
    return (
        f"The {what} over whole frames, so it cannot be stepped bar by bar. Declare it with {with_}, and run its "
        "experiment again."
    )


def deciding_of(decider: Decider, load: Callable[[str], Artifact]) -> Deciding:
    """What a chain decides by. load: model id → artifact."""
    from tidemill.trading.chain import Deciding

    engines = {name: load(model_id) for name, model_id in decider.models.items()}
    ensemble = load(decider.ensemble) if decider.ensemble else None
    return Deciding(engines, ensemble, pl.DataFrame(decider.bounds, schema=_BOUNDS, orient="row"), decider.past)
