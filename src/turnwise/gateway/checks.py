"""Checks: what of a request is refused before the store sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from turnwise.conversation import MAX_NAME, Answer, Message, valid_text
from turnwise.conversation.events import dumps
from turnwise.errors import Invalid, TooLarge

MAX_METADATA = 16_384
"""Maximum bytes of a session's or a message's metadata, and of a turn's note, as JSON."""
MAX_ATTACHMENTS = 20
"""Attachments of a message."""
MAX_ANSWERS = 65_536
"""Maximum bytes of a message's answers as JSON."""
MAX_REASON = 4_000
"""Characters of the reason for which a bot is woken."""
MAX_COMMENT = 2_000
"""Characters of a comment on a message."""
MAX_HISTORY = 1_000
"""Messages with which a session begins."""
MAX_KEY = 255
"""Characters of an idempotency key."""
MAX_TTL = 10 * 365 * 86400.0
"""Seconds that an unused session may live."""


def fingerprint(content: Any) -> str:
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()


def checked_name(name: str | None) -> str | None:
    if name is not None and len(name) > MAX_NAME:
        raise TooLarge(f"A name has at most {MAX_NAME} characters.")
    return name


def checked_reason(reason: str) -> str:
    if not isinstance(reason, str) or not reason.strip():
        raise Invalid("A reason is a text.")
    if len(reason) > MAX_REASON:
        raise TooLarge(f"A reason has at most {MAX_REASON} characters.")
    return valid_text(reason)


def checked_key(key: str) -> str:
    if not 1 <= len(key) <= MAX_KEY:
        raise Invalid(f"An idempotency key has 1 to {MAX_KEY} characters.")
    return key


def checked_history(messages: Sequence[Message]) -> list[bytes]:
    """A given history, encoded."""
    if len(messages) > MAX_HISTORY:
        raise TooLarge(f"A session begins with at most {MAX_HISTORY} messages.")
    return encoded_messages(messages)


def encoded_messages(messages: Sequence[Message]) -> list[bytes]:
    for message in messages:
        message.text = valid_text(message.text)
    return [encoded_message(message) for message in messages]


def encoded_message(message: Message) -> bytes:
    try:
        return message.encode()
    except TypeError as error:
        raise Invalid(f"A message's parts and metadata must be JSON: {error}") from None


def content_of(message: Message) -> list[Any]:
    """What distinguishes a message from another one, for a fingerprint."""
    ask = None if message.ask is None else {**message.ask.as_dict(), "id": None}
    files = [file.as_dict() for file in message.attachments]
    return [message.role, message.text, files, message.metadata, ask]


def checked_feedback(value: str, comment: str | None) -> dict[str, str]:
    if value not in ("up", "down"):
        raise Invalid('Feedback is "up" or "down".')
    if comment is not None and len(comment) > MAX_COMMENT:
        raise TooLarge(f"A comment has at most {MAX_COMMENT} characters.")
    return {"value": value} if comment is None else {"value": value, "comment": comment}


def checked_text(text: str, most: int, *, may_be_empty: bool) -> str:
    if not isinstance(text, str):
        raise Invalid("A message's text must be a string.")
    if len(text) > most:
        raise TooLarge(f"A message has at most {most} characters.")
    if not text.strip() and not may_be_empty:
        raise Invalid("A message needs a text or an attachment.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Invalid("A message's text must be valid Unicode.") from None
    return text


def checked_ttl(ttl: float) -> float:
    if not 1 <= ttl <= MAX_TTL:
        raise Invalid("A ttl must be between 1 second and 10 years.")
    return float(ttl)


def checked_answers(answers: Sequence[Answer]) -> None:
    """Raises Invalid, TooLarge."""
    if len({answer.ask for answer in answers}) < len(answers):
        raise Invalid("A message answers each ask once.")
    try:
        encoded = orjson.dumps([tuple(answer) for answer in answers])
    except TypeError as error:
        raise Invalid(f"An answer's value must be JSON: {error}") from None
    if len(encoded) > MAX_ANSWERS:
        raise TooLarge(f"Answers have at most {MAX_ANSWERS:,} bytes as JSON.")


def checked_metadata(metadata: Mapping[str, Any], what: str = "Metadata") -> bytes:
    try:
        encoded = dumps(dict(metadata))
    except TypeError as error:
        raise Invalid(f"{what} must be JSON: {error}") from None
    if len(encoded) > MAX_METADATA:
        raise TooLarge(f"{what} has at most {MAX_METADATA} bytes as JSON.")
    return encoded
