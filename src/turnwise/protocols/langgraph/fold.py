"""The events of a run, in the modes that the client has asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from typing import Any

import orjson

from turnwise.conversation import Asked, Message, StepRecord, TurnRecord
from turnwise.protocols.fold import Fold
from turnwise.protocols.langgraph.ids import run_id
from turnwise.protocols.langgraph.messages import ai, interrupt, of_reply, of_step

NODE = "bot"
"""The name of the one node that there is."""


class RunFold(Fold):
    """Numbers its events, which are a cursor. `before` reads the messages before a turn's answer;
    they are shown when the turn starts, because it may have waited
    behind others, whose answers belong to them."""

    def __init__(
        self,
        record: TurnRecord,
        modes: Collection[str],
        before: Callable[[int], Awaitable[Sequence[dict[str, Any]]]],
    ) -> None:
        super().__init__()
        self._run = run_id(record.session, record.n)
        self._modes = modes
        self._before = before
        self._history: Sequence[dict[str, Any]] | None = None
        self._shown = False
        self._number = 0
        self._texts: dict[int, tuple[str, str]] = {}
        self._added: list[dict[str, Any]] = []
        self._asked: dict[str, str] = {}
        self._interrupts: list[dict[str, Any]] = []

    def _say(self, event: str, data: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        return b"event: %b\ndata: %b\nid: %d\n\n" % (event.encode(), orjson.dumps(data), number)

    def _values(self, *, final: bool = False) -> Iterator[bytes]:
        if "values" in self._modes:
            values: dict[str, Any] = {"messages": [*(self._history or ()), *self._added]}
            if final and self._interrupts:
                values["__interrupt__"] = self._interrupts
            yield self._say("values", values)

    async def prepare(self, n: int) -> None:
        if "values" in self._modes and self._history is None:
            self._history = await self._before(n)

    def queued(self, position: int) -> Iterator[bytes]:
        yield self._say("metadata", {"run_id": self._run, "attempt": 1})
        if position and "custom" in self._modes:
            yield self._say("custom", {"name": "queue", "data": {"position": position}})

    def started(self, attempt: int) -> Iterator[bytes]:
        if not self._shown:
            self._shown = True
            yield from self._values()

    def void(self) -> Iterator[bytes]:
        if "messages-tuple" in self._modes:
            shown = [id for id, _ in self._texts.values()] + [one["id"] for one in self._added]
            for id in dict.fromkeys(shown):
                yield self._tuple({"type": "remove", "id": id, "content": ""})
        self._texts.clear()
        self._added.clear()
        self._interrupts.clear()
        yield from self._values()

    # Messages

    def _about(self) -> dict[str, Any]:
        return {"run_id": self._run, "langgraph_node": NODE, "run_attempt": self._attempt}

    def _tuple(self, message: dict[str, Any]) -> bytes:
        return self._say("messages", [message, self._about()])

    def _whole(self, messages: Sequence[dict[str, Any]]) -> Iterator[bytes]:
        """Messages that come at once."""
        for message in messages:
            if "messages-tuple" in self._modes:
                yield self._tuple(message)
            if "messages" in self._modes:
                yield self._say("messages/partial", [message])
                yield self._say("messages/complete", [message])

    def opened(self, id: str, index: int, metadata: dict[str, Any]) -> Iterator[bytes]:
        self._texts[index] = id, ""
        if "messages" in self._modes:
            yield self._say("messages/metadata", {id: {"metadata": self._about()}})

    def text(self, index: int, text: str) -> Iterator[bytes]:
        id, before = self._texts[index]
        self._texts[index] = id, before + text
        if "messages" in self._modes:
            yield self._say("messages/partial", [ai(id, before + text)])
        if "messages-tuple" in self._modes:
            yield self._tuple({**ai(id, text), "type": "AIMessageChunk"})

    def closed(self, index: int) -> Iterator[bytes]:
        if "messages" in self._modes:
            yield self._say("messages/complete", [ai(*self._texts[index])])

    def message(self, message: Message) -> Iterator[bytes]:
        self._added.append(of_reply(message))
        self._asked[message.id] = message.text
        if "updates" in self._modes:
            yield self._say("updates", {NODE: {"messages": [of_reply(message)]}})

    # Steps, asks, the end

    def step_ended(self, step: StepRecord) -> Iterator[bytes]:
        if step.kind == "tool":
            messages = of_step(step)
            self._added += messages
            yield from self._whole(messages)
            if "updates" in self._modes:
                yield self._say("updates", {step.name: {"messages": messages}})

    def custom(self, name: str, data: Any) -> Iterator[bytes]:
        if "custom" in self._modes:
            yield self._say("custom", {"name": name, "data": data})

    def ask(self, message: str, ask: Asked) -> Iterator[bytes]:
        if ask.kind != "tool":
            self._interrupts.append(interrupt(ask, self._asked.get(message, "")))
            if "updates" in self._modes:
                yield self._say("updates", {"__interrupt__": self._interrupts[-1:]})
        elif "messages" in self._modes or "messages-tuple" in self._modes:
            found = next(one for one in self._added if one["id"] == message)
            yield from self._whole([found])

    def ended(self, error: dict[str, Any] | None, usage: dict[str, Any] | None) -> Iterator[bytes]:
        yield from self._values(final=True)
        if error is not None:
            yield self._say("error", {"error": error["code"], "message": error["message"]})
            return
        yield self._say("end", None)
