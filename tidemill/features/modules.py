"""A user's own file of features, given as `--module FILE.py`."""

from pathlib import Path
from types import CodeType, ModuleType, TracebackType

from tidemill.domain.errors import InputError, TidemillError
from tidemill.features import declaration, operators
from tidemill.features.expression import Expression

_declared: dict[Path, tuple[str, ...]] = {}


def load_module(path: str | Path) -> list[str]:
    """Run a Python file whose `feature(...)` calls declare features, and return their names in order.

    The operators, the columns and `feature` can be used without an import. The file runs with the rights of the user, in a
    module of
    its own. Loading a file again replaces what it declared. Raises InputError, naming the line, when the file cannot be read or
    run or
    declares nothing; then nothing of it stays declared.
    """
    file = Path(path).absolute()
    code = _compiled(file)
    module = ModuleType(f"tidemill_user_{file.stem}")
    module.__file__ = str(file)
    module.__dict__.update(_vocabulary())
    with declaration.declaring(instead_of=_declared.get(file, ())) as names:
        _run(code, module, file)
        if not names:
            raise InputError(
                f'The module {file.name} declares no feature. Call feature("name", expression, unit="…", about="…").'
            )
    _declared[file] = tuple(names)
    return names


def _compiled(file: Path) -> CodeType:
    try:
        return compile(file.read_text(encoding="utf-8"), str(file), "exec")
    except OSError as exc:
        raise InputError(f"The module {file} cannot be read ({exc.strerror}). Give the path of a Python file.") from exc
    except SyntaxError as exc:
        raise InputError(f"The module {file.name} is not valid Python: {exc.msg} on line {exc.lineno}.") from exc
    except ValueError as exc:  # not UTF-8, or a null byte
        raise InputError(f"The module {file.name} is not a text file in UTF-8. Give a Python file.") from exc


def _vocabulary() -> dict[str, object]:
    """What a module may use without importing it: `feature`, every operator and every column."""
    public = {name: value for name, value in vars(operators).items() if not name.startswith("_")}
    known = {name: value for name, value in public.items() if isinstance(value, Expression) or _is_operator(value)}
    return {**known, "feature": declaration.feature}


def _is_operator(value: object) -> bool:
    return callable(value) and getattr(value, "__module__", None) == operators.__name__


def _run(code: CodeType, module: ModuleType, file: Path) -> None:
    try:
        exec(code, module.__dict__)  # the user's own file, run at the user's request  # nosec B102
    except TidemillError as exc:
        raise InputError(f"The module {file.name} failed{_line(exc.__traceback__, file)}: {exc}") from exc
    except NameError as exc:
        raise InputError(
            f"The module {file.name} uses a name that does not exist{_line(exc.__traceback__, file)}: {exc}."
        ) from exc
    except Exception as exc:  # a user's code may raise anything; the rest of the program goes on
        raise InputError(
            f"The module {file.name} failed{_line(exc.__traceback__, file)}: {type(exc).__name__}: {exc}."
        ) from exc


def _line(trace: TracebackType | None, file: Path) -> str:
    """The last line of the user's file that the error passed."""
    number = None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(file):
            number = trace.tb_lineno
        trace = trace.tb_next
    return "" if number is None else f" on line {number}"
