"""A user's own file, given as `--module FILE.py`: its features, labels, engines and strategies, as values.

A file runs in the sandbox, where it may not hang, read files or reach the network, and never in this process: what it declares
comes from there as values. Its functions run in forks of clean processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from tidemill.domain.errors import InputError, TidemillError
from tidemill.features.declaration import Declarations, Feature, shipped
from tidemill.features.external import External, Function
from tidemill.provenance import fingerprint, library_version
from tidemill.user_modules.calls import Kind
from tidemill.user_modules.data import digests
from tidemill.user_modules.declared import Call, Shape, unpacked_declarations
from tidemill.user_modules.execution import parsed, read_text
from tidemill.user_modules.sandbox import sandbox
from tidemill.user_modules.sources import Source
from tidemill.user_modules.stepping import stepping
from tidemill.user_modules.tails import differing
from tidemill.user_modules.wire import Bounds, Request, described

A = TypeVar("A")

if TYPE_CHECKING:
    import polars as pl

    from tidemill.models.custom import CustomEngine
    from tidemill.strategies.base import Strategy
    from tidemill.validation.labels import Label

DEFAULT_BOUNDS = Bounds()
# So many of the newest times are asked for once more, by themselves, of a function that is declared `by_tail`.
_AGAIN = 8
# What a function of features or of a label sees of the bars.
_SEEN = ("symbol", "open_time", "open", "high", "low", "close", "volume", "quote_volume")


class Own(msgspec.Struct, frozen=True, kw_only=True):
    """What files declare, by name."""

    features: Mapping[str, Feature] = {}
    labels: Mapping[str, Label] = {}
    engines: Mapping[str, CustomEngine] = {}
    strategies: Mapping[str, Strategy] = {}

    def names(self) -> set[tuple[str, str]]:
        """Kind and name of everything."""
        return {(kind, name) for kind in self.__struct_fields__ for name in getattr(self, kind)}


class Module(msgspec.Struct, frozen=True, kw_only=True):
    """What a file declares, as values; nothing else knows of it. failed: function → why its features could not be learned.

    reads: kind and name of a declaration → the data files that it depends on, where there are any.
    """

    file: Path
    own: Own
    failed: dict[str, str] = {}
    reads: dict[tuple[str, str], tuple[str, ...]] = {}

    def __repr__(self) -> str:
        named = {kind: tuple(getattr(self.own, kind)) for kind in self.own.__struct_fields__} | {"failed": self.failed}
        return f"Module({str(self.file)!r}, {', '.join(f'{kind}={names!r}' for kind, names in named.items() if names)})"

    @property
    def features(self) -> tuple[str, ...]:
        """Names, in the order of the file."""
        return tuple(self.own.features)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.own.labels)

    @property
    def engines(self) -> tuple[str, ...]:
        return tuple(self.own.engines)

    @property
    def strategies(self) -> tuple[str, ...]:
        return tuple(self.own.strategies)


def load_module(path: str | Path, bounds: Bounds = DEFAULT_BOUNDS) -> Module:
    """Run a file; the answer holds what it declares. A text that was run before, in the same place and with the same data
    files, is not run again.

    bounds: of its functions. The calls, the operators and the columns can be used without an import. Raises InputError, naming
    the line, when the file cannot be read or run, takes too long, reads a file, takes a shipped name, or declares nothing.
    """
    file = Path(path).expanduser().absolute()
    text = read_text(file)
    return _loaded(file, text, tuple(data_of(text, file).items()), bounds)


def load_modules(paths: Iterable[str | Path], bounds: Bounds = DEFAULT_BOUNDS) -> tuple[Module, ...]:
    """Every file of `paths`, in order; see load_module."""
    return tuple(load_module(path, bounds) for path in paths)


def data_of(text: str, file: Path) -> dict[str, str]:
    """The data files that a module names → their digests. InputError for a text that is not Python, and for an absent file."""
    return digests(Source(parsed(text, file)).data_names(), file)


@lru_cache(maxsize=64)
def _loaded(file: Path, text: str, data: tuple[tuple[str, str], ...], bounds: Bounds) -> Module:
    return _Loading(Request(path=str(file), text=text, data=dict(data)), bounds).module()


class _Loading:
    """From a file to the values that it declares. plain: asks for no more than to run it. bounds: of its functions."""

    def __init__(self, plain: Request, bounds: Bounds) -> None:
        self._plain, self._bounds, self._file = plain, bounds, Path(plain.path)
        self._source = Source(parsed(plain.text, self._file))
        self._made, features = unpacked_declarations(sandbox(bounds.features).declare(plain))
        self._features = Declarations(beside=shipped())
        for feature in features:
            self._features.add(feature)

    def module(self) -> Module:
        """InputError where nothing is declared, or only what fails."""
        failed = self._learn_functions()
        own = Own(
            features=dict(self._features.features),
            labels={made.name: self._label(made) for made in self._calls("label")},
            engines={made.name: self._engine(made) for made in self._calls("engine")},
            strategies={made.name: self._strategy(made) for made in self._calls("strategy")},
        )
        if not own.names():
            nothing = (
                f"The module {self._file.name} declares no feature, label, engine or strategy. "
                'Call for example feature("name", expression, unit="…", about="…").'
            )
            raise InputError(next(iter(failed.values()), nothing))
        return Module(file=self._file, own=own, failed=failed, reads=self._reads(own))

    def _reads(self, own: Own) -> dict[tuple[str, str], tuple[str, ...]]:
        lines = {(made.kind, made.name): made.line for made in self._made}
        found = {}
        for kind, name in own.names() if self._plain.data else ():
            line = lines.get(_declared_by(own, kind, name))
            files = self._source.data_behind_expressions() if line is None else self._source.data_behind(line)
            if files:
                found[kind, name] = files
        return found

    def _calls(self, kind: Kind) -> list[Call]:
        return [made for made in self._made if made.kind == kind]

    def _learn_functions(self) -> dict[str, str]:
        """Declare each column of the functions; function → reason for those whose columns cannot be learned."""
        failed = {}
        for made in self._calls("features"):
            try:
                columns = made.options["columns"] or self._columns(made)
            except TidemillError as exc:
                failed[made.name] = str(exc)
                continue
            function = self._function(made, tuple(columns))
            for column in function.columns:
                told = {"unit": made.options["unit"], "about": made.options["about"]}
                self._features.feature(column, External(function, column), **told)
        return failed

    def _columns(self, made: Call) -> tuple[str, ...]:
        """The columns that a function answers, learned by trying it on made-up bars."""
        answer = self._called(made, _made_up_bars())
        columns = tuple(name for name in answer.columns if name not in _SEEN)
        if not columns:
            told = f"The function {made.name} of {self._file.name} returned no column of its own."
            raise InputError(f"{told} Name each new column.")
        return columns

    def _called(self, made: Call, bars: pl.DataFrame, owner: object | None = None) -> pl.DataFrame:
        """owner: of the process that steps it; None: a fork for this call alone."""
        request = self._request(made)
        if request.by_tail:
            bars = _as_stepped(bars)
        if owner is None:
            return self._alike(request, lambda asked: sandbox(self._bounds.features).call(asked, bars))
        return stepping(owner, self._plain, self._bounds.features).call(msgspec.structs.replace(request, newest=1), bars)

    def _alike(self, request: Request, ask: Callable[[Request], A]) -> A:
        """The answer of a fork. By tail its newest times must be those of another fork that was asked for nothing before them:
        what a function keeps from call to call is a value that no session, which may begin anywhere, would have.
        """
        answer = ask(request)
        if not request.by_tail or request.newest == 1:
            return answer
        last = min(_AGAIN, (request.newest + 1) // 2) if request.newest else _AGAIN
        alone = ask(msgspec.structs.replace(request, newest=last))
        time = _parting(answer, alone)
        if time is not None:
            raise InputError(
                f"{described(request)} keeps something from call to call: at {time:%Y-%m-%d %H:%M} it returns something "
                f"else where it is asked for the last {last} times alone. What is declared by_tail may use its tail and "
                "nothing else."
            )
        return answer

    def _request(self, made: Call, *, second: bool = False, newest: int = 0) -> Request:
        by_tail = made.options.get("by_tail", 0)
        if made.kind == "features" and by_tail:
            by_tail = made.options["lookback"]
        if made.kind == "engine" and not second:
            by_tail = 0  # a fit sees all of its rows
        return msgspec.structs.replace(
            self._plain, kind=made.kind, name=made.name, second=second, by_tail=by_tail, newest=newest
        )

    def _code(self, made: Call) -> str:
        """Hash of the code and data that a declaration depends on, and of the libraries that such code is mostly made of."""
        libraries = [library_version(name) for name in ("polars", "numpy", "pandas", "scipy")]
        return fingerprint(self._source.version(made.line, self._plain.data), libraries)[:16]

    def _function(self, made: Call, columns: tuple[str, ...]) -> Function:
        def run(bars: pl.DataFrame, owner: object | None = None) -> pl.DataFrame:
            answer = self._called(made, _seen(bars), owner)
            return _numbers(answer, columns, f"The function {made.name} of {self._file.name}")

        by_tail = bool(made.options.get("by_tail"))

        return Function(
            name=made.name,
            origin=self._file.name,
            source=self._code(made),
            columns=columns,
            lookback=made.options["lookback"],
            run=run,
            by_tail=by_tail,
            begin=(lambda owner: partial(run, owner=owner)) if by_tail else None,
        )

    def _label(self, made: Call) -> Label:
        from tidemill.validation.labels import Label, require_free

        require_free(made.name)
        source = self._code(made)
        return Label(name=made.name, run=lambda bars: self._called(made, _seen(bars)), source=source, **made.options)

    def _engine(self, made: Call) -> CustomEngine:
        from tidemill.models.custom import CustomEngine
        from tidemill.models.registry import require_free

        if made.second is None:
            raise InputError(f"The engine {made.name} has no predict. Give engine(name, fit, predict).")
        require_free(made.name)
        fit, scoring = self._elsewhere(made, made.function), made.second

        def predict(owner: object | None, newest: int) -> Callable[..., Any]:
            return self._elsewhere(made, scoring, second=True, owner=owner, newest=newest)

        return CustomEngine(made.name, fit, predict(None, 0), begin=predict, source=self._code(made), **made.options)

    def _strategy(self, made: Call) -> Strategy:
        from tidemill.strategies.custom import custom_strategy
        from tidemill.strategies.registry import require_free

        require_free(made.name)
        told = {"source": self._code(made), **{name: value for name, value in made.options.items() if name != "by_tail"}}
        if "by_tail" not in made.options:
            return custom_strategy(made.name, self._elsewhere(made, made.function), **told)

        from tidemill.strategies.by_tail import by_tail_strategy

        def weigh(owner: object | None, newest: int) -> Callable[..., Any]:
            return self._elsewhere(made, made.function, owner=owner, newest=newest)

        return by_tail_strategy(made.name, weigh, by_tail=made.options["by_tail"], **told)

    def _elsewhere(
        self, made: Call, shape: Shape, *, second: bool = False, owner: object | None = None, newest: int = 0
    ) -> Callable[..., Any]:
        """A function with this shape, run where a call that does not end can be stopped. owner: as of `_called`."""
        request, limits = self._request(made, second=second, newest=newest), self._bounds.engines

        def call(*args: Any, **kwargs: Any) -> Any:
            if owner is None:
                return self._alike(request, lambda asked: sandbox(limits).apply(asked, args, kwargs))
            return stepping(owner, self._plain, limits).apply(request, args, kwargs)

        return shape.given_to(call)


_CALLED: dict[str, Kind] = {"labels": "label", "engines": "engine", "strategies": "strategy"}


def _declared_by(own: Own, kind: str, name: str) -> tuple[Kind, str]:
    """Kind and name of the call that declares something; no call has those of a feature by expression."""
    if kind in _CALLED:
        return _CALLED[kind], name
    expression = own.features[name].expression
    return "features", expression.function.name if isinstance(expression, External) else ""


def _parting(answer: Any, alone: Any) -> datetime | None:
    """The first time at which two answers of frames differ; what is no frame with times is judged by who asked."""
    import polars as pl

    frames = [one for one in (answer, alone) if isinstance(one, pl.DataFrame) and "open_time" in one.columns]
    return differing(*frames) if len(frames) == 2 else None


def _seen(bars: pl.DataFrame) -> pl.DataFrame:
    return bars.select(name for name in _SEEN if name in bars.columns)


def _as_stepped(bars: pl.DataFrame) -> pl.DataFrame:
    """Bars as a session holds them, whatever table they come from: every column, NaN for what is unknown."""
    import polars as pl

    none, keys = pl.lit(None, pl.Float64), {"symbol": pl.String(), "open_time": pl.Datetime("us", "UTC")}
    numbers = (pl.col(name) if name in bars.columns else none.alias(name) for name in _SEEN if name not in keys)
    known = (one.cast(pl.Float64).fill_null(float("nan")) for one in numbers)
    return bars.select(*(pl.col(name).cast(kind) for name, kind in keys.items()), *known)


def _numbers(answer: pl.DataFrame, columns: tuple[str, ...], what: str) -> pl.DataFrame:
    """The columns as float64, NaN where unknown or infinite. InputError when one is missing or holds no numbers."""
    import polars as pl

    missing = [name for name in columns if name not in answer.columns]
    if missing:
        raise InputError(
            f"{what} did not return the column {missing[0]!r}, which `columns` declares. Return it, or correct `columns`."
        )
    wrong = [name for name in columns if not (answer.schema[name].is_numeric() or answer.schema[name] in (pl.Boolean, pl.Null))]
    if wrong:
        raise InputError(
            f"The column {wrong[0]!r} that {what[:1].lower()}{what[1:]} returned does not hold numbers. Cast it, as "
            "with .cast(pl.Float64)."
        )
    number = pl.col(columns).cast(pl.Float64)
    return answer.select("symbol", "open_time", pl.when(number.is_finite()).then(number).otherwise(float("nan")))


def _made_up_bars() -> pl.DataFrame:
    """Three symbols of 400 daily bars that wave about."""
    import polars as pl

    start, day = 1_577_836_800_000_000, 86_400_000_000
    step, number = pl.col("step"), pl.col("number")
    close = 100.0 + 10.0 * (step / 17.0 + number).sin() + 3.0 * (step * (1.3 + number)).sin()
    return (
        pl.DataFrame({"number": [0, 1, 2]})
        .join(pl.DataFrame({"step": range(400)}), how="cross")
        .select(
            pl.concat_str(pl.lit("S"), number).alias("symbol"),
            (step * day + start).cast(pl.Datetime("us", "UTC")).alias("open_time"),
            (close - 0.3 * (step * 2.1).sin()).alias("open"),
            (close + 1.0).alias("high"),
            (close - 1.0).alias("low"),
            close.alias("close"),
            (1_000.0 + 300.0 * (step * 0.7).cos()).alias("volume"),
        )
    )
