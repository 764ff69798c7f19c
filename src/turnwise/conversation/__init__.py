"""The parts of a conversation: sessions, messages, turns, events. Pure: no store, no clock."""

from turnwise.conversation.asks import Answer, Asked
from turnwise.conversation.busy import QUEUE, Policy, WhenBusy, checked_policy
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
from turnwise.conversation.sessions import (
    MAX_NAME,
    Session,
    checked_owner,
    checked_session_id,
    file_in,
    file_path,
    keyed_session_id,
    named_session_id,
    new_session_id,
)
from turnwise.conversation.stamps import iso, seconds
from turnwise.conversation.steps import StepRecord
from turnwise.conversation.turns import OPEN, TRANSITIONS, Reply, TurnRecord, after

__all__ = [
    "MAX_NAME",
    "OPEN",
    "QUEUE",
    "TRANSITIONS",
    "Answer",
    "Ask",
    "Asked",
    "Attachment",
    "Cursor",
    "Failure",
    "Message",
    "Policy",
    "Reply",
    "Role",
    "Session",
    "Status",
    "StepRecord",
    "TurnRecord",
    "WhenBusy",
    "after",
    "checked_owner",
    "checked_policy",
    "checked_session_id",
    "concluded",
    "file_in",
    "file_path",
    "iso",
    "keyed_session_id",
    "named_session_id",
    "new_message_id",
    "new_session_id",
    "not_json",
    "parsed",
    "placed",
    "renewed",
    "seconds",
    "valid_text",
]
