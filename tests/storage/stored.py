"""What a table of results holds, whole: the tests' own way to see what was written."""

import polars as pl

from tidemill.storage.merge import Table, read_frame
from tidemill.storage.postgres import Database


async def stored(database: Database, table: Table) -> pl.DataFrame:
    """Every row, in the order of the key; JSON as text."""
    columns = ", ".join(f"{name}::text AS {name}" if kind == "jsonb" else name for name, kind in table.kinds.items())
    return await read_frame(database, table.kinds, f"SELECT {columns} FROM {table.name} ORDER BY {', '.join(table.key)}")
