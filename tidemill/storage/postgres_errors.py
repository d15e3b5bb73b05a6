"""What asyncpg and the operating system raise, as errors of the domain."""

import asyncpg

from tidemill.domain.errors import (
    ConfigError,
    DeadlineError,
    InputError,
    IntegrityError,
    StopError,
    TidemillError,
    UnavailableError,
)


class BusyError(UnavailableError):
    """Another transaction holds what this one needs. The server answered: the connection is good."""


FOREIGN_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError, EOFError)

# Classes of SQLSTATE (the first two characters), https://www.postgresql.org/docs/18/errcodes-appendix.html
_LOST = {"08", "57", "58", "F0"}  # connection, operator intervention, system error, configuration file
_BUSY = {"40", "55"}  # serialization failure and deadlock, object in use or locked
_WRONG_INPUT = {"22"}
_CONSTRAINT = {"23", "44"}
_REFUSED = {"28", "3D"}  # password or role, no such database
_SCHEMA = {"42", "3F"}  # no such table or column, no such schema
_TOO_MANY_CONNECTIONS, _DISK_FULL = "53300", "53100"


def domain_error(exc: BaseException, timeout: float) -> TidemillError:
    """The error to raise for a foreign one. timeout: seconds that the caller had waited, for the text."""
    if isinstance(exc, asyncpg.PostgresError):
        return _server_error(exc, getattr(exc, "sqlstate", None) or "")
    if isinstance(exc, TimeoutError):
        return DeadlineError(
            f"The database did not answer within {timeout:g} s. Check that it runs and is reachable, then try again."
        )
    if isinstance(exc, asyncpg.DataError):
        return InputError(f"A value does not fit the database: {_first_line(exc)}.")
    # An InternalClientError is what asyncpg raises on a connection that the server is just ending.
    return UnavailableError("The connection to the database is lost. Check that it runs, then try again.")


def _server_error(exc: asyncpg.PostgresError, state: str) -> TidemillError:
    kind, text = state[:2], _first_line(exc)
    if state == _DISK_FULL:
        return UnavailableError("The database has no disk space left. Free some on its disk, then try again.")
    if state == _TOO_MANY_CONNECTIONS:
        return UnavailableError("The database has no free connection. Lower TIDEMILL_CONNECTIONS or raise its max_connections.")
    if kind in _LOST:
        return UnavailableError(f"The database went away ({text}). Check that it runs, then try again.")
    if kind in _BUSY:
        return BusyError(f"Another process works on the same rows ({text}). Try again.")
    if kind in _CONSTRAINT:
        return IntegrityError(f"The database refused rows that break a rule ({text}). Correct the data.")
    if kind in _WRONG_INPUT:
        return InputError(f"A value does not fit the database ({text}). Correct the data.")
    if kind in _REFUSED:
        return ConfigError(f"The database refused the login ({text}). Correct TIDEMILL_POSTGRES_DSN.")
    if kind in _SCHEMA:
        return IntegrityError(
            f"The database schema is not what this version needs ({text}). Bring it up to date with `tidemill doctor`."
        )
    return StopError(f"The database failed ({text}).")


def _first_line(exc: BaseException) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0].rstrip(".")
