"""Names in a sentence."""

from collections.abc import Sequence


def first_of(names: Sequence[str], most: int = 5) -> str:
    """The first names, and how many there are beside: `AAA, BBB and 3 more`."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
