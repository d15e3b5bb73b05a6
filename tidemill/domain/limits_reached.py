"""What its limits did to a book, in figures and in words."""

from datetime import datetime

import msgspec

_STAYS = "what holds nothing does not win it back, and in a backtest no operator lets it go on"
_DONE = {"block": "let nothing be added", "reduce": "reduced it", "flatten": "closed it"}
_BRIEF = {"block": "blocked", "reduce": "reduced", "flatten": "closed"}
# How a person sees the book of an experiment without its limits, or with others.
OTHER_LIMITS = (
    "To see the book without limits, run a copy of the experiment that leaves out `limits`; to see it with wider ones, raise "
    "the levels `block`, `reduce` and `flatten` of its `limits: {drawdown: …}`. Each copy is a trial of its own."
)


class LevelReached(msgspec.Struct, frozen=True, kw_only=True):
    """A level of the drawdown policy that was in force. level: `block`, `reduce` or `flatten`.

    first: open time of the bar at whose close it first came into force. limit: where it begins; drawdown: what was lost then;
    both as shares of the highest equity. times: how often it came into force; slots: over how many it was.
    """

    level: str
    limit: float
    first: datetime
    drawdown: float
    times: int
    slots: int


class LimitsReached(msgspec.Struct, frozen=True, kw_only=True):
    """slots: of the whole range. levels: of the drawdown policy that were in force, the mildest first. held_back: slots over
    which nothing could be added.

    flat_since: from when on nothing was held, to the end of the range, under a level that no calm releases; else None. cut:
    position, gross, net → targets that the limit made smaller; one that several cut counts for each, one that a level of loss
    held back for none. collar: orders that it cancelled.
    """

    slots: int
    levels: tuple[LevelReached, ...] = ()
    held_back: int = 0
    flat_since: datetime | None = None
    cut: dict[str, int] = {}
    collar: int = 0

    def sentences(self) -> tuple[str, ...]:
        """What was reached, when first, what followed; then how many targets and orders were cut. None where nothing was."""
        return (*((_reached(self),) if self.levels else ()), *_cut(self))

    def shortly(self) -> str:
        """The severest level, as a cell of a table shows it; empty where none was reached."""
        if not self.levels:
            return ""
        worst = self.levels[-1]
        if self.flat_since is not None:
            return f"flat since {day(self.flat_since)}"
        return f"{_BRIEF[worst.level]} {day(worst.first)}"


def _reached(found: LimitsReached) -> str:
    worst = found.levels[-1]
    again = f", the first of {worst.times:,} times" if worst.times > 1 else ""
    flat = f", and it has held nothing since {day(found.flat_since)}: {_STAYS}" if found.flat_since is not None else ""
    return (
        f"On {day(worst.first)} the book was {_share(worst.drawdown)} below its highest equity, so its limits "
        f"{_DONE[worst.level]} ({worst.level} at {_share(worst.limit)}){again}. Nothing could be added over "
        f"{found.held_back:,} of {_many(found.slots, 'bar')}{flat}."
    )


def _cut(found: LimitsReached) -> list[str]:
    targets = [f"{_many(count, 'target')} to the {name} limit" for name, count in found.cut.items() if count]
    cut = [f"cut {', '.join(targets)}"] if targets else []
    cancelled = [f"cancelled {_many(found.collar, 'order')} at the collar"] if found.collar else []
    return [f"Its limits {' and '.join((*cut, *cancelled))}."] if cut or cancelled else []


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _share(share: float) -> str:
    return f"{100 * share:.3g}\N{NO-BREAK SPACE}%"


def day(moment: datetime) -> str:
    """As a person writes it: without midnight."""
    return f"{moment:%Y-%m-%d}" if (moment.hour, moment.minute) == (0, 0) else f"{moment:%Y-%m-%d %H:%M}"
