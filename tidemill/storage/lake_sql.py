"""duckdb over the lake: one read-only statement that sees the lake's files and nothing else of the host."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from tidemill.domain.errors import InputError

_VIEW = "FROM read_parquet($files, hive_partitioning = true, hive_types_autocast = false, union_by_name = true)"


def query_lake(query: str, views: Mapping[str, Sequence[Path]], readable: Sequence[Path]) -> pl.DataFrame:
    """See Lake.sql. views: table → Parquet files; readable: those whose rows may be read."""
    try:
        with duckdb.connect() as connection:
            _only_a_select(connection, query)
            _prepare(connection, views, readable)
            return pl.DataFrame(connection.sql(query).pl())
    except duckdb.Error as exc:
        raise InputError(
            f"The query failed: {str(exc).strip().splitlines()[0]}. Tables: {', '.join(views) or 'none yet'}."
        ) from exc


def _only_a_select(connection: Any, query: str) -> None:
    statements = connection.extract_statements(query)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise InputError("The lake answers SELECT statements only, one at a time.")


def _prepare(connection: Any, views: Mapping[str, Sequence[Path]], readable: Sequence[Path]) -> None:
    """Views first, then the doors are shut: files outside the list, extensions and settings are out of reach."""
    for table, files in views.items():
        # A damaged table that the query does not name is none of its business.
        with suppress(*(() if files[0] in readable else (duckdb.Error,))):
            connection.sql(_VIEW, params={"files": [str(file) for file in files]}).create_view(table)
    # Times are UTC here, whatever the machine's own zone: frames of a query and of the lake must join.
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET allowed_paths = $paths", {"paths": [str(file) for file in readable]})
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
