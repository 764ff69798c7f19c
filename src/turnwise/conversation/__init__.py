"""The parts of a conversation: sessions, messages, turns, events. Pure: no store, no clock."""

from turnwise.conversation.asks import Answer, Asked
from turnwise.conversation.cursors import Cursor
from turnwise.conversation.messages import (
    Ask,
    Attachment,
    Failure,
    Message,
    Role,
    Status,
    concluded,
    new_message_id,
    not_json,
    parsed,
    placed,
    renewed,
    valid_text,
)
from turnwise.conversation.sessions import Session, checked_session_id, new_session_id
from turnwise.conversation.stamps import iso, seconds
from turnwise.conversation.steps import StepRecord
from turnwise.conversation.turns import OPEN, TRANSITIONS, Reply, TurnRecord, after

__all__ = [
    "OPEN",
    "TRANSITIONS",
    "Answer",
    "Ask",
    "Asked",
    "Attachment",
    "Cursor",
    "Failure",
    "Message",
    "Reply",
    "Role",
    "Session",
    "Status",
    "StepRecord",
    "TurnRecord",
    "after",
    "checked_session_id",
    "concluded",
    "iso",
    "new_message_id",
    "new_session_id",
    "not_json",
    "parsed",
    "placed",
    "renewed",
    "seconds",
    "valid_text",
]
