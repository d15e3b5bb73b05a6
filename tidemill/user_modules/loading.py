"""A user's own file, given as `--module FILE.py`: its features, labels, engines and strategies, registered under their names.

A file runs in the sandbox first, where it may not hang, read files or reach the network; only then in this process, so that its
expressions, engines and strategies exist here. Functions of features and labels always run in the sandbox.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tidemill.domain.errors import InputError, TidemillError
from tidemill.features import declaration
from tidemill.features.external import External, Function
from tidemill.provenance import fingerprint, library_version
from tidemill.user_modules.calls import Declared
from tidemill.user_modules.execution import Executed, execute, parsed, read_text
from tidemill.user_modules.sandbox import engine_room, sandbox
from tidemill.user_modules.wire import Request

if TYPE_CHECKING:
    import polars as pl

# What a function of features or of a label sees of the bars.
_SEEN = ("symbol", "open_time", "open", "high", "low", "close", "volume", "quote_volume")


class Module(msgspec.Struct, frozen=True, kw_only=True):
    """What a file declared, by name and in its order. failed: function → why its features could not be learned."""

    file: Path
    features: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()
    failed: dict[str, str] = {}


_loaded: dict[Path, tuple[str, Module]] = {}


def load_module(path: str | Path) -> Module:
    """Run a file and register what it declares. Loading it again replaces that, if its text changed.

    The calls, the operators and the columns can be used without an import. Raises InputError, naming the line, when the file
    cannot be read or run, takes too long, reads a file, or declares nothing; then nothing of it stays declared.
    """
    file = Path(path).expanduser().absolute()
    text = read_text(file)
    known = _loaded.get(file)
    if known is not None and known[0] == text:
        return known[1]
    parsed(text, file)
    for gone in [path for path in _loaded if not path.exists()]:  # renamed, most likely: its names are free again
        _forget(gone)
    try:
        sandbox().declare(file, text)
        made = _registered(text, file, known[1] if known else Module(file=file))
    except TidemillError:
        _forget(file)
        raise
    _loaded[file] = (text, made)
    return made


def load_modules(paths: Iterable[str | Path]) -> tuple[Module, ...]:
    """Every file of `paths`, in order; see load_module."""
    return tuple(load_module(path) for path in paths)


def loaded_modules() -> tuple[Module, ...]:
    """The files whose declarations hold in this process."""
    return tuple(made for _, made in _loaded.values())


def unload_module(path: str | Path) -> None:
    """Forget what a file declared, if it was loaded."""
    _forget(Path(path).expanduser().absolute())


def _registered(text: str, file: Path, before: Module) -> Module:
    with declaration.declaring(instead_of=before.features) as names:
        executed = execute(text, file)
        failed = _register_functions(text, executed)
        if not (names or failed or any(made.kind != "features" for made in executed.calls)):
            raise InputError(
                f"The module {file.name} declares no feature, label, engine or strategy. "
                'Call for example feature("name", expression, unit="…", about="…").'
            )
        _unregister(before)
        named = _register_others(text, executed)
    made = Module(file=file, features=tuple(dict.fromkeys(names)), failed=failed, **named)
    if not (made.features or made.labels or made.engines or made.strategies):
        raise InputError(next(iter(failed.values())))
    return made


def _register_others(text: str, executed: Executed) -> dict[str, tuple[str, ...]]:
    """Labels, engines and strategies, by the field of Module that names them. All of them or none."""
    done: dict[str, tuple[str, ...]] = {}
    make = {"label": _register_label, "engine": _register_engine, "strategy": _register_strategy}
    field = {"label": "labels", "engine": "engines", "strategy": "strategies"}
    try:
        for made in executed.calls:
            if made.kind in make:
                make[made.kind](text, executed, made)
                done[field[made.kind]] = (*done.get(field[made.kind], ()), made.name)
    except TidemillError:
        _unregister(Module(file=executed.file, **done))  # type: ignore[arg-type]  # the fields of names alone
        raise
    return done


def _forget(file: Path) -> None:
    known = _loaded.pop(file, None)
    if known is not None:
        with declaration.declaring(instead_of=known[1].features):
            _unregister(known[1])


def _unregister(module: Module) -> None:
    if module.labels:
        from tidemill.validation.labels import unregister as forget_label

        for name in module.labels:
            forget_label(name)
    if module.engines:
        from tidemill.models.registry import unregister as forget_engine

        for name in module.engines:
            forget_engine(name)
    if module.strategies:
        from tidemill.strategies.registry import unregister as forget_strategy

        for name in module.strategies:
            forget_strategy(name)


def _register_functions(text: str, executed: Executed) -> dict[str, str]:
    """Declare each column of the functions; function → reason for those whose columns cannot be learned."""
    failed = {}
    for made in executed.calls:
        if made.kind != "features":
            continue
        try:
            columns = made.options["columns"] or _learned(text, executed.file, made)
        except TidemillError as exc:
            failed[made.name] = str(exc)
            continue
        function = _function(text, executed, made, tuple(columns))
        for column in function.columns:
            declaration.feature(column, External(function, column), unit=made.options["unit"], about=made.options["about"])
    return failed


def _function(text: str, executed: Executed, made: Declared, columns: tuple[str, ...]) -> Function:
    file = executed.file

    def run(bars: pl.DataFrame) -> pl.DataFrame:
        answer = sandbox().call(file, text, "features", made.name, _seen(bars))
        return _numbers(answer, columns, f"The function {made.name} of {file.name}")

    return Function(
        name=made.name,
        origin=file.name,
        source=_source(executed, made),
        columns=columns,
        lookback=made.options["lookback"],
        run=run,
    )


def _source(executed: Executed, made: Declared) -> str:
    """Hash of the code that a declaration depends on, and of the libraries that such code is mostly made of."""
    libraries = [library_version(name) for name in ("polars", "numpy", "pandas", "scipy")]
    return fingerprint(executed.source.version(made.line), libraries)[:16]


def _seen(bars: pl.DataFrame) -> pl.DataFrame:
    return bars.select(name for name in _SEEN if name in bars.columns)


def _numbers(answer: pl.DataFrame, columns: tuple[str, ...], what: str) -> pl.DataFrame:
    """The columns as float64, NaN where unknown or infinite. InputError when one is missing or holds no numbers."""
    import polars as pl

    missing = [name for name in columns if name not in answer.columns]
    if missing:
        raise InputError(f"{what} does not answer the column {missing[0]!r}, which it declares.")
    wrong = [name for name in columns if not (answer.schema[name].is_numeric() or answer.schema[name] in (pl.Boolean, pl.Null))]
    if wrong:
        raise InputError(f"The column {wrong[0]!r} that {what[:1].lower()}{what[1:]} answers does not hold numbers.")
    number = pl.col(columns).cast(pl.Float64)
    return answer.select("symbol", "open_time", pl.when(number.is_finite()).then(number).otherwise(float("nan")))


def _learned(text: str, file: Path, made: Declared) -> tuple[str, ...]:
    """The columns that a function answers, learned by trying it on made-up bars."""
    answer = sandbox().call(file, text, "features", made.name, _made_up_bars())
    columns = tuple(name for name in answer.columns if name not in _SEEN)
    if not columns:
        raise InputError(f"The function {made.name} of {file.name} answers no column of its own. Name each new column.")
    return columns


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


def _register_label(text: str, executed: Executed, made: Declared) -> None:
    from tidemill.validation.labels import Label, register

    file = executed.file

    def run(bars: pl.DataFrame) -> pl.DataFrame:
        return sandbox().call(file, text, "label", made.name, _seen(bars))

    register(Label(name=made.name, run=run, source=_source(executed, made), **made.options))


def _register_engine(text: str, executed: Executed, made: Declared) -> None:
    from tidemill.models.custom import CustomEngine
    from tidemill.models.registry import register

    if made.second is None:
        raise InputError(f"The engine {made.name} has no predict. Give engine(name, fit, predict).")
    fit, predict = _elsewhere(text, executed, made), _elsewhere(text, executed, made, second=True)
    register(CustomEngine(made.name, fit, predict, source=_source(executed, made), **made.options))


def _register_strategy(text: str, executed: Executed, made: Declared) -> None:
    from tidemill.strategies.custom import custom_strategy
    from tidemill.strategies.registry import register

    register(custom_strategy(made.name, _elsewhere(text, executed, made), **made.options), _source(executed, made))


def _elsewhere(text: str, executed: Executed, made: Declared, *, second: bool = False) -> Callable[..., Any]:
    """The function with the same signature, run where a call that does not end can be stopped."""
    request = Request(path=str(executed.file), text=text, kind=made.kind, name=made.name, second=second)

    def call(*args: Any, **kwargs: Any) -> Any:
        return engine_room().apply(request, args, kwargs)

    return functools.update_wrapper(call, made.second if second and made.second else made.function)
