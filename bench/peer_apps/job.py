"""The job that all contestants have: a reply of five words, and a note that the handler ran.

PEER_DELAY is how many seconds the reply takes, PEER_RUNS the file of notes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

DELAY, RUNS = float(os.environ.get("PEER_DELAY", "0")), os.environ.get("PEER_RUNS")


def note(text: str) -> None:
    """Remember that the handler ran for this message."""
    if RUNS:
        with Path(RUNS).open("a") as file:
            file.write(f"{text}\n")


async def words(text: str) -> AsyncIterator[str]:
    """The reply to a message."""
    await asyncio.to_thread(note, text)
    for _ in range(5):
        if DELAY:
            await asyncio.sleep(DELAY / 5)
        yield "word "
