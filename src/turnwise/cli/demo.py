"""The built-in bot: something to talk to in the first minute, without a key or a network.

It shows what Turnwise does: replies that stream, a state that survives restarts, a slow count
during which you can press Stop, reload the page or send more messages, a small dialog, and an
agent that uses tools and asks before it acts (demo_agent.py).
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator

from turnwise.bot import Bot
from turnwise.cli import demo_agent
from turnwise.conversation import Message
from turnwise.turn import Turn

IDEAS = [
    "Hello!", "Plan a trip to Paris", "Count to 20", "My name is Ada", "Order a pizza",
    "Show me markdown",
]  # fmt: skip
"""The first messages that the chat page suggests."""

HELP = """\
I am Turnwise's demo bot. I run on your machine and use no language model. Try:

- **plan a trip to Paris**: an agent thinks, calls a tool, and asks before it acts
  (for *Atlantis* the tool fails)
- **count to 20**, and meanwhile press *Stop*, reload the page, or send more messages:
  they wait in line and are answered in order
- **my name is Ada**, then restart the server and ask **who am I?**
- **order a pizza** for a small scripted dialog
- **show me markdown** to see how replies are rendered

All messages are stored in one SQLite file, `turnwise.db`.
"""

MARKDOWN = """\
### A reply in Markdown

Text can be *emphasised*, **strong** or `code`, and link to [the web](https://www.python.org).

1. Lists have an order,
2. and so do the turns of a session.

| Promise | Held by |
|---|---|
| nothing accepted is lost | one commit per turn |
| nothing comes twice | numbered events |

```python
@bot.reply
async def reply(turn):
    yield f"You said: {turn.text}"
```

> Scripts and images from elsewhere are never loaded.
"""

_NAME = re.compile(r"\b(?:my name is|i am called|call me)\s+([^\W\d_][\w'-]{0,40})", re.I)
_COUNT = re.compile(r"\bcount(?:\s+(?:slowly\s+)?(?:to|up to))?\s*(\d{1,3})?", re.I)
_SIZES = ("small", "medium", "large")


def demo_bot() -> Bot:
    """The demo bot, or, if OPENAI_API_KEY or OPENAI_BASE_URL is set, a bot with that model."""
    if has_model():
        from turnwise.models import OpenAIChat

        return Bot(OpenAIChat(_model()))
    return Bot(reply)


def demo_name() -> str:
    """What `turnwise serve` serves when it is given no bot."""
    return f"the model {_model()}" if has_model() else "the demo bot"


def _model() -> str:
    return os.environ.get("OPENAI_MODEL", "gpt-4o-mini")


def has_model() -> bool:
    """Whether the environment names a model to talk to."""
    return bool(os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"))


async def reply(turn: Turn) -> AsyncIterator[str | Message]:
    """Choose the reply by the message's text."""
    text = turn.text.strip()
    if demo_agent.concerns(turn) and "pizza" not in turn.state:
        async for said in demo_agent.answer(turn):
            yield said
    elif "pizza" in turn.state or "pizza" in text.lower():
        yield _pizza(turn, text.lower())
    elif found := _NAME.search(text):
        turn.state["name"] = found[1]
        async for piece in _slowly(f"Nice to meet you, **{found[1]}**. I will remember that."):
            yield piece
    elif re.search(r"\b(who am i|my name)\b", text, re.I):
        name = turn.state.get("name")
        known = f"You are **{name}**." if name else "I do not know yet. Tell me: *my name is …*"
        async for piece in _slowly(known):
            yield piece
    elif found := _COUNT.search(text):
        async for piece in _count(min(int(found[1] or 10), 300)):
            yield piece
    elif re.search(r"\bmarkdown\b", text, re.I):
        async for piece in _slowly(MARKDOWN):
            yield piece
    elif re.search(r"\b(help|what can you do|hi|hello|hey)\b", text, re.I):
        name = turn.state.get("name")
        async for piece in _slowly((f"Hello, {name}! " if name else "Hello! ") + HELP):
            yield piece
    else:
        said = f"You said: *{text}*. " if len(text) < 200 else ""
        said += f"That was message {turn.n} of this session. Say **help** to see what I can do."
        async for piece in _slowly(said):
            yield piece


async def _slowly(text: str) -> AsyncIterator[str]:
    """`text` word by word, about as fast as one reads."""
    for piece in re.findall(r"\S+\s*|\s+", text):
        yield piece
        await asyncio.sleep(0.02)


async def _count(last: int) -> AsyncIterator[str]:
    yield f"Counting to {last}: "
    for number in range(1, last + 1):
        yield f"{number}" + (", " if number < last else ". Done.")
        await asyncio.sleep(0.4)


def _pizza(turn: Turn, text: str) -> str:
    """A form with two questions; its position is in the session's state."""
    order = turn.state.setdefault("pizza", {})
    if text in ("no", "stop", "cancel", "nothing"):
        del turn.state["pizza"]
        return "No pizza then. What else can I do?"
    if order.get("asked") == "size":
        size = next((size for size in _SIZES if size in text), None)
        if size is None:
            return "We have **small**, **medium** and **large**. Which one?"
        order.update(size=size, asked="topping")
        return f"A {size} one. And what shall be on it?"
    if order.get("asked") == "topping":
        size = order["size"]
        del turn.state["pizza"]
        return f"Done: a **{size}** pizza with **{text}**. (This is a demo: no oven is involved.)"
    order["asked"] = "size"
    return "With pleasure! Which size: **small**, **medium** or **large**?"
