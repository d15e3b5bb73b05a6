"""Under which names the cache keeps what it keeps."""

from __future__ import annotations


def cache_key(symbol: str, engine: str) -> str:
    return f"predictions:{symbol}:{engine}"
