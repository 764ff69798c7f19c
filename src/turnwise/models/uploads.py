"""Uploads: files of the session in the form in which a model gets them."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace

from turnwise.conversation import Attachment, Message
from turnwise.errors import NotFound
from turnwise.turn import Turn

IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""The images that models read."""
MAX_TEXT = 100_000
"""Characters of a text file that a model gets."""


async def readable(turn: Turn, messages: Sequence[Message]) -> list[Message]:
    """The messages with their uploads: images as data URLs, text files as text. What a model cannot
    read stays as it is, and is named in the prompt."""
    return [
        await _with_uploads(turn, message) if any(map(_is_upload, message.attachments)) else message
        for message in messages
    ]


def _is_upload(attachment: Attachment) -> bool:
    return attachment.url.startswith("/")


async def _with_uploads(turn: Turn, message: Message) -> Message:
    texts, kept = [message.text] if message.text else [], []
    for attachment in message.attachments:
        content = None
        if _is_upload(attachment) and (attachment.type in IMAGES or _is_text(attachment)):
            try:
                content = await turn.file(attachment)
            except NotFound:  # it was removed meanwhile
                pass
        if content is None:
            kept.append(attachment)
        elif attachment.type in IMAGES:
            data = f"data:{attachment.type};base64,{b64encode(content).decode()}"
            kept.append(replace(attachment, url=data))
        else:
            text = content.decode("utf-8", "replace")
            whole = text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}\n[The rest is left out.]"
            texts.append(f"[Attached: {attachment.name or 'a text'}]\n{whole}")
    return replace(message, text="\n\n".join(texts), attachments=kept)


def _is_text(attachment: Attachment) -> bool:
    return attachment.type.startswith("text/") or attachment.type == "application/json"
