"""What a step did, as a person wants to see it."""

from datetime import datetime
from typing import Any

import msgspec


class StepReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one step of the graph did, as a person wants to see it beside the asset.

    worked: False when the fingerprint of the inputs equalled the last success, so nothing was done.
    inputs: name → data version read. facts: figures worth showing. table: column names and rows. bytes: size of what is stored.
    """

    worked: bool
    rows: int = 0
    symbols: int = 0
    start: datetime | None = None
    end: datetime | None = None
    bytes: int = 0
    data_version: str = ""
    code_version: str = ""
    inputs: dict[str, str] = {}
    facts: dict[str, Any] = {}
    columns: tuple[str, ...] = ()
    table: tuple[tuple[Any, ...], ...] = ()
    notes: tuple[str, ...] = ()
