"""Ids: a response is fetched without its conversation, so its id carries both."""

from __future__ import annotations

from base64 import b64decode, urlsafe_b64encode

from turnwise.conversation.cursors import MAX_NUMBER
from turnwise.errors import NotFound

_CONVERSATION = "conv_"
_RESPONSE = "resp_"
_CALL = "call_"


def response_id(session_id: str, n: int) -> str:
    """The id of the response that is turn `n`."""
    return f"{_RESPONSE}{_packed(session_id)}_{n}"


def conversation_id(session_id: str) -> str:
    """The id of the conversation that is this session."""
    return _CONVERSATION + _packed(session_id)


def call_id(session_id: str, ask: str) -> str:
    """The id of a tool call that is found without its conversation."""
    return f"{_CALL}{_packed(session_id)}.{ask}"


def turn_of(response: str) -> tuple[str, int]:
    """Session and number of the turn that a response is. Raises NotFound."""
    session, _, n = response.removeprefix(_RESPONSE).rpartition("_")
    if not (response.startswith(_RESPONSE) and n.isascii() and n.isdigit() and len(n) < 16):
        raise NotFound("This response does not exist.")
    return _unpacked(session), min(int(n), MAX_NUMBER)


def is_ours(conversation: str) -> bool:
    """Whether an id is one that holds a session, and no name of the client's own."""
    return conversation.startswith(_CONVERSATION)


def session_of(conversation: str) -> str:
    """The session that a conversation is: by its id, or by a name of the client's own."""
    if not conversation.startswith(_CONVERSATION):
        return conversation
    return _unpacked(conversation.removeprefix(_CONVERSATION))


def ask_of(call: str) -> tuple[str | None, str]:
    """The session of a tool call, if its id names it, and its ask."""
    session, found, ask = call.removeprefix(_CALL).partition(".")
    if not (found and call.startswith(_CALL)):
        return None, call
    return _unpacked(session), ask


def _packed(session_id: str) -> str:
    return urlsafe_b64encode(session_id.encode()).decode().rstrip("=")


def _unpacked(packed: str) -> str:
    try:
        session = b64decode(packed + "=" * (-len(packed) % 4), b"-_", validate=True).decode()
    except ValueError:
        session = ""
    if not session:
        raise NotFound("This conversation does not exist.")
    return session
