"""Chat Completions: stateless by design, so a request holds the whole conversation.

With a header that names the conversation only the last message is a new turn of that session.
Without one the messages are the history of a session that is in no list and lives an hour.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import orjson
from fastapi import Request, Response

from turnwise.channels.bodies import JSON
from turnwise.conversation import Asked, StepRecord, TurnRecord
from turnwise.conversation.events import Event
from turnwise.conversation.streamed_text import StreamedText
from turnwise.errors import StreamEnded, TurnError
from turnwise.gateway.checks import MAX_HISTORY
from turnwise.protocols.asking import answers_to
from turnwise.protocols.door import Caller, Door
from turnwise.protocols.fold import Fold
from turnwise.protocols.openai.errors import of_turn, shaped
from turnwise.protocols.openai.ids import ask_of, call_id, response_id
from turnwise.protocols.openai.inputs import ChatIn, Given, check_said, given
from turnwise.protocols.openai.objects import MODEL, call, usage_of
from turnwise.protocols.openai.repeats import ASKED, Repeats
from turnwise.stores.records import Submitted

SESSIONS = ("x-conversation-id", "x-openwebui-chat-id", "x-session-id")
"""Headers that name the conversation."""
TASK = "x-openwebui-task"
"""A page asks for a title, tags and the like, which is not a part of the conversation."""
USER = "x-openwebui-user-id"
"""The page's user, if a trusted backend says it."""


class Chat:
    """Answers chat completions."""

    def __init__(self, door: Door) -> None:
        self._door = door
        door.add("POST", "/chat/completions", self.complete)

    async def complete(self, request: Request) -> Response:
        """Answer the last message."""
        caller = (await self._door.caller(request)).acting_for(_header(request, USER))
        body = await self._door.body(request, ChatIn)
        said = given(body.messages)
        check_said(said)
        if body.stream:
            self._door.check_stream(request)
        submitted = await self._submit(caller, body, said)
        record = submitted.turn
        if body.stream:
            usage = body.stream_options is not None and bool(body.stream_options.include_usage)
            return self._door.stream(caller, record, ChatFold(record, usage))
        record = await self._door.gateway.wait(record.session, record.n, None)
        if record.open:
            raise StreamEnded()
        return _whole(record)

    async def _submit(self, caller: Caller, body: ChatIn, said: Given) -> Submitted:
        request = caller.request
        key, task = _header(request, "idempotency-key"), _header(request, TASK)
        if key is not None and task is not None:  # one message has several tasks
            key = f"{task} {key}"
        named = next((n for header in SESSIONS if (n := _header(request, header))), None)
        asked = next((s for call, _ in said.answers if (s := ask_of(call)[0])), None)
        repeats = Repeats(caller, body, named, task)
        found, own = None, key
        if asked is not None:
            session_id = (await caller.by_id(asked)).id
        elif named is not None and task is None:
            session_id = await caller.begin(named)
        else:
            if key is None:
                found, own = await repeats.alone("")
            if found is None:
                made = await caller.create(key=own, messages=said.before[-MAX_HISTORY:], alone=True)
                session_id = made.id
        if found is None and key is None and (asked or named):
            found = await repeats.in_session(session_id)
        if found is not None:
            return found
        note = {
            "door": "openai", "model": body.model, "metadata": body.metadata, ASKED: repeats.asked,
        }  # fmt: skip
        answers = [(ask_of(call)[1], value) for call, value in said.answers]
        return await caller.submit(
            session_id, said.text, key=key, attachments=said.attachments,
            note={name: value for name, value in note.items() if value},
            answers=await answers_to(self._door.gateway, session_id, answers),
        )  # fmt: skip


def _header(request: Request, name: str) -> str | None:
    """A header's value; a page's variable that has no value there is none."""
    value = request.headers.get(name, "").strip()
    return None if not value or value.startswith("{{") else value


def _calls(record: TurnRecord, asks: list[tuple[Asked, str]]) -> list[dict[str, Any]]:
    """The tool calls that asks are."""
    found = []
    for ask, text in asks:
        made = call(ask, text)
        function = {"name": made["name"], "arguments": made["arguments"]}
        id = call_id(record.session, ask.id)
        found.append({"id": id, "type": "function", "function": function})
    return found


def _usage(usage: dict[str, Any] | None) -> dict[str, Any] | None:
    found = usage_of(usage)
    if found is None:
        return None
    return {
        "prompt_tokens": found["input_tokens"],
        "completion_tokens": found["output_tokens"],
        "total_tokens": found["total_tokens"],
    }


def _whole(record: TurnRecord) -> Response:
    """The answer of a turn that has ended."""
    reply = record.reply
    if record.error is not None or reply is None:
        error = of_turn(record.error._asdict() if record.error is not None else None)
        return JSON(orjson.dumps(error), 422, **{"x-should-retry": "false"})
    asks = [(m.ask, m.text) for m in reply.messages if m.ask is not None and not m.partial]
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None}
    if asks:
        message["tool_calls"] = _calls(record, asks)
    choice = {
        "index": 0, "message": message, "logprobs": None,
        "finish_reason": "tool_calls" if asks else "stop",
    }  # fmt: skip
    body = _head(record, "chat.completion")
    body["choices"] = [choice]
    body["usage"] = _usage(record.usage) or _usage({})
    return JSON(orjson.dumps(body))


def _head(record: TurnRecord, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{response_id(record.session, record.n)}",
        "object": kind,
        "created": int(record.queued_at or time.time()),
        "model": record.note.get("model") or MODEL,
    }


class ChatFold(Fold):
    """The chunks of a chat completion. They cannot take back a text: if another attempt says
    something else, the stream ends with an error."""

    def __init__(self, record: TurnRecord, usage: bool) -> None:
        super().__init__()
        self._head = _head(record, "chat.completion.chunk")
        self._record = record
        self._with_usage = usage
        self._told = StreamedText()
        self._asks: list[tuple[Asked, str]] = []
        self._texts: dict[str, str] = {}
        self._thoughts: set[str] = set()

    def feed(self, event: Event) -> Iterator[bytes]:
        if self.done:
            return
        try:
            piece = self._told.hear(event)
        except StreamEnded as error:
            yield from self._broken(shaped(error.message, error.code, 500))
            return
        except TurnError:
            piece = ""
        if piece:
            yield self._delta({"content": piece})
        yield from super().feed(event)

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        body = {**self._head, "choices": choices, **more}
        return b"data: %b\n\n" % orjson.dumps(body)

    def _delta(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        more = {"usage": None} if self._with_usage else {}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return self._chunk([choice], **more)

    def _broken(self, error: dict[str, Any]) -> Iterator[bytes]:
        self.done = True
        yield b"data: %b\n\n" % orjson.dumps(error)
        yield b"data: [DONE]\n\n"

    def queued(self, position: int) -> Iterator[bytes]:
        yield self._delta({"role": "assistant", "content": ""})

    def recall(self, record: TurnRecord) -> Iterator[bytes]:
        self.begun = True
        yield from self.queued(0)
        text = record.reply.text if record.reply is not None else ""
        if text:
            yield self._delta({"content": text})
        for message in record.reply.messages if record.reply is not None else ():
            if message.ask is not None and not message.partial:
                self._asks.append((message.ask, message.text))

    def step_began(self, step: StepRecord) -> Iterator[bytes]:
        if step.kind == "reasoning":
            self._thoughts.add(step.id)
        yield from ()

    def step_text(self, id: str, text: str) -> Iterator[bytes]:
        if id in self._thoughts:
            yield self._delta({"reasoning_content": text})

    def message(self, message: Any) -> Iterator[bytes]:
        self._texts[message.id] = message.text
        yield from ()

    def ask(self, message: str, ask: Asked) -> Iterator[bytes]:
        self._asks.append((ask, self._texts.get(message, "")))
        yield from ()

    def ended(self, error: dict[str, Any] | None, usage: dict[str, Any] | None) -> Iterator[bytes]:
        if self.status != "completed":
            yield from self._broken(of_turn(error))
            return
        calls = _calls(self._record, self._asks)
        if calls:
            numbered = [{"index": i, **found} for i, found in enumerate(calls)]
            yield self._delta({"tool_calls": numbered})
        yield self._delta({}, "tool_calls" if calls else "stop")
        if self._with_usage:
            yield self._chunk([], usage=_usage(usage) or _usage({}))
        yield b"data: [DONE]\n\n"
