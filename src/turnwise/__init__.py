"""Turnwise: stateful conversations that lose nothing."""

from turnwise.batching import Batcher, batched
from turnwise.bot import Bot
from turnwise.conversation import Attachment, Message, Reply
from turnwise.errors import Refusal, TurnError, TurnwiseError
from turnwise.runtime import Runtime
from turnwise.server import router
from turnwise.turn import Turn

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
