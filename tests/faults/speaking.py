"""An application that serves one bot on Telegram, Slack and WhatsApp, by their webhooks.

It says several messages a turn, one of them slowly now and then, so that it grows.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import Response

from turnwise import Bot, Message, Runtime, Turn
from turnwise.messengers import delivery
from turnwise.messengers.slack import Slack, slack_webhook
from turnwise.messengers.telegram import Telegram, telegram_webhook
from turnwise.messengers.whatsapp import WhatsApp, whatsapp_webhook

delivery.LEASE, delivery.BEAT, delivery.GROWS = 2.0, 0.5, 0.3
API = os.environ["API"]
SLOWLY = 5
"""Every so manieth turn says its second message slowly."""


async def reply(turn: Turn) -> AsyncIterator[str | Message]:
    """Says two messages, and which turn it is."""
    turn.state["n"] = n = turn.state.get("n", 0) + 1
    yield Message(f"{n} first {turn.text}")
    await asyncio.sleep(0.02)
    if n % SLOWLY == 0:
        yield f"{n} second"
        await asyncio.sleep(0.8)
        yield f" {turn.text}"
    else:
        yield Message(f"{n} second {turn.text}")


runtime = Runtime(Bot(reply, max_attempts=20), os.environ["TURNWISE_STORE"])
app = FastAPI(lifespan=runtime.lifespan)
app.include_router(
    telegram_webhook(runtime, Telegram("1:" + "A" * 35, api=f"{API}/telegram"), "secret")
)
app.include_router(slack_webhook(runtime, Slack("xoxb-1", "secret", api=f"{API}/slack")))
app.include_router(
    whatsapp_webhook(runtime, WhatsApp("47", "t", "secret", api=f"{API}/whatsapp"), "verify")
)


@app.get("/health/ready")
async def ready() -> Response:
    """Whether it can take updates."""
    await runtime.store.ping()
    return Response()
