"""Names in a sentence."""

from collections.abc import Sequence


def first_of(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many there are beside: `AAA, BBB and 3 more`."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def listed(names: Sequence[str]) -> str:
    """All names: `AAA, BBB and CCC`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
