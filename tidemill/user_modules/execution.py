"""Running a user's file: the words that it may use without an import, and errors that name its line.

It runs in the forks of the sandbox alone (see `worker.py`); the program learns what the file declares (`declared.py`).
"""

import ast
import builtins
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, ModuleType, TracebackType
from typing import Any

from tidemill.domain.errors import InputError, TidemillError
from tidemill.features import operators
from tidemill.features.declaration import OWN, Declarations, shipped
from tidemill.features.expression import Expression
from tidemill.user_modules.calls import Calls, Declared
from tidemill.user_modules.sources import Source

_ONLY_BARS = "a module sees the bars it is given and nothing else"


class Executed:
    """What a file declared by its calls, and its features by expression."""

    def __init__(self, file: Path, calls: list[Declared], features: Declarations) -> None:
        self.file, self.calls, self.features = file, calls, features

    def find(self, kind: str, name: str) -> Declared:
        """The declaration of that kind and name; InputError when there is none."""
        for made in self.calls:
            if (made.kind, made.name) == (kind, name):
                return made
        raise InputError(f"The module {self.file.name} declares no {kind} named {name!r}.")


def read_text(file: Path) -> str:
    """The text of a module; InputError when it cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except OSError as exc:
        raise InputError(f"The module {file} cannot be read ({exc.strerror}). Give the path of a Python file.") from exc
    except ValueError as exc:
        raise InputError(f"The module {file.name} is not a text file in UTF-8. Give a Python file.") from exc


def parsed(text: str, file: Path) -> ast.Module:
    """The syntax tree; InputError names the line of what is not Python."""
    try:
        return ast.parse(text, str(file))
    except SyntaxError as exc:
        raise InputError(f"The module {file.name} is not valid Python: {exc.msg} on line {exc.lineno}.") from exc
    except (ValueError, RecursionError, MemoryError) as exc:
        raise InputError(f"The module {file.name} is not valid Python ({exc}).") from exc


def execute(text: str, file: Path, data: Mapping[str, str]) -> Executed:
    """Run the file in a module of its own. InputError, naming the line, for whatever goes wrong in it.

    data: the data files that it names → their digests.
    """
    tree = parsed(text, file)
    calls, features = Calls(file, data), Declarations(beside=shipped())
    module = ModuleType(f"tidemill_user_{file.stem}")
    module.__file__ = str(file)
    own = vocabulary(calls, features)
    module.__dict__.update(own, **{OWN: features})
    with explained(file, f"The module {file.name}"):
        _run(compile(tree, str(file), "exec"), module)
    plain = module.__dict__.get("features")
    if plain is not own["features"] and callable(plain) and not any(made.function is plain for made in calls.made):
        options = {"lookback": None, "columns": (), "unit": "", "about": (plain.__doc__ or "").strip().partition("\n")[0]}
        line = Source(tree).line_of("features")
        calls.made.append(Declared(kind="features", name="features", line=line, function=plain, options=options))
    return Executed(file, calls.made, features)


def _run(code: CodeType, module: ModuleType) -> None:
    exec(code, module.__dict__)  # the user's own file, run at the user's request  # nosec B102


@contextmanager
def explained(file: Path, what: str) -> Iterator[None]:
    """Whatever a user's code raises, as one sentence that names the line of the file."""
    try:
        yield
    except NameError as exc:
        raise InputError(f"{what} uses a name that does not exist{_line(exc.__traceback__, file)}: {exc}.") from exc
    except TidemillError as exc:
        raise InputError(f"{what} failed{_line(exc.__traceback__, file)}: {exc}") from exc
    except AccessRefusedError as exc:
        line = _line(exc.__traceback__, file)
        raise InputError(f"{what} {exc}{line}; {_ONLY_BARS}.") from exc
    except SystemExit as exc:
        raise InputError(f"{what} wants to end the program{_line(exc.__traceback__, file)}. Remove that.") from exc
    except Exception as exc:  # a user's code may raise anything; the rest of the program goes on
        if _is_refusal(exc):
            line = _line(exc.__traceback__, file)
            raise InputError(f"{what} wants to use a file by way of duckdb{line}; {_ONLY_BARS}.") from exc
        said = " ".join(str(exc).split())[:300].rstrip(".")
        raise InputError(f"{what} failed{_line(exc.__traceback__, file)}: {type(exc).__name__}: {said}.") from exc


def _is_refusal(error: Exception) -> bool:
    """Whether duckdb says that a file was refused to it."""
    return type(error).__module__ in ("duckdb", "_duckdb") and type(error).__name__ == "PermissionException"


class AccessRefusedError(PermissionError):
    """The sandbox refused an access; the text goes on from the name of the culprit ("wants to open …")."""


def _line(trace: TracebackType | None, file: Path) -> str:
    """The last line of the user's file that the error passed."""
    number = None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(file):
            number = trace.tb_lineno
        trace = trace.tb_next
    return "" if number is None else f" on line {number}"


def vocabulary(calls: Calls, features: Declarations) -> dict[str, Any]:
    """What a module may use without importing it: the calls, every operator and every column.

    Where an operator has the name of a function of Python (`max`, `abs`, `open` …), it is that function too, for arguments
    that hold no expression.
    """
    public = {name: value for name, value in vars(operators).items() if not name.startswith("_")}
    known: dict[str, Any] = {
        name: value for name, value in public.items() if isinstance(value, Expression) or _is_operator(value)
    }
    both = {name: _both(value, vars(builtins)[name]) for name, value in known.items() if callable(vars(builtins).get(name))}
    own = {name: getattr(calls, name) for name in ("features", "label", "engine", "strategy", "data")}
    return {**known, **both, "feature": features.feature, **own}


def _is_operator(value: object) -> bool:
    return callable(value) and getattr(value, "__module__", None) == operators.__name__


class _Column(Expression):
    """A column that can also be called, as the function of Python that has its name."""

    def __init__(self, column: Expression, function: Callable[..., Any]) -> None:
        super().__init__(column.operator, column.arguments, column.parameters)
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__dict__["_function"](*args, **kwargs)


def _both(operator: Any, builtin: Callable[..., Any]) -> Any:
    if isinstance(operator, Expression):
        return _Column(operator, builtin)

    def either(*args: Any, **kwargs: Any) -> Any:
        found = any(isinstance(given, Expression) for given in (*args, *kwargs.values()))
        return operator(*args, **kwargs) if found else builtin(*args, **kwargs)

    either.__name__, either.__doc__ = operator.__name__, operator.__doc__
    return either
