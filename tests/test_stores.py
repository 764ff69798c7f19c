"""Every store keeps the one promise, and each what its own page says beyond it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from turnwise.conformance import StoreConformance
from turnwise.stores.base import Store
from turnwise.stores.sqlite import SQLiteStore


class Clock:
    """Seconds since 1970 that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class TestSQLiteConformance(StoreConformance):
    """The whole suite on a real file."""

    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        self.clock = Clock()
        store = SQLiteStore(tmp_path / "test.db", clock=self.clock)
        await store.open()
        yield store
        await store.close()

    async def pass_time(self, store: Store, seconds: float) -> None:
        self.clock.now += seconds
