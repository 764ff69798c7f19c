"""The events of a run: AG-UI's stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import orjson

from turnwise.conversation import Asked, Message, StepRecord
from turnwise.protocols.ag_ui.messages import call_of, result_of
from turnwise.protocols.fold import Fold

STATE = "state"
"""The bot's own event whose data is the state that pages share with it."""
STATE_DELTA = "state.delta"
"""The same as a JSON Patch."""


class RunFold(Fold):
    """`before` reads the page's messages without the reply that follows. A page that attaches is
    given them when the turn starts, because it may have waited behind others, whose answers belong
    to them; `history` are those that there are until then."""

    def __init__(
        self,
        thread: str,
        run: str,
        before: Callable[[int], Awaitable[Sequence[dict[str, Any]]]],
        *,
        history: Sequence[dict[str, Any]] | None = None,
        attempt: int = 1,
    ) -> None:
        super().__init__(attempt=attempt)
        self._ids = {"threadId": thread, "runId": run}
        self._history = history
        self._attach = history is not None
        self._waited = False
        self._before = before
        self._messages: dict[int, str] = {}
        self._open: dict[str, bytes] = {}
        self._kinds: dict[str, str] = {}
        self._texts: dict[str, str] = {}
        self._interrupts: list[dict[str, Any]] = []

    def _say(self, type: str, **fields: Any) -> bytes:
        return b"data: %b\n\n" % orjson.dumps({"type": type, **fields})

    async def prepare(self, n: int) -> None:
        if self._waited or (self.said and self._history is None):
            self._history = await self._before(n)

    def queued(self, position: int) -> Iterator[bytes]:
        yield self._say("RUN_STARTED", **self._ids)
        if self._attach:
            yield self._say("MESSAGES_SNAPSHOT", messages=self._history)
        if position:
            yield self._say("CUSTOM", name="queue", value={"position": position})
        self._waited = self._attach and position > 0

    def started(self, attempt: int) -> Iterator[bytes]:
        if self._waited:
            self._waited = False
            yield self._say("MESSAGES_SNAPSHOT", messages=self._history)

    def void(self) -> Iterator[bytes]:
        yield from self._close_all()
        self._interrupts.clear()
        yield self._say("MESSAGES_SNAPSHOT", messages=self._history or [])

    def _close_all(self) -> Iterator[bytes]:
        yield from reversed(self._open.values())
        self._open.clear()

    def opened(self, id: str, index: int, metadata: dict[str, Any]) -> Iterator[bytes]:
        self._messages[index] = id
        self._open[id] = self._say("TEXT_MESSAGE_END", messageId=id)
        yield self._say("TEXT_MESSAGE_START", messageId=id, role="assistant")

    def text(self, index: int, text: str) -> Iterator[bytes]:
        if text:
            yield self._say("TEXT_MESSAGE_CONTENT", messageId=self._messages[index], delta=text)

    def closed(self, index: int) -> Iterator[bytes]:
        yield from self._close(self._messages[index])

    def _close(self, id: str) -> Iterator[bytes]:
        last = self._open.pop(id, None)
        if last is not None:
            yield last

    def step_began(self, step: StepRecord) -> Iterator[bytes]:
        self._kinds[step.id] = step.kind
        if step.kind == "reasoning":
            end = self._say("REASONING_MESSAGE_END", messageId=step.id)
            self._open[step.id] = end + self._say("REASONING_END", messageId=step.id)
            yield self._say("REASONING_START", messageId=step.id)
            yield self._say("REASONING_MESSAGE_START", messageId=step.id, role="reasoning")
        elif step.kind == "tool":
            given = orjson.dumps(step.input if step.input is not None else {}).decode()
            yield from self._call(step.id, step.name, given)
        else:
            self._open[step.id] = self._say("STEP_FINISHED", stepName=step.name)
            yield self._say("STEP_STARTED", stepName=step.name)

    def _call(self, id: str, name: str, arguments: str) -> Iterator[bytes]:
        yield self._say("TOOL_CALL_START", toolCallId=id, toolCallName=name)
        yield self._say("TOOL_CALL_ARGS", toolCallId=id, delta=arguments)
        yield self._say("TOOL_CALL_END", toolCallId=id)

    def step_text(self, id: str, text: str) -> Iterator[bytes]:
        if self._kinds.get(id) == "reasoning" and text:
            yield self._say("REASONING_MESSAGE_CONTENT", messageId=id, delta=text)

    def step_ended(self, step: StepRecord) -> Iterator[bytes]:
        if step.kind == "tool":
            yield self._say(
                "TOOL_CALL_RESULT", messageId=f"result_{step.id}", toolCallId=step.id,
                content=result_of(step), role="tool",
            )  # fmt: skip
        else:
            yield from self._close(step.id)

    def custom(self, name: str, data: Any) -> Iterator[bytes]:
        if name == STATE:
            yield self._say("STATE_SNAPSHOT", snapshot=data)
        elif name == STATE_DELTA and isinstance(data, list):
            yield self._say("STATE_DELTA", delta=data)
        else:
            yield self._say("CUSTOM", name=name, value=data)

    def message(self, message: Message) -> Iterator[bytes]:
        self._texts[message.id] = message.text
        yield from ()

    def ask(self, message: str, ask: Asked) -> Iterator[bytes]:
        text = self._texts.get(message, "")
        if ask.kind == "tool":
            yield from self._call(ask.id, *call_of(ask, text))
        else:
            self._interrupts.append(interrupt(ask, text))

    def ended(self, error: dict[str, Any] | None, usage: dict[str, Any] | None) -> Iterator[bytes]:
        yield from self._close_all()
        if error is not None:
            yield self._say("RUN_ERROR", message=error["message"], code=error["code"])
            return
        more: dict[str, Any] = {"result": {"status": self.status}}
        if usage:
            more["result"]["usage"] = usage
        if self._interrupts:
            more["outcome"] = {"type": "interrupt", "interrupts": self._interrupts}
        yield self._say("RUN_FINISHED", **self._ids, **more)


def interrupt(ask: Asked, text: str) -> dict[str, Any]:
    """An ask as AG-UI's interrupt, which a run answers by `resume`."""
    found: dict[str, Any] = {"id": ask.id, "reason": ask.name or ask.kind, "message": text}
    if ask.choices is not None:
        found["responseSchema"] = {"type": "string", "enum": ask.choices}
    elif ask.kind == "form":
        found["responseSchema"] = {"type": "object"}
    if ask.data is not None:
        found["metadata"] = {"data": ask.data}
    return found


def idle(
    thread: str, run: str, history: Sequence[dict[str, Any]], interrupts: Sequence[dict[str, Any]]
) -> bytes:
    """A whole run of a session in which nothing runs: what was said, and what waits."""
    ids = {"threadId": thread, "runId": run}
    last: dict[str, Any] = {"type": "RUN_FINISHED", **ids}
    if interrupts:
        last["outcome"] = {"type": "interrupt", "interrupts": interrupts}
    events = [
        {"type": "RUN_STARTED", **ids},
        {"type": "MESSAGES_SNAPSHOT", "messages": history},
        last,
    ]
    return b"".join(b"data: %b\n\n" % orjson.dumps(event) for event in events)
