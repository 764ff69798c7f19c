"""The events of a response: OpenAI's stream of the Responses API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from turnwise.conversation import Asked, Message, StepRecord, TurnRecord
from turnwise.protocols.fold import Fold
from turnwise.protocols.openai.objects import STATUSES, call, message, part, response, step

LAST = {
    "completed": "response.completed",
    "failed": "response.failed",
    "cancelled": "response.incomplete",
}
"""The last event, by the turn's status: clients do not know `response.cancelled`."""


class ResponseFold(Fold):
    """Numbers its events 0, 1, 2 ...; each item of the reply has an index of its own, also those
    that another attempt has voided, which the last event leaves out."""

    def __init__(self, record: TurnRecord) -> None:
        super().__init__()
        self._record = record
        self._number = 0
        self._index = 0
        self._places: dict[int | str, tuple[int, dict[str, Any]]] = {}
        self._open: dict[int | str, None] = {}
        self._texts: dict[str, str] = {}
        self._announced = False

    def _say(self, type: str, **fields: Any) -> bytes:
        body = {"type": type, "sequence_number": self._number, **fields}
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (type.encode(), orjson.dumps(body))

    def _whole(self, type: str, status: str, **more: Any) -> bytes:
        output = [item for _, item in self._places.values()]
        return self._say(type, response=response(self._record, status, output, **more))

    def _add(self, key: int | str, item: dict[str, Any]) -> bytes:
        index, self._index = self._index, self._index + 1
        self._places[key] = index, item
        self._open[key] = None
        return self._say("response.output_item.added", output_index=index, item=item)

    def _done(self, key: int | str) -> bytes:
        index, item = self._places[key]
        self._open.pop(key, None)
        return self._say("response.output_item.done", output_index=index, item=item)

    def _in(self, key: int | str) -> dict[str, Any]:
        index, item = self._places[key]
        return {"item_id": item["id"], "output_index": index}

    # The turn

    def queued(self, position: int) -> Iterator[bytes]:
        status = "queued" if position else "in_progress"
        yield self._whole("response.created", status)
        if position:
            yield self._whole("response.queued", status)

    def started(self, attempt: int) -> Iterator[bytes]:
        if not self._announced:
            self._announced = True
            yield self._whole("response.in_progress", "in_progress")

    def void(self) -> Iterator[bytes]:
        yield from self._close_all()
        self._places.clear()

    def _close_all(self) -> Iterator[bytes]:
        for key in list(self._open):
            self._places[key][1]["status"] = "incomplete"
            yield self._done(key)

    def ended(self, error: dict[str, Any] | None, usage: dict[str, Any] | None) -> Iterator[bytes]:
        yield from self._close_all()
        status = STATUSES[self.status]
        yield self._whole(LAST[self.status], status, error=error, usage=usage)

    # Messages

    def opened(self, id: str, index: int, metadata: dict[str, Any]) -> Iterator[bytes]:
        item = {**message(id, "", "in_progress"), "content": []}
        yield self._add(index, item)
        item["content"] = [part("")]
        yield self._say(
            "response.content_part.added", **self._in(index), content_index=0, part=part("")
        )

    def text(self, index: int, text: str) -> Iterator[bytes]:
        self._places[index][1]["content"][0]["text"] += text
        yield self._say(
            "response.output_text.delta", **self._in(index), content_index=0, delta=text,
            logprobs=[],
        )  # fmt: skip

    def closed(self, index: int) -> Iterator[bytes]:
        item = self._places[index][1]
        text = item["content"][0]["text"]
        place = {**self._in(index), "content_index": 0}
        yield self._say("response.output_text.done", **place, text=text, logprobs=[])
        yield self._say("response.content_part.done", **place, part=part(text))
        item["status"] = "completed"
        yield self._done(index)

    def message(self, message: Message) -> Iterator[bytes]:
        self._texts[message.id] = message.text
        for _, item in self._places.values():
            if item["id"] == message.id and message.partial:
                item["status"] = "incomplete"
        yield from ()

    def ask(self, message: str, ask: Asked) -> Iterator[bytes]:
        item = call(ask, self._texts.get(message, ""))
        arguments = item["arguments"]
        item.update(arguments="", status="in_progress")
        yield self._add(ask.id, item)
        place = self._in(ask.id)
        yield self._say("response.function_call_arguments.delta", **place, delta=arguments)
        yield self._say(
            "response.function_call_arguments.done", **place, name=item["name"],
            arguments=arguments,
        )  # fmt: skip
        item.update(arguments=arguments, status="completed")
        yield self._done(ask.id)

    # Steps

    def step_began(self, step_: StepRecord) -> Iterator[bytes]:
        item = step(step_)
        if item is not None:
            item["status"] = "in_progress"
            yield self._add(step_.id, item)

    def step_text(self, id: str, text: str) -> Iterator[bytes]:
        if id not in self._places or self._places[id][1]["type"] != "reasoning":
            return
        summary = self._places[id][1]["summary"]
        if not summary:
            summary.append({"type": "summary_text", "text": ""})
            yield self._say(
                "response.reasoning_summary_part.added", **self._in(id), summary_index=0,
                part={"type": "summary_text", "text": ""},
            )  # fmt: skip
        summary[0]["text"] += text
        yield self._say(
            "response.reasoning_summary_text.delta", **self._in(id), summary_index=0, delta=text
        )

    def step_ended(self, step_: StepRecord) -> Iterator[bytes]:
        if step_.id not in self._places:
            return
        _, item = self._places[step_.id]
        if item["type"] == "reasoning" and item["summary"]:
            place = {**self._in(step_.id), "summary_index": 0}
            shown = item["summary"][0]
            yield self._say("response.reasoning_summary_text.done", **place, text=shown["text"])
            yield self._say("response.reasoning_summary_part.done", **place, part=shown)
        ended = step(step_) or {}
        ended.pop("summary", None)
        item.update(ended)
        yield self._done(step_.id)
