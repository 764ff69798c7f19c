"""Objects: responses, conversations and their items, of what a session holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from turnwise.conversation import Asked, Attachment, Message, Session, StepRecord, TurnRecord
from turnwise.protocols.asking import tool_input, tool_name
from turnwise.protocols.openai.ids import conversation_id, response_id
from turnwise.protocols.past import Exchange, Said

MODEL = "turnwise"
"""The model's name, if a request names none."""
STATUSES = {
    "queued": "queued",
    "running": "in_progress",
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
    "merged": "in_progress",
}


def response(
    record: TurnRecord,
    status: str,
    output: Sequence[Mapping[str, Any]],
    error: Mapping[str, Any] | None = None,
    usage: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The response that a turn is."""
    note = record.note
    wrong = None if error is None else {"code": "server_error", "message": error["message"]}
    return {
        "id": response_id(record.session, record.n),
        "object": "response",
        "created_at": int(record.queued_at),
        "status": status,
        "background": note.get("background", False),
        "conversation": {"id": conversation_id(record.session)},
        "error": wrong,
        "incomplete_details": None,
        "instructions": note.get("instructions"),
        "max_output_tokens": None,
        "metadata": note.get("metadata") or {},
        "model": note.get("model") or MODEL,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": note.get("previous"),
        "store": True,
        "temperature": None,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "truncation": "disabled",
        "usage": usage_of(usage),
    }


def recorded(record: TurnRecord) -> dict[str, Any]:
    """The response of a turn as its record has it."""
    status = record.answered if record.status == "merged" else record.status
    replies = record.reply.messages if record.reply is not None else ()
    output = [*filter(None, map(step, record.steps))]
    output += [item for message in replies for item in said_by_bot(message)]
    error = record.error._asdict() if record.error is not None else None
    return response(record, STATUSES[status], output, error, record.usage)


def usage_of(usage: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What a turn has cost, in OpenAI's words, whatever the bot's model calls it."""
    if usage is None:
        return None
    spent = _number(usage, "input_tokens", "prompt_tokens")
    made = _number(usage, "output_tokens", "completion_tokens")
    return {
        "input_tokens": spent,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": made,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": _number(usage, "total_tokens") or spent + made,
    }


def _number(usage: Mapping[str, Any], *names: str) -> int:
    return next((int(usage[n]) for n in names if isinstance(usage.get(n), int | float)), 0)


# Items


def message(id: str, text: str, status: str) -> dict[str, Any]:
    """A message of the bot's."""
    return {
        "type": "message", "id": id, "status": status, "role": "assistant",
        "content": [part(text)],
    }  # fmt: skip


def part(text: str) -> dict[str, Any]:
    """The text of a message of the bot's."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def said_by_bot(found: Message) -> list[dict[str, Any]]:
    """The items that a message of a reply is: itself, and the call that its ask is."""
    if found.role == "user":
        return [said_by_person(Said(found.id, found.text, found.attachments))]
    items = [message(found.id, found.text, "incomplete" if found.partial else "completed")]
    items[-1]["role"] = found.role if found.role == "system" else "assistant"
    if found.ask is not None and not found.partial:
        items.append(call(found.ask, found.text))
    return items


def call(ask: Asked, text: str) -> dict[str, Any]:
    """The function call that an ask is."""
    return {
        "type": "function_call",
        "id": f"fc_{ask.id}",
        "call_id": ask.id,
        "name": tool_name(ask),
        "arguments": orjson.dumps(tool_input(ask, text)).decode(),
        "status": "completed",
    }


def step(found: StepRecord) -> dict[str, Any] | None:
    """The item that a step is: reasoning, or a call that the server has made itself."""
    status = "completed" if found.status == "completed" else "incomplete"
    if found.kind == "reasoning":
        summary = [{"type": "summary_text", "text": found.text}] if found.text else []
        return {"type": "reasoning", "id": found.id, "summary": summary, "status": status}
    if found.kind == "tool":
        output = None if found.output is None else _as_text(found.output)
        return {
            "type": "mcp_call",
            "id": found.id,
            "server_label": MODEL,
            "name": found.name,
            "arguments": orjson.dumps(found.input or {}).decode(),
            "output": output,
            "error": None if found.error is None else found.error.message,
            "status": "in_progress" if found.status == "running" else found.status,
        }
    return None


def said_by_person(said: Said) -> dict[str, Any]:
    """A message of a person's."""
    content: list[dict[str, Any]] = []
    if said.text or not said.attachments:
        content.append({"type": "input_text", "text": said.text})
    content += map(_file, said.attachments)
    return {
        "type": "message", "id": said.id, "status": "completed", "role": "user",
        "content": content,
    }  # fmt: skip


def _file(file: Attachment) -> dict[str, Any]:
    if file.type.startswith("image"):
        return {"type": "input_image", "image_url": file.url, "detail": "auto"}
    return {"type": "input_file", "filename": file.name or "file", "file_url": file.url}


def asked(exchange: Exchange) -> list[dict[str, Any]]:
    """The items that a person has sent."""
    items: list[dict[str, Any]] = []
    for said in exchange.said:
        for ask, value in said.answers:
            items.append(
                {
                    "type": "function_call_output", "id": f"fco_{ask}", "call_id": ask,
                    "output": _as_text(value), "status": "completed",
                }
            )  # fmt: skip
        if said.text or said.attachments or not said.answers:
            items.append(said_by_person(said))
    return items


def items_of(exchange: Exchange) -> list[dict[str, Any]]:
    """All items of a turn, in order."""
    output: list[dict[str, Any]] = recorded(exchange.record)["output"]
    return [*asked(exchange), *output]


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def conversation(session: Session) -> dict[str, Any]:
    """The conversation that a session is."""
    return {
        "id": conversation_id(session.id),
        "object": "conversation",
        "created_at": int(session.created_at),
        "metadata": session.metadata,
    }
