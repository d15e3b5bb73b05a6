"""Champions: which models trade a dataset, since when and on what evidence. Every change is one statement, seen whole."""

from datetime import datetime
from typing import Any, Literal

import msgspec

from tidemill.domain.errors import IntegrityError, StopError
from tidemill.domain.experiment import Experiment
from tidemill.storage.deciders import StoredDecider, keep_champion
from tidemill.storage.postgres import Connection, Database

_COLUMNS = """id, dataset, book, decider, models::text AS models, weights::text AS weights, experiment::text AS experiment,
    trained_until, reason, evidence::text AS evidence, source, promoted_at, undone_at, undone_why"""
_CURRENT = f"SELECT {_COLUMNS} FROM champions WHERE dataset = $1 AND undone_at IS NULL ORDER BY id DESC LIMIT 1"  # nosec B608
_HISTORY = f"SELECT {_COLUMNS} FROM champions WHERE $1::text IS NULL OR dataset = $1 ORDER BY id DESC"  # nosec B608
_INSERT = """
INSERT INTO champions (dataset, book, models, experiment, trained_until, reason, evidence, source, weights, decider)
VALUES ($1, $2, $3::text::jsonb, $4::text::jsonb, $5, $6, $7::text::jsonb, $8, $9::text::jsonb, $10) RETURNING id
"""
_UNDO = "UPDATE champions SET undone_at = clock_timestamp(), undone_why = $2 WHERE id = $1"
# Promotions of one dataset take turns until their transaction ends; another dataset does not wait.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('champions'), hashtext($1))"

_TEXTUAL: tuple[tuple[str, Any], ...] = (
    ("models", dict[str, str]),
    ("weights", dict[str, float]),
    ("experiment", Experiment),
    ("evidence", dict[str, Any]),
)

Source = Literal["policy", "operator"]


class Champion(msgspec.Struct, frozen=True, kw_only=True):
    """One promotion. models: engine → model_id; trained_until: end of the data that they saw. weights: of the engines in the
    book, empty for one engine alone, and for equal weights of before they were kept. decider: id of the one that was judged
    and trades, empty for one of before.
    """

    id: int
    dataset: str
    book: str
    models: dict[str, str]
    experiment: Experiment
    trained_until: datetime
    reason: str
    evidence: dict[str, Any]
    source: Source
    promoted_at: datetime
    weights: dict[str, float] = {}
    decider: str = ""
    undone_at: datetime | None = None
    undone_why: str | None = None


class Nominee(msgspec.Struct, frozen=True, kw_only=True):
    """What is to become the champion of a dataset, with the decider that was judged."""

    dataset: str
    book: str
    models: dict[str, str]
    experiment: Experiment
    trained_until: datetime
    reason: str
    evidence: dict[str, Any]
    source: Source = "policy"
    weights: dict[str, float] = {}
    decider: StoredDecider | None = None


async def current(database: Database | Connection, dataset: str) -> Champion | None:
    """The champion of a dataset, None where nothing was promoted or everything undone."""
    row = await database.fetchrow(_CURRENT, dataset)
    return None if row is None else _champion(row)


async def history(database: Database, dataset: str | None = None) -> list[Champion]:
    """Every promotion, undone ones included, the newest first."""
    return [_champion(row) for row in await database.fetch(_HISTORY, dataset)]


async def promote(database: Database, nominee: Nominee, *, instead_of: int | None) -> Champion:
    """Make `nominee` the champion, if the current one still is `instead_of` (None: there is none). All or nothing.

    StopError when another was promoted or undone since the comparison: its evidence is about a champion of the past.
    """
    async with database.transaction() as connection:
        await connection.execute(_LOCK, nominee.dataset)
        held = await current(connection, nominee.dataset)
        if (held.id if held else None) != instead_of:
            raise StopError(f"The champion of {nominee.dataset} changed meanwhile. Compare again, then promote.")
        await connection.fetchval(
            _INSERT, nominee.dataset, nominee.book, _json(nominee.models), _json(nominee.experiment), nominee.trained_until,
            nominee.reason, _json(nominee.evidence), nominee.source, _json(nominee.weights),
            nominee.decider.id if nominee.decider else "",
        )  # fmt: skip
        if nominee.decider is not None:
            await keep_champion(connection, nominee.decider)
        made = await current(connection, nominee.dataset)
    if made is None:
        raise IntegrityError(f"The promotion in {nominee.dataset} was not kept. Look at the log of Postgres.")
    return made


async def undo(database: Database, dataset: str, why: str) -> tuple[Champion, Champion | None]:
    """Take the last promotion back: what was undone, and who is champion again, if anybody.

    StopError when there is nothing to undo.
    """
    async with database.transaction() as connection:
        await connection.execute(_LOCK, dataset)
        held = await current(connection, dataset)
        if held is None:
            raise StopError(
                f"There is no champion of {dataset}, so no promotion can be undone. `tidemill champions list` shows every one."
            )
        await connection.execute(_UNDO, held.id, why)
        return held, await current(connection, dataset)


def _json(value: Any) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()


def _champion(row: Any) -> Champion:
    given = dict(row)
    for name, kind in _TEXTUAL:
        given[name] = msgspec.json.decode(given[name], type=kind)
    return Champion(**given)
