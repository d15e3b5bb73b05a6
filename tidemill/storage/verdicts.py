"""What data-quality checks said about versions of data. A missing, failed or old verdict means: do not use that version."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from tidemill.storage.postgres import Database

_WRITE = """
INSERT INTO check_verdicts (asset, dataset, data_version, check_name, passed, severity, details)
SELECT asset, dataset, data_version, check_name, passed, severity, details::jsonb
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[], $6::text[], $7::text[])
    AS given (asset, dataset, data_version, check_name, passed, severity, details)
"""
_LATEST = """
SELECT DISTINCT ON (check_name) asset, dataset, data_version, check_name, passed, severity, details::text AS details, at
FROM check_verdicts WHERE asset = $1 AND dataset = $2 AND data_version = $3
ORDER BY check_name, at DESC, id DESC
"""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one check on one version of an asset's data. `error` blocks what is downstream, `warn` does not."""

    asset: str
    dataset: str
    data_version: str
    check_name: str
    passed: bool
    severity: Literal["error", "warn"] = "error"
    details: dict[str, Any] = {}
    at: datetime | None = None


class Verdicts:
    """The table `check_verdicts` of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, verdicts: Sequence[Verdict]) -> None:
        """Keep all of them or none; `at` is set by the database."""
        names = ("asset", "dataset", "data_version", "check_name", "passed", "severity")
        columns = [[getattr(verdict, name) for verdict in verdicts] for name in names]
        details = [msgspec.json.encode(verdict.details, enc_hook=str).decode() for verdict in verdicts]
        await self._database.execute(_WRITE, *columns, details)

    async def latest(self, asset: str, dataset: str, data_version: str) -> list[Verdict]:
        """The newest verdict of each check on exactly this version, by check name; empty when it was never judged."""
        rows = await self._database.fetch(_LATEST, asset, dataset, data_version)
        return [Verdict(**{**row, "details": msgspec.json.decode(row["details"])}) for row in rows]
