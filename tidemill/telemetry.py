"""Structured logs on stderr: console or JSON lines, with the correlation id of the work at hand and secrets masked.

structlog is imported when the first line is written (0.15 s), never at import of this module.
"""

import re
import sys
import uuid
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TextIO

from tidemill.config import Secret
from tidemill.domain.errors import ConfigError

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

LEVELS: Mapping[str, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}

_correlation_id: ContextVar[str] = ContextVar("tidemill_correlation_id", default="")
_SECRET_NAME = re.compile(r"pass(word|wd)?$|secret|token|api_?key|authorization|cookie|dsn$", re.IGNORECASE)
_URL_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+(?=@)")
_MASK = "***"


def correlation_id() -> str:
    """The id of the request, run or bar being worked on; empty outside any."""
    return _correlation_id.get()


@contextmanager
def correlated(identifier: str = "") -> Iterator[str]:
    """Everything logged and asked of other services inside carries one id: the given one, or a new one."""
    chosen = identifier or uuid.uuid4().hex[:16]
    token = _correlation_id.set(chosen)
    try:
        yield chosen
    finally:
        _correlation_id.reset(token)


def configure(level: str = "warning", *, json: bool | None = None, stream: TextIO | None = None) -> None:
    """Set up logging for this process.

    json: JSON lines (default: when the stream is not a terminal). Raises ConfigError for an unknown level.
    """
    if level.lower() not in LEVELS:
        raise ConfigError(f"{level!r} is not a log level. Set log_level to one of: {', '.join(LEVELS)}.")
    import structlog

    terminal = (stream or sys.stderr).isatty()
    as_json = not terminal if json is None else json
    renderer = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=terminal)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _add_correlation_id,
            structlog.processors.format_exc_info,
            mask_secrets,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level.lower()]),
        # Looked up for each line: what stderr is can change while the process lives.
        logger_factory=lambda *_: structlog.PrintLogger(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )


def logger(name: str) -> "FilteringBoundLogger":
    """A logger whose lines carry `component=name`. Unless `configure` was called, warnings and worse go to stderr."""
    import structlog

    if not structlog.is_configured():
        configure()
    bound: FilteringBoundLogger = structlog.get_logger(component=name)
    return bound


def _add_correlation_id(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    identifier = _correlation_id.get()
    if identifier:
        event.setdefault("correlation_id", identifier)
    return event


def mask_secrets(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: values whose name says secret, `Secret` values, and user:password@ in addresses become ***."""
    for name, value in event.items():
        event[name] = _masked(name, value)
    return event


def _masked(name: str, value: object) -> object:
    if isinstance(value, Secret) or _SECRET_NAME.search(name):
        return _MASK
    if isinstance(value, str):
        return _URL_CREDENTIALS.sub(_MASK, value)
    if isinstance(value, Mapping):
        return {key: _masked(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(name, inner) for inner in value]
    return value
