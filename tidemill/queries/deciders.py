"""Which decider a person means."""

from tidemill.domain.errors import InputError, UnknownNameError
from tidemill.storage.deciders import StoredDecider, in_force, named
from tidemill.storage.postgres import Database


async def decider_named(database: Database, name: str) -> StoredDecider:
    """The decider with this id, or whose id begins so; of several rows with it that of an experiment that was run, in force.

    UnknownNameError without one, InputError where several ids begin so.
    """
    rows = await named(database, name) if name else []
    ids = tuple(dict.fromkeys(row.id for row in rows))
    if not ids:
        known = tuple(dict.fromkeys(row.id for row in await in_force(database)))
        raise UnknownNameError("decider", name, known, "`tidemill deciders list` shows them.")
    if len(ids) > 1:
        raise InputError(f"Several deciders begin with {name}: {', '.join(ids)}. Give more digits.")
    return rows[0]
