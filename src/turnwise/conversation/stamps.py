"""Timestamps: seconds since 1970, and their text in RFC 3339."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


@lru_cache(maxsize=64)  # one act uses one timestamp
def iso(moment: float) -> str:
    """Seconds since 1970 as RFC 3339 in UTC with milliseconds: `2026-01-31T12:00:00.000Z`."""
    millis = int(moment * 1000)
    return f"{_iso_second(millis // 1000)}.{millis % 1000:03d}Z"


@lru_cache(maxsize=8)  # many timestamps share a second
def _iso_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:-6]


def seconds(text: str) -> float:
    """The inverse of `iso`."""
    return datetime.fromisoformat(text).timestamp()
