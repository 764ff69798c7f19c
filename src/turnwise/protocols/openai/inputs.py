"""Inputs: the shapes of OpenAI's request bodies, and what a turn is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, Field

from turnwise.conversation import Attachment, Message
from turnwise.errors import Invalid
from turnwise.protocols.parts import attached

MAX_INSTRUCTIONS = 8_000
"""Characters of a response's instructions, which its turn keeps."""


class ConversationRef(BaseModel):
    id: str = Field(min_length=1, max_length=400)


class ResponseIn(BaseModel):
    input: str | list[dict[str, Any]] = Field(default="")
    conversation: str | ConversationRef | None = None
    previous_response_id: str | None = Field(None, max_length=400)
    background: bool | None = False
    stream: bool | None = False
    store: bool | None = True
    metadata: dict[str, Any] | None = None
    instructions: str | None = Field(None, max_length=MAX_INSTRUCTIONS)
    model: str | None = Field(None, max_length=200)
    user: str | None = None


class StreamOptions(BaseModel):
    include_usage: bool | None = False


class ChatIn(BaseModel):
    messages: list[dict[str, Any]] = Field(min_length=1, max_length=10_000)
    model: str | None = Field(None, max_length=200)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    metadata: dict[str, Any] | None = None


class ConversationIn(BaseModel):
    items: list[dict[str, Any]] | None = Field(None, max_length=1000)
    metadata: dict[str, Any] | None = None


class ItemsIn(BaseModel):
    items: list[dict[str, Any]] = Field(min_length=1, max_length=20)


@dataclass
class Given:
    """What a request gives: what was said before, and what is said now."""

    before: list[Message] = field(default_factory=list)
    text: str = ""
    attachments: list[Attachment] = field(default_factory=list)
    answers: list[tuple[str, Any]] = field(default_factory=list)
    id: str | None = None


def check_said(said: Given) -> None:
    """Raises Invalid if nothing is said."""
    if not (said.text.strip() or said.attachments or said.answers):
        raise Invalid("There is nothing new from the user: a text, a file, or a call's result.")


def given(items: str | Sequence[Mapping[str, Any]]) -> Given:
    """The turn that some items are: the last message of a person, and the results of calls that
    come behind everything that the bot has said."""
    if isinstance(items, str):
        return Given(text=items)
    found = Given()
    last = _last_of_bot(items)
    said = [i for i, item in enumerate(items) if item.get("role") == "user"]
    now = said[-1] if said and said[-1] > last else None
    for i, item in enumerate(items):
        result = _result(item)
        if i == now:
            found.text, found.attachments = content_of(item.get("content"))
            found.id = item.get("id") if isinstance(item.get("id"), str) else None
        elif result is not None and i > last:
            found.answers.append(result)
        elif result is None and (message := _said_before(item)) is not None:
            found.before.append(message)
    return found


def _last_of_bot(items: Sequence[Mapping[str, Any]]) -> int:
    kinds = ("function_call", "reasoning", "mcp_call")
    return max(
        (
            i
            for i, item in enumerate(items)
            if item.get("role") == "assistant" or item.get("type") in kinds
        ),
        default=-1,
    )


def _result(item: Mapping[str, Any]) -> tuple[str, Any] | None:
    """The result of a call, in either of OpenAI's forms."""
    if item.get("type") == "function_call_output":
        name, value = item.get("call_id"), item.get("output")
    elif item.get("role") == "tool":
        name, value = item.get("tool_call_id"), item.get("content")
    else:
        return None
    if not isinstance(name, str):
        raise Invalid("A call's result names its call_id.")
    if isinstance(value, list):
        value = content_of(value)[0]
    return name, value


ROLES: dict[Any, Literal["user", "assistant", "system"]] = {
    "user": "user", "assistant": "assistant", "system": "system", "developer": "system",
}  # fmt: skip


def _said_before(item: Mapping[str, Any]) -> Message | None:
    """A message of the past; what of it cannot be read does not hold up the new one."""
    try:
        return message_of(item)
    except Invalid:
        return None


def message_of(item: Mapping[str, Any]) -> Message | None:
    """An item as a message of a history; one without words is none."""
    said = item.get("role")
    role = ROLES.get(said) if isinstance(said, str) else None
    if role is None:
        return None
    text, attachments = content_of(item.get("content"))
    if not (text or attachments):
        return None
    return Message(text, attachments, role=role)


def content_of(content: Any) -> tuple[str, list[Attachment]]:
    """The text and the files of a message's content. Raises Invalid."""
    if content is None or isinstance(content, str):
        return content or "", []
    if not isinstance(content, list):
        raise Invalid("A message's content is a text or a list of parts.")
    texts: list[str] = []
    files: list[Attachment] = []
    for part in content:
        if not isinstance(part, Mapping):
            raise Invalid("A part of a message's content is an object.")
        kind = part.get("type")
        if kind in ("text", "input_text", "output_text"):
            texts.append(str(part.get("text") or ""))
        elif kind in ("image_url", "input_image"):
            image = part.get("image_url")
            url = image.get("url") if isinstance(image, Mapping) else image
            files.append(attached("image", url, None))
        elif kind in ("file", "input_file"):
            inner = part.get("file")
            files.append(_file({**part, **(inner if isinstance(inner, Mapping) else {})}))
        elif kind == "input_audio":
            audio = part.get("input_audio")
            audio = audio if isinstance(audio, Mapping) else {}
            form = str(audio.get("format") or "wav")
            files.append(attached(f"audio/{form}", f"data:audio/{form};base64,{audio.get('data')}"))
        else:
            raise Invalid(f"A part of the type {kind!r} cannot be sent.")
    return "\n".join(texts), files


def _file(part: Mapping[str, Any]) -> Attachment:
    data = part.get("file_data")
    if isinstance(data, str) and not data.startswith("data:"):
        data = f"data:application/octet-stream;base64,{data}"
    if data is None and part.get("file_id"):
        raise Invalid("Files are sent with their data or a URL: file ids are not kept.")
    return attached("file", data or part.get("file_url"), part.get("filename"))
