"""A form that orders a pizza; a language model answers everything else.

OPENAI_API_KEY=… turnwise serve pizza_form:bot

The dialog is in pizza_form.yaml, which can name the functions registered here and nothing else.
"""

import os
import re
from pathlib import Path

from turnwise import Bot
from turnwise.models import OpenAIChat
from turnwise.script import Context, Script

HERE = Path(__file__).parent


def said_a_slot(context: Context) -> bool:
    """Whether the last message contains a part of the order, as words of its own."""
    if context.text.rstrip().endswith("?"):
        return False
    values = [re.escape(value) for value in context.slots.values() if isinstance(value, str)]
    return any(re.search(rf"\b{value}\b", context.text) for value in values)


def forget(context: Context) -> None:
    """Start the next order; one that is done stays in the state."""
    if context.at.node == "done":
        context.state.setdefault("orders", []).append(dict(context.slots))
    context.slots.clear()


model = OpenAIChat(
    model=os.environ.get("OPENAI_MODEL", "gpt-4o-mini"),
    system="You work in a pizza place. Answer in one sentence, and lead back to the order.",
)
script = Script.load(
    HERE / "pizza_form.yaml",
    functions={"said_a_slot": said_a_slot, "forget": forget, "model": model},
)
bot = Bot(script)
