"""Real processes on real stores, while one thing after another goes wrong.

`make faults` plays every fault on every store it applies to, STRIKES times; `make test` plays some
of them once, each on one store.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from nemesis import FAULTS, Fault
from scene import Scene

from conftest import needs
from redis_servers import binary

STRIKES = int(os.environ.get("STRIKES", "0"))
PLAYED = [
    (fault, store)
    for fault in FAULTS
    for store in (fault.stores if STRIKES else fault.stores[: not fault.like])
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "store"), PLAYED, ids=[f"{fault.name}, {store}" for fault, store in PLAYED]
)
async def test_fault(fault: Fault, store: str, tmp_path: Path, row: Any) -> None:
    """What was acknowledged is there, once, in order, and everybody has heard of it."""
    needs(store in ("sqlite", "postgres") or binary() is not None, "redis-server")
    times = STRIKES or 1
    async with Scene.opened(tmp_path, store, fault.cast) as scene:
        verdict = await scene.play(lambda: fault.strike(scene), times)
    row(fault.name, store, verdict, times)
    assert verdict.acknowledged > 5
    assert verdict.deeds > 5 or not fault.cast.deeds
    assert verdict.clean, "\n".join(verdict.broken[:3])
