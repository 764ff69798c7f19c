"""Media: the bytes of files that people have sent on messengers, which keep them.

A messenger says how its files are opened (`learn`); a turn that came from there may open them. The
turn's note names the messenger's channel, and only a messenger writes it, so nobody reads another
person's file by writing its address into a message.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from turnwise.errors import Rejected, TurnError

log = logging.getLogger("turnwise.media")

CHANNEL = "channel"
"""What a turn's note says of the messenger that brought its message."""
PAUSES = (0.5, 1.5, None)
"""Seconds between attempts; None: that was the last one."""
PATIENCE = 60.0
"""Seconds that one attempt may take."""

Opens = Callable[[str, int], Awaitable[bytes | None]]
"""The bytes behind an address, of which there may be so many; None if it is not an address of this
messenger. Raises Rejected for what will never be there."""


class Media:
    """The messengers that this process knows, by their channels."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._opens: dict[str, Opens] = {}

    def learn(self, channel: str, opens: Opens) -> None:
        """How the files of a channel are opened."""
        self._opens[channel] = opens

    async def read(self, note: Mapping[str, Any], url: str) -> bytes | None:
        """The bytes behind an attachment's address, for a turn with this note; None if it is not a
        messenger's. Raises NotFound, TooLarge, and TurnError if the messenger is away."""
        opens = self._opens.get(str(note.get(CHANNEL)))
        if opens is None:
            return None
        for pause in PAUSES:
            try:
                async with asyncio.timeout(PATIENCE):
                    return await opens(url, self._most)
            except Rejected:
                raise
            except Exception as error:
                log.warning("a file of %s: %s", note[CHANNEL], type(error).__name__)
                if pause is None:
                    break
                await asyncio.sleep(float(getattr(error, "retry_after", None) or pause))
        raise TurnError(
            "The file cannot be fetched now. Please try again.",
            code="file_unavailable",
            retryable=True,
        )
