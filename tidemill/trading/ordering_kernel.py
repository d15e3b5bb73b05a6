"""The compiled part of `ordering`: an account over a table of addresses, through one slot."""

from tidemill.compiled import entry, kernel
from tidemill.features.kernels.bound import flags, floats, floats_by_row, integers
from tidemill.matching.rules import Floats, MatchingRules, VenueRow
from tidemill.risk.drawdown import DrawdownPolicy, DrawdownState
from tidemill.risk.limits import Limits
from tidemill.trading.account import Account, AccountRow, Indices, Terms
from tidemill.trading.decision import Apart
from tidemill.trading.slot import Actions, Buffers, Clock, Log, step_slot

# Places of the table: the fields of Account, VenueRow, Actions and Log in their own order, and between them the others.
ACCOUNT = 0
VENUE = ACCOUNT + len(Account._fields)
ACTIONS = VENUE + len(VenueRow._fields)
LOG = ACTIONS + len(Actions._fields)
STATED, DRAWDOWN, MARKED, BOOK, DELISTED, DUE, ORDINAL, GROUP, FILLS, WANTED, ASKED, ASIDE = range(
    LOG + len(Log._fields), LOG + len(Log._fields) + 12
)
# Rows of a slot (`adjusting.COLUMNS`).
_OPEN, _CLOSE, _VOLUME = 0, 3, 4


@kernel
def _account(table: Indices) -> Account:
    return Account(
        floats(table, ACCOUNT),
        floats(table, ACCOUNT + 1),
        floats(table, ACCOUNT + 2),
        integers(table, ACCOUNT + 3),
        floats(table, ACCOUNT + 4),
        floats(table, ACCOUNT + 5),
        integers(table, ACCOUNT + 6),
        integers(table, ACCOUNT + 7),
        integers(table, ACCOUNT + 8),
        floats_by_row(table, ACCOUNT + 9),
        integers(table, ACCOUNT + 10),
        integers(table, ACCOUNT + 11),
        flags(table, ACCOUNT + 12),
        floats(table, ACCOUNT + 13),
        integers(table, ACCOUNT + 14),
    )


@kernel
def _terms(table: Indices) -> Terms:
    """`stated_terms` and the arrays of the venue."""
    venue = VenueRow(
        floats(table, VENUE),
        floats(table, VENUE + 1),
        floats(table, VENUE + 2),
        flags(table, VENUE + 3),
        floats(table, VENUE + 4),
    )
    at = floats(table, STATED)
    return Terms(
        venue,
        MatchingRules(at[0], at[1], at[2], at[3], at[4]),
        Limits(at[5], at[6], at[7]),
        DrawdownPolicy(at[8], at[9], at[10], at[11], int(at[12])),
        at[13] != 0.0,
        at[14] != 0.0,
        at[15] != 0.0,
        int(at[16]),
    )


def stated_terms(terms: Terms) -> list[float]:
    """The numbers of `terms` in a row, without the arrays of the venue."""
    flat = (*terms.rules, *terms.limits, *terms.policy, terms.guarded, terms.borrows, terms.resize, terms.dead_after)
    return [float(number) for number in flat]


@entry
def order_slot(
    table: Indices,
    rows: Floats,
    weights: Floats,
    slot: int,
    opens: int,
    closes: int,
    elapsed: float,
    contiguous: bool,
    apart: bool,
) -> None:
    """One slot through `step_slot`. rows: raw, `adjusting.COLUMNS`. apart: symbols follow calendars of their own."""
    row = AccountRow(rows[_OPEN], rows[_CLOSE], rows[_VOLUME], weights, elapsed, contiguous)
    actions = Actions(
        integers(table, ACTIONS), integers(table, ACTIONS + 1), integers(table, ACTIONS + 2), floats(table, ACTIONS + 3)
    )
    log = Log(floats_by_row(table, LOG), floats_by_row(table, LOG + 1), integers(table, LOG + 2))
    buffers = Buffers(floats_by_row(table, FILLS), floats(table, WANTED), Apart(floats(table, ASKED), floats(table, ASIDE)))
    account, terms, book, delisted = _account(table), _terms(table), floats_by_row(table, BOOK), integers(table, DELISTED)
    kept, marked = floats(table, DRAWDOWN), floats(table, MARKED)
    before = DrawdownState(kept[0], int(kept[1]), int(kept[2]), kept[3])
    log.used[:] = 0
    if apart:
        clock = Clock(opens, closes, integers(table, DUE), integers(table, ORDINAL), integers(table, GROUP))
        _, after, made = step_slot(
            slot, row, clock, actions, 0, delisted, opens, False, terms, account, book, before, buffers, log
        )
    else:
        _, after, made = step_slot(
            slot, row, None, actions, 0, delisted, opens, False, terms, account, book, before, buffers, log
        )
    kept[0], kept[1], kept[2], kept[3] = after.high_water, float(after.action), float(after.calm), after.gross_cap
    marked[0], marked[1], marked[2], marked[3] = made.equity, made.gross, made.net, made.costs
    marked[4], marked[5], marked[6] = kept[1], log.used[0], log.used[1]
