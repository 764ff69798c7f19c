"""Many worlds, each from a seed: in every one the laws hold, and afterwards everything drains.

SEEDS is how many (150), FIRST_SEED the first; a seed plays the same story every time:
`make simulate SEEDS=10000`, `FIRST_SEED=4711 SEEDS=1`.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import laws
import pytest
from world import World

SEEDS = int(os.environ.get("SEEDS", "150"))
FIRST = int(os.environ.get("FIRST_SEED", "1"))
PART = 50


def play(seed: int, folder: Path) -> World:
    world = World(seed, folder)
    try:
        world.play()
        laws.check(world)
    except BaseException as error:
        error.add_note(f"seed {seed}: FIRST_SEED={seed} SEEDS=1 plays it again")
        raise
    finally:
        for file in folder.glob(f"{seed}.db*"):
            file.unlink()
    return world


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where a commit need not wait for a disk: here nothing dies but what the world lets die."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="turnwise-") as made:
        yield Path(made)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What is logged in so many worlds says nothing."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, PART))
def test_worlds(first: int, folder: Path) -> None:
    """Crashes, stalls, lost wake-ups, doubled requests, cancels, resets: no law is broken."""
    faults: Counter[str] = Counter()
    for seed in range(first, min(first + PART, FIRST + SEEDS)):
        faults += play(seed, folder).faults
    if SEEDS >= PART:
        assert len(faults) == 8, f"some faults never struck: {faults}"


def test_a_seed_is_a_story(folder: Path) -> None:
    """Played twice, it is the same to the last event."""
    first, second = (play(FIRST, folder) for _ in range(2))
    for session, log in first.logs.items():
        again = second.logs[session]
        kinds = [(event.type, event.turn) for _, event in sorted(log.items())]
        assert [(event.type, event.turn) for _, event in sorted(again.items())] == kinds
    assert first.faults == second.faults
