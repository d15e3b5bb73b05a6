"""Which source owns the name under which its bars are kept: the first to come, for good."""

from tidemill.storage.postgres import Database

_CLAIM = "INSERT INTO sources (venue, origin) VALUES ($1, $2) ON CONFLICT DO NOTHING"
_OWNER = "SELECT origin FROM sources WHERE venue = $1"


async def owner(database: Database, venue: str) -> str | None:
    """The origin that owns a name; None when nobody does."""
    origin = await database.fetchval(_OWNER, venue)
    return None if origin is None else str(origin)


async def claim(database: Database, venue: str, origin: str) -> str:
    """Who owns a name from now on: `origin` where it was free. Of two that claim it at once one gets it, and both are told."""
    async with database.transaction() as connection:
        await connection.execute(_CLAIM, venue, origin)
    return str(await database.fetchval(_OWNER, venue))
