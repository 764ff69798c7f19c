"""Turnwise: stateful conversations that lose nothing."""

from typing import TYPE_CHECKING, Any

from turnwise.batching import Batcher, batched
from turnwise.bot import Bot
from turnwise.conversation import Attachment, Message, Reply
from turnwise.errors import Refusal, TurnError, TurnwiseError
from turnwise.runtime import Runtime
from turnwise.turn import Turn

if TYPE_CHECKING:
    from turnwise.server import router
else:

    def __getattr__(name: str) -> Any:
        """`router` brings FastAPI, a third of the time to import: workers do without."""
        if name == "router":
            from turnwise.server import router

            return router
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__version__ = "0.1.0"

__all__ = [
    "Attachment",
    "Batcher",
    "Bot",
    "Message",
    "Refusal",
    "Reply",
    "Runtime",
    "Turn",
    "TurnError",
    "TurnwiseError",
    "batched",
    "router",
]
