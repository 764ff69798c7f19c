"""Prompt: the part of a conversation that is sent to a language model, in a form that every server
accepts.

Many servers refuse two consecutive messages of one role, a conversation that begins with an answer,
an empty text, or a system message in the middle. So a prompt always alternates and begins with the
user: unanswered questions are joined with the next one, several messages of an answer become one,
and messages that a server has refused are omitted, because it would refuse them every time.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import orjson

from turnwise.conversation import Attachment, Message

Count = Callable[[str], int]

REFUSED = frozenset({"model_filtered", "model_bad_request", "model_attachment", "refused"})
"""Errors after which a question is omitted from later prompts: a server would refuse it again, or
the bot refused to answer it."""
CALLS = "calls"
"""The role, among those of a prompt, of tool calls and their results."""
IMAGE_COST = 1_000
"""The length that an image counts in `max_prompt`."""

Part = dict[str, Any]


def prompt_of(
    messages: Sequence[Message],
    *,
    system: str | None = None,
    max_prompt: int | None = None,
    count: Count = len,
    images: bool = True,
    calls: Mapping[int, Sequence[Part]] = MappingProxyType({}),
    asks: Container[str] = (),
) -> list[dict[str, Any]]:
    """The messages as sent to a model; the last one is the question.

    `calls` are tool calls and their results, by the turns that they belong to; `asks` were made for
    calls, so the model sees neither them nor their answers.

    `max_prompt` limits the total `count` (characters, or a tokenizer's tokens) of the system text
    and the messages: the oldest are omitted first, the last one never.
    """
    told = [system] if system else []
    told += [m.text for m in messages if m.role == "system" and m.text.strip()]
    shown = [m for m in messages if not _is_about(m, asks)]
    turns = _alternating(shown, images, calls)
    if messages and turns and turns[-1][0] == "assistant":  # the answer came late: include it
        turns = _alternating([*shown, messages[-1]], images, calls)
    if max_prompt is not None:
        turns = _newest(turns, max_prompt - sum(map(count, told)), count)
    prompt: list[dict[str, Any]] = []
    for role, parts in turns:
        prompt += parts if role == CALLS else [{"role": role, "content": _content(parts)}]
    return [{"role": "system", "content": "\n\n".join(told)}, *prompt] if told else prompt


def without_system(prompt: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same for a model without a system role: its text precedes the first question."""
    if not prompt or prompt[0]["role"] != "system":
        return prompt
    system, first, *rest = prompt if len(prompt) > 1 else (*prompt, {"role": "user", "content": ""})
    content = first["content"]
    if isinstance(content, str):
        content = f"{system['content']}\n\n{content}".strip()
    else:
        content = [{"type": "text", "text": system["content"]}, *content]
    return [{"role": "user", "content": content}, *rest]


Turns = list[tuple[str, list[Part]]]


def _is_about(message: Message, asks: Container[str]) -> bool:
    """Whether a message only asks one of these, or answers it."""
    if message.ask is not None:
        return message.ask.id in asks
    given = [answer.ask for answer in message.answers]
    return bool(given) and not message.text and all(ask in asks for ask in given)


def _alternating(
    messages: Sequence[Message], images: bool, calls: Mapping[int, Sequence[Part]]
) -> Turns:
    """User, assistant, user, ..., user; each with the parts of one or several messages. The calls
    of a turn follow its question."""
    turns: Turns = []
    left = dict(calls)
    for place, message in enumerate(messages):
        if message.role == "assistant" and message.turn in left and turns:
            turns.append((CALLS, list(left.pop(message.turn))))
        last = place == len(messages) - 1
        if message.role not in ("user", "assistant") or (not last and _was_refused(message)):
            left.pop(message.turn or 0, None)
            continue
        parts = _parts(message, images)
        if not parts and not (last and message.role == "user"):
            continue
        if turns and turns[-1][0] == message.role:
            turns[-1][1].extend(parts)
        elif turns or message.role == "user":
            turns.append((message.role, parts))
        following = messages[place + 1] if not last else None
        ends = following is None or following.turn != message.turn
        if ends and message.turn in left:  # without an answer
            turns.append((CALLS, list(left.pop(message.turn))))
    if turns and messages and messages[-1].turn in left:
        turns.append((CALLS, list(left[messages[-1].turn])))
    return turns


def _was_refused(message: Message) -> bool:
    return message.error is not None and message.error.code in REFUSED


def _parts(message: Message, images: bool) -> list[Part]:
    """Text and images. Unreadable attachments are named, so that the model can mention them."""
    assistant = message.role == "assistant"
    text = message.text.rstrip() if assistant else message.text or _given(message)
    parts = [_text(text)] if text.strip() else []
    if assistant:
        return parts
    for attachment in message.attachments:
        if images and _is_image(attachment):
            parts.append({"type": "image_url", "image_url": {"url": attachment.url}})
        else:
            name = attachment.name or attachment.type
            parts.append(_text(f"[Attached: {name}, which this model cannot read.]"))
    return parts


def _given(message: Message) -> str:
    """What a message without a text answers."""
    values = [answer.value for answer in message.answers]
    return "\n".join(v if isinstance(v, str) else orjson.dumps(v).decode() for v in values)


def _is_image(attachment: Attachment) -> bool:
    reachable = attachment.url.startswith(("http://", "https://", "data:"))
    return attachment.type.startswith("image") and reachable


def _text(text: str) -> Part:
    return {"type": "text", "text": text}


def _content(parts: list[Part]) -> str | list[Part]:
    """Plain text if there is nothing else: not every server accepts parts."""
    if all(part["type"] == "text" for part in parts):
        return "\n\n".join(part["text"] for part in parts)
    return parts


def _newest(turns: Turns, room: int, count: Count) -> Turns:
    """The newest messages that fit, still beginning with the user; the last question, and what
    follows it, always."""
    questions = [place for place, (role, _) in enumerate(turns) if role == "user"]
    first = questions[-1] if questions else 0
    room -= sum(_cost(part, count) for _, parts in turns[first:] for part in parts)
    while first:
        room -= sum(_cost(part, count) for part in turns[first - 1][1])
        if room < 0:
            break
        first -= 1
    newest = turns[first:]
    while newest and newest[0][0] != "user":
        newest = newest[1:]
    return newest


def _cost(part: Part, count: Count) -> int:
    if "role" in part:  # a call or its result
        return count(orjson.dumps(part).decode())
    return count(part["text"]) if part["type"] == "text" else IMAGE_COST
