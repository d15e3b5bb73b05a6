"""The error tree. Callers act on the type, never on the text; every text says what a person can do.

TidemillError
├── StopError              the work cannot go on; a person must change something
│   ├── InputError         what was given is wrong: a file, an argument, a name (exit code 1, or 2 for usage)
│   │   ├── UnknownNameError     no such symbol, source, feature, engine …; carries the choices
│   │   ├── AmbiguousNameError   several things have that name; carries the choices
│   │   ├── FunctionError        a function of a person's own raised something; the text names it and its line
│   │   ├── EngineError          an engine cannot work with what it was given; carries its name, the others go on
│   │   └── RefusedError         an outside service refuses the request as it stands; carries the HTTP status
│   ├── ConfigError        settings are missing or contradict each other
│   ├── IntegrityError     stored data, an artifact or a checksum is not what it claims to be
│   └── CheckFailedError   a blocking data-quality check failed
├── RetryError             the same call may succeed later
│   ├── UnavailableError   a server is down, cut off or too slow
│   │   └── DeadlineError  no answer within the stated time; the outcome is unknown
│   └── RateLimitedError   the other side asked us to wait; carries `retry_after` seconds
└── SkipError              this item is unusable, the rest goes on
    └── MalformedError     an answer that does not parse or contradicts its own schema
"""

from collections.abc import Iterable


class TidemillError(Exception):
    """Base of all errors raised on purpose; its text is one sentence fit for a person."""


class StopError(TidemillError):
    """The work cannot go on until a person changes something."""


class InputError(StopError):
    """What was given is wrong: a file, an argument, a name."""


class UnknownNameError(InputError):
    """Nothing has this name. `choices` holds what exists."""

    def __init__(self, kind: str, name: str, choices: Iterable[str] = (), hint: str = "") -> None:
        self.kind, self.name, self.choices = kind, name, tuple(choices)
        text = f"There is no {kind} named {name!r}.{did_you_mean(name, self.choices)}"
        if self.choices:
            shown = ", ".join(self.choices[:12]) + (", …" if len(self.choices) > 12 else "")
            text += f" Choose one of: {shown}."
        super().__init__(f"{text} {hint}".rstrip())


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """` Did you mean …?`, with the names of `choices` that are most like `name`; empty where none is."""
    import difflib

    near = difflib.get_close_matches(name, tuple(choices), n=3)
    return f" Did you mean {' or '.join(near)}?" if near else ""


class AmbiguousNameError(InputError):
    """Several things have this name. `choices` holds them, `option` the flag that picks one."""

    def __init__(self, kind: str, name: str, choices: Iterable[str], option: str) -> None:
        self.kind, self.name, self.choices = kind, name, tuple(choices)
        super().__init__(f"The {kind} {name!r} exists more than once: {', '.join(self.choices)}. Say which with {option}.")


class FunctionError(InputError):
    """A function of a person's own raised something: on other data it may not."""


class EngineError(InputError):
    """An engine, `engine` by name, cannot work with what it was given. The others of an experiment go on without it."""

    def __init__(self, engine: str, cause: Exception) -> None:
        self.engine = engine
        said = " ".join(str(cause).split())[:300].rstrip(".")
        told = f"The engine {engine} failed: {type(cause).__name__}: {said}."
        super().__init__(str(cause) if isinstance(cause, TidemillError) else told)


class RefusedError(InputError):
    """An outside service refuses the request as it stands. `status`: of HTTP; `detail`: what the service said of it."""

    def __init__(self, message: str, status: int, detail: str = "") -> None:
        self.status, self.detail = status, detail
        super().__init__(message)


class ConfigError(StopError):
    """Settings are missing or contradict each other."""


class IntegrityError(StopError):
    """Stored data, an artifact or a checksum is not what it claims to be."""


class CheckFailedError(StopError):
    """A blocking data-quality check failed."""


class RetryError(TidemillError):
    """The same call may succeed later."""


class UnavailableError(RetryError):
    """A server is down, cut off or too slow."""


class DeadlineError(UnavailableError):
    """No answer came within the stated time; whether the call took effect is unknown."""


class RateLimitedError(RetryError):
    """The other side asked us to wait `retry_after` seconds (None: it did not say how long)."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class SkipError(TidemillError):
    """This item is unusable; the rest goes on."""


class MalformedError(SkipError):
    """An answer that does not parse or contradicts its own schema."""
