"""Turnwise: stateful conversations that lose nothing."""

from typing import TYPE_CHECKING, Any

from turnwise.batching import Batcher, batched
from turnwise.bot import Bot
from turnwise.conversation import Answer, Ask, Attachment, Message, Reply
from turnwise.conversation.events import Event
from turnwise.errors import Refusal, ReplyTimeout, StreamEnded, TurnError, TurnwiseError
from turnwise.runtime import Runtime
from turnwise.settings import Settings
from turnwise.turn import Turn

if TYPE_CHECKING:
    from turnwise.server.app import admin, install, page, router
else:

    def __getattr__(name: str) -> Any:
        """These bring FastAPI, a third of the time to import: workers do without."""
        if name in ("admin", "install", "page", "router"):
            from turnwise.server import app

            return getattr(app, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__version__ = "0.1.0"

__all__ = [
    "Answer",
    "Ask",
    "Attachment",
    "Batcher",
    "Bot",
    "Event",
    "Message",
    "Refusal",
    "Reply",
    "ReplyTimeout",
    "Runtime",
    "Settings",
    "StreamEnded",
    "Turn",
    "TurnError",
    "TurnwiseError",
    "admin",
    "batched",
    "install",
    "page",
    "router",
]
