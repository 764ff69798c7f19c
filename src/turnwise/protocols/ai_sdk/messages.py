"""UI messages: what a page loads, and what it sends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field

from turnwise.conversation import Asked, Attachment, StepRecord
from turnwise.errors import Invalid
from turnwise.protocols.ai_sdk.fold import custom_part, is_approval, message_id, metadata_of
from turnwise.protocols.asking import tool_input, tool_name
from turnwise.protocols.parts import attached
from turnwise.protocols.past import Exchange, Said


class UIMessage(BaseModel):
    id: str = Field("", max_length=200)
    role: str
    parts: list[dict[str, Any]] = Field(default_factory=list)
    metadata: Any = None


class ChatIn(BaseModel):
    id: str | None = Field(None, min_length=1, max_length=200)
    messages: list[UIMessage] = Field(min_length=1, max_length=5000)
    trigger: str = "submit-message"
    messageId: str | None = None


def text_of(message: UIMessage) -> tuple[str, list[Attachment]]:
    """The text and the files of a message of a person's. Raises Invalid."""
    texts: list[str] = []
    files: list[Attachment] = []
    for part in message.parts:
        if part.get("type") == "text":
            texts.append(str(part.get("text") or ""))
        elif part.get("type") == "file":
            kind = str(part.get("mediaType") or "file")
            files.append(attached(kind, part.get("url"), part.get("filename")))
    return "\n".join(texts), files


def results(message: UIMessage) -> list[tuple[str, Any]]:
    """The results of tool calls that a page has put into the bot's last message: by the ids of the
    calls, which are those of the asks."""
    found: list[tuple[str, Any]] = []
    for part in message.parts:
        call, approval = part.get("toolCallId"), part.get("approval")
        if not isinstance(call, str) or not call.startswith("ask_"):
            continue
        if part.get("state") == "output-available":
            found.append((call, part.get("output")))
        elif part.get("state") == "output-error":
            found.append((call, {"error": part.get("errorText")}))
        elif isinstance(approval, Mapping) and isinstance(approval.get("approved"), bool):
            found.append((call, Approval(approval["approved"])))
    return found


class Approval:
    """A yes or a no to an ask of two choices."""

    def __init__(self, approved: bool) -> None:
        self.approved = approved

    def choice(self, ask: Asked) -> str:
        """The choice that it means. Raises Invalid for an ask that is none."""
        if not is_approval(ask) or ask.choices is None:
            raise Invalid("This ask is not an approval.")
        return ask.choices[0 if self.approved else 1]


def shown(exchange: Exchange, answered: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A turn as the messages of a page; `answered` are the answers that later turns gave."""
    found = [_said(said) for said in exchange.said if said.text or said.attachments]
    parts = _parts(exchange, answered)
    record = exchange.record
    if parts or not record.open:
        status = {} if record.status == "completed" else {"status": record.status}
        error = {} if record.error is None else {"error": record.error.message}
        metadata = {**metadata_of(record), **status, **error}
        found.append(
            {"id": message_id(record), "role": "assistant", "parts": parts, "metadata": metadata}
        )
    return found


def all_shown(exchanges: Sequence[Exchange]) -> list[dict[str, Any]]:
    """A session as the messages of a page."""
    answered = {ask: value for e in exchanges for said in e.said for ask, value in said.answers}
    return [message for exchange in exchanges for message in shown(exchange, answered)]


def _said(said: Said) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": said.text}] if said.text else []
    for file in said.attachments:
        name = {"filename": file.name} if file.name else {}
        parts.append({"type": "file", "url": file.url, "mediaType": file.type, **name})
    return {"id": said.id, "role": "user", "parts": parts}


def _parts(exchange: Exchange, answered: Mapping[str, Any]) -> list[dict[str, Any]]:
    record = exchange.record
    parts: list[dict[str, Any]] = [_step(step) for step in record.steps]
    for kept in record.data:
        parts.append(custom_part(kept["name"], kept["data"]))
    for message in exchange.replies:
        if message.text:
            parts.append({"type": "text", "text": message.text, "state": "done"})
        for file in message.attachments:
            parts.append({"type": "file", "url": file.url, "mediaType": file.type})
        if message.ask is not None and not message.partial:
            parts.append(_asked(message.ask, message.text, answered))
    return parts


def _step(step: StepRecord) -> dict[str, Any]:
    if step.kind == "reasoning":
        return {"type": "reasoning", "text": step.text, "state": "done"}
    if step.kind == "work":
        return {"type": "data-work", "id": step.id, "data": step.as_event()}
    call: dict[str, Any] = {
        "type": "dynamic-tool", "toolName": step.name, "toolCallId": step.id,
        "input": step.input if step.input is not None else {}, "providerExecuted": True,
    }  # fmt: skip
    if step.error is not None:
        return {**call, "state": "output-error", "errorText": step.error.message}
    return {**call, "state": "output-available", "output": step.output}


def _asked(ask: Asked, text: str, answered: Mapping[str, Any]) -> dict[str, Any]:
    call: dict[str, Any] = {
        "type": f"tool-{tool_name(ask)}", "toolCallId": ask.id, "input": tool_input(ask, text),
    }  # fmt: skip
    if ask.id in answered:
        return {**call, "state": "output-available", "output": answered[ask.id]}
    if is_approval(ask):
        return {**call, "state": "approval-requested", "approval": {"id": ask.id}}
    return {**call, "state": "input-available"}
