"""LangGraph's messages: human, ai and tool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from turnwise.conversation import Asked, Attachment, Message, StepRecord
from turnwise.errors import Invalid
from turnwise.protocols.asking import tool_input, tool_name
from turnwise.protocols.parts import attached
from turnwise.protocols.past import Exchange, Said

KINDS = {"human": "human", "user": "human", "ai": "ai", "assistant": "ai", "tool": "tool",
         "system": "system", "remove": "remove"}  # fmt: skip


def kind_of(message: Mapping[str, Any]) -> str:
    """Who has said a message that a client has sent. Raises Invalid."""
    said = message.get("type") or message.get("role") or "human"
    kind = KINDS.get(said) if isinstance(said, str) else None
    if kind is None:
        raise Invalid("A message's type is human, ai, tool or system.")
    return kind


def text_of(message: Mapping[str, Any]) -> tuple[str, list[Attachment]]:
    """The text and the files of a message. Raises Invalid."""
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or "", []
    texts: list[str] = []
    files: list[Attachment] = []
    for part in content if isinstance(content, list) else ():
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping) and part.get("type") == "text":
            texts.append(str(part.get("text") or ""))
        elif isinstance(part, Mapping):
            files.append(_file(part))
    return "\n".join(texts), files


def _file(part: Mapping[str, Any]) -> Attachment:
    kind = str(part.get("mime_type") or part.get("mimeType") or part.get("type"))
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, Mapping) else image or part.get("url")
    data = part.get("data") or part.get("base64")
    if isinstance(data, str):
        url = f"data:{kind};base64,{data}"
    return attached("image" if kind == "image_url" else kind, url)


def given(message: Mapping[str, Any]) -> Message | None:
    """A message of a given history."""
    kind = kind_of(message)
    text, files = text_of(message)
    if kind not in ("human", "ai", "system") or not (text or files):
        return None
    roles: dict[str, Any] = {"human": "user", "ai": "assistant", "system": "system"}
    return Message(text, files, role=roles[kind])


# Shown


def ai(id: str, text: str, calls: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """A message of the bot's."""
    return {
        "type": "ai", "id": id, "content": text, "tool_calls": list(calls),
        "invalid_tool_calls": [], "additional_kwargs": {}, "response_metadata": {},
    }  # fmt: skip


def call(id: str, name: str, given: Any) -> dict[str, Any]:
    """A tool's call, as a part of a message."""
    given = given if isinstance(given, dict) else {"input": given}
    return {"id": id, "name": name, "args": given, "type": "tool_call"}


def of_step(step: StepRecord) -> list[dict[str, Any]]:
    """The messages that a tool's step is: its call, and its result if there is one."""
    given = step.input if step.input is not None else {}
    found = [ai(f"call_{step.id}", "", [call(step.id, step.name, given)])]
    if step.status != "running":
        failed = step.error is not None
        output = step.error.message if step.error is not None else step.output
        found.append(tool(step.id, step.name, output, "error" if failed else "success"))
    return found


def tool(id: str, name: str, output: Any, status: str = "success") -> dict[str, Any]:
    """A tool's result."""
    text = output if isinstance(output, str) else orjson.dumps(output).decode()
    return {
        "type": "tool", "id": f"result_{id}", "tool_call_id": id, "name": name, "content": text,
        "status": status, "additional_kwargs": {}, "response_metadata": {},
    }  # fmt: skip


def of_reply(message: Message) -> dict[str, Any]:
    """A message of a reply; an ask for a tool of the client's is a call."""
    if message.role in ("user", "system"):
        kind = "human" if message.role == "user" else "system"
        return {"type": kind, "id": message.id, "content": message.text}
    calls = []
    if message.ask is not None and message.ask.kind == "tool" and not message.partial:
        ask = message.ask
        calls = [call(ask.id, tool_name(ask), tool_input(ask, message.text))]
    return ai(message.id, message.text, calls)


def of_person(said: Said) -> dict[str, Any]:
    """A message of a person's."""
    content: Any = said.text
    if said.attachments:
        content = [{"type": "text", "text": said.text}] if said.text else []
        for file in said.attachments:
            is_image = file.type.startswith("image")
            part = {"type": "image_url", "image_url": {"url": file.url}}
            content.append(
                part if is_image else {"type": "file", "url": file.url, "mime_type": file.type}
            )
    return {
        "type": "human", "id": said.id, "content": content, "additional_kwargs": {},
        "response_metadata": {},
    }  # fmt: skip


def shown(exchanges: Sequence[Exchange]) -> list[dict[str, Any]]:
    """All messages of some turns."""
    asks = {m.ask.id: m.ask for e in exchanges for m in e.replies if m.ask is not None}
    found: list[dict[str, Any]] = []
    for exchange in exchanges:
        for said in exchange.said:
            found += _answers(said, asks)
            if said.text or said.attachments:
                found.append(of_person(said))
        for step in exchange.record.steps:
            if step.kind == "tool":
                found += of_step(step)
        found += map(of_reply, exchange.replies)
    return found


def _answers(said: Said, asks: Mapping[str, Asked]) -> list[dict[str, Any]]:
    found = []
    for id, value in said.answers:
        ask = asks.get(id)
        if ask is not None and ask.kind == "tool":
            found.append(tool(id, tool_name(ask), value))
        else:
            text = value if isinstance(value, str) else orjson.dumps(value).decode()
            found.append({"type": "human", "id": f"answer_{id}", "content": text})
    return found


def interrupt(ask: Asked, text: str) -> dict[str, Any]:
    """An ask as LangGraph's interrupt, which a command's `resume` answers."""
    value = {"kind": ask.kind, **tool_input(ask, text)}
    if ask.name is not None:
        value["name"] = ask.name
    return {"id": ask.id, "value": value, "when": "during", "resumable": True, "ns": []}
