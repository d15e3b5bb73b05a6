"""TODO docstring of tidemill.storage.cache_keys."""

from __future__ import annotations


def cache_key(symbol: str, engine: str) -> str:
    return f"predictions:{symbol}:{engine}"
