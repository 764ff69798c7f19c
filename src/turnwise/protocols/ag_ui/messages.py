"""AG-UI's messages: what a page sends, and the snapshot that replaces all it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from pydantic import BaseModel, Field

from turnwise.conversation import Asked, Attachment, StepRecord
from turnwise.errors import Invalid
from turnwise.protocols.asking import tool_input, tool_name
from turnwise.protocols.parts import attached
from turnwise.protocols.past import Exchange, Said

FILES = ("image", "audio", "video", "document", "binary")


class Resumed(BaseModel):
    interruptId: str
    status: str = "resolved"
    payload: Any = None


class RunIn(BaseModel):
    threadId: str = Field(min_length=1, max_length=200)
    runId: str = Field(min_length=1, max_length=200)
    messages: list[dict[str, Any]] = Field(default_factory=list, max_length=5000)
    tools: list[dict[str, Any]] = Field(default_factory=list)
    context: list[dict[str, Any]] = Field(default_factory=list)
    state: Any = None
    forwardedProps: Any = None
    resume: list[Resumed] | None = None


def text_of(message: Mapping[str, Any]) -> tuple[str, list[Attachment]]:
    """The text and the files of a person's message. Raises Invalid."""
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or "", []
    texts: list[str] = []
    files: list[Attachment] = []
    for part in content if isinstance(content, list) else ():
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text":
            texts.append(str(part.get("text") or ""))
        elif kind in FILES:
            files.append(_file(kind, part))
        else:
            raise Invalid(f"A part of the type {kind!r} cannot be sent.")
    return "\n".join(texts), files


def _file(kind: str, part: Mapping[str, Any]) -> Attachment:
    inner = part.get("source")
    source = inner if isinstance(inner, Mapping) else part
    type = str(source.get("mimeType") or kind)
    url = source.get("value") if source.get("type") == "url" else source.get("url")
    data = source.get("value") if source.get("type") == "data" else source.get("data")
    if isinstance(data, str):
        url = data if data.startswith("data:") else f"data:{type};base64,{data}"
    return attached(type, url, part.get("filename"))


def results(messages: Sequence[Mapping[str, Any]]) -> list[tuple[str, Any]]:
    """The results of tools at the end of a page's messages, by the ids of their calls."""
    found: list[tuple[str, Any]] = []
    for message in reversed(messages):
        if message.get("role") != "tool":
            break
        found.append((str(message.get("toolCallId")), message.get("content")))
    return found[::-1]


def snapshot(exchanges: Sequence[Exchange]) -> list[dict[str, Any]]:
    """All that a page shows, under the page's own ids."""
    asks = {m.ask.id: m.ask for e in exchanges for m in e.replies if m.ask is not None}
    return [message for exchange in exchanges for message in _shown(exchange, asks)]


def _shown(exchange: Exchange, asks: Mapping[str, Asked]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for said in exchange.said:
        found += _answers(said, asks)
        if said.text or said.attachments:
            found.append({"id": said.id, "role": "user", "content": _content(said)})
    for step in exchange.record.steps:
        if step.kind == "tool":
            found += _step(step)
    for message in exchange.replies:
        role = message.role if message.role in ("user", "system") else "assistant"
        shown: dict[str, Any] = {"id": message.id, "role": role, "content": message.text}
        if message.ask is not None and message.ask.kind == "tool" and not message.partial:
            shown["toolCalls"] = [called(message.ask.id, *call_of(message.ask, message.text))]
        found.append(shown)
    return found


def _answers(said: Said, asks: Mapping[str, Asked]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for id, value in said.answers:
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        ask = asks.get(id)
        if ask is not None and ask.kind == "tool":
            head = {"id": f"answer_{id}", "role": "tool", "toolCallId": id}
        else:
            head = {"id": f"answer_{id}", "role": "user"}
        found.append({**head, "content": text})
    return found


def _content(said: Said) -> Any:
    if not said.attachments:
        return said.text
    parts: list[dict[str, Any]] = [{"type": "text", "text": said.text}] if said.text else []
    for file in said.attachments:
        kind = file.type.partition("/")[0]
        kind = kind if kind in FILES else "document"
        source = {"type": "url", "value": file.url, "mimeType": file.type}
        parts.append({"type": kind, "source": source})
    return parts


def _step(step: StepRecord) -> list[dict[str, Any]]:
    arguments = orjson.dumps(step.input if step.input is not None else {}).decode()
    call = {"id": f"call_{step.id}", "role": "assistant", "content": ""}
    call_part = called(step.id, step.name, arguments)
    return [
        {**call, "toolCalls": [call_part]},
        {
            "id": f"result_{step.id}", "role": "tool", "toolCallId": step.id,
            "content": result_of(step),
        },
    ]  # fmt: skip


def called(id: str, name: str, arguments: str) -> dict[str, Any]:
    """A tool call of a message."""
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def call_of(ask: Asked, text: str) -> tuple[str, str]:
    """The name and the arguments of the tool call that an ask is."""
    return tool_name(ask), orjson.dumps(tool_input(ask, text)).decode()


def result_of(step: StepRecord) -> str:
    """What came of a tool."""
    if step.error is not None:
        return step.error.message
    if isinstance(step.output, str):
        return step.output
    return orjson.dumps(step.output).decode()
