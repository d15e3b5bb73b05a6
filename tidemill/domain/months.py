"""Months as the lake names them, such as 2024-01: where one starts and ends, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def month_start(month: str) -> datetime:
    return datetime.fromisoformat(f"{month}-01").replace(tzinfo=UTC)


def month_end(month: str) -> datetime:
    start = month_start(month)
    return start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
