"""What a bot says, as Telegram takes it: texts with their entities, and buttons. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from turnwise.conversation import Message
from turnwise.messengers.markup import Run, runs, spelled, split

LONGEST_TEXT = 4096
"""Maximum length of a message, in UTF-16 code units, in which Telegram counts entities."""
LINKS = ("http://", "https://", "tg://", "mailto:")
_ENTITIES = {
    "bold": "bold", "italic": "italic", "strike": "strikethrough", "code": "code", "pre": "pre",
    "link": "text_link", "quote": "blockquote",
}  # fmt: skip


def units(text: str) -> int:
    """The length of a text in UTF-16 code units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def pieces(message: Message) -> list[Message]:
    """Texts of at most 4,096 units with their entities, then each attachment; the buttons of a
    question are with its last text."""
    said = spelled(runs(message.text), LINKS)
    texts = split(said, LONGEST_TEXT, lambda run: units(run.text))
    found = [
        Message("".join(run.text for run in piece), metadata={"entities": entities(piece)})
        for piece in texts
    ]
    if message.ask is not None and message.ask.choices:
        found = found or [Message("?")]
        found[-1].ask = message.ask
    return [*found, *(Message(attachments=[one]) for one in message.attachments)]


def entities(piece: Sequence[Run]) -> list[dict[str, Any]]:
    """The styles of a piece, in Telegram's terms and units."""
    found: list[dict[str, Any]] = []
    at = 0
    for run in piece:
        length = units(run.text)
        for name, value in run.styles:
            entity: dict[str, Any] = {"type": _ENTITIES[name], "offset": at, "length": length}
            if name == "link":
                entity["url"] = value
            elif name == "pre" and value:
                entity["language"] = value
            found.append(entity)
        at += length
    return found


def as_entities(message: Message) -> Any:
    from aiogram.types import MessageEntity

    given = message.metadata.get("entities", ())
    return [MessageEntity(**entity) for entity in given] or None


def keyboard(message: Message, topic: int | None) -> Any:
    """The choices of a question. Telegram does not say of a button in an old message in which topic
    it was, so the button does."""
    from aiogram.types import InlineKeyboardButton, InlineKeyboardMarkup

    if message.ask is None or not message.ask.choices:
        return None
    place = "" if topic is None else f"|t{topic}"
    rows = [
        [InlineKeyboardButton(text=choice, callback_data=f"{message.ask.id}|{i}{place}")]
        for i, choice in enumerate(message.ask.choices)
    ]
    return InlineKeyboardMarkup(inline_keyboard=rows)
