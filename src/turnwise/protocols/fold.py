"""Fold: what a protocol says of a turn, as a pure function of the turn's events.

It begins with the turn's first event, whatever a client has read already, so the k-th chunk is the
same in every replay and in every process, and a door has no state to lose. If retention has
removed the log, the same is made of the turn's record: each message at once.

A new attempt voids what earlier ones have said.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from turnwise.conversation import Asked, Message, StepRecord, TurnRecord, events
from turnwise.conversation.events import Event


class Fold:
    """Subclasses say what each part of a turn is in their protocol, in chunks of bytes; a part that
    they do not name is nothing there. `done` is true behind the last chunk, `said` if anything
    was said that another attempt would void, `status` is how the turn stands. Attempts before
    `attempt` are left out."""

    def __init__(self, *, attempt: int = 1) -> None:
        self.status = "queued"
        self.begun = False
        self.done = False
        self._first = attempt
        self._attempt = 0
        self.said = False

    async def prepare(self, n: int) -> None:
        """Read what was said before turn `n`, if it will be shown; called before an attempt begins,
        when all earlier turns have ended, and before the end of a turn that never began."""

    def feed(self, event: Event) -> Iterator[bytes]:
        """The chunks of the next event; none behind the last one."""
        if self.done:
            return
        self.begun = True
        body = event.json()
        number = body.get("attempt")
        if isinstance(number, int) and number < self._first and event.type != events.STARTED:
            return  # what this replay leaves out, because a later attempt has voided it
        match event.type:
            case events.QUEUED:
                yield from self.queued(body.get("position") or 0)
            case events.STARTED:
                yield from self._started(body["attempt"])
            case events.MESSAGE_STARTED:
                self.said = True
                head = body["message"]
                yield from self.opened(head["id"], body["index"], head.get("metadata") or {})
            case events.DELTA:
                yield from self.text(body["index"], body["text"])
            case events.MESSAGE_ENDED:
                yield from self.closed(body["index"])
            case events.STEP:
                self.said = True
                yield from self._step(StepRecord.of(body["step"]))
            case events.STEP_DELTA:
                yield from self.step_text(body["step"], body["text"])
            case events.CUSTOM:
                yield from self.custom(body["name"], body["data"])
            case events.MESSAGE:
                yield from self.message(Message.decode(body["message"]))
            case events.ASK:
                yield from self.ask(body["message"], Asked.of(body["ask"]))
            case events.COMPLETED | events.FAILED | events.CANCELLED:
                status = event.type.removeprefix("turn.")
                yield from self._end(status, body.get("error"), body.get("usage"))

    def recall(self, record: TurnRecord) -> Iterator[bytes]:
        """The chunks of a turn whose events are gone, up to its end."""
        self.begun = True
        yield from self.queued(0)
        yield from self._started(max(1, record.attempt))
        for step in record.steps:
            yield from self.step_began(step)
            if step.text:
                yield from self.step_text(step.id, step.text)
            yield from self.step_ended(step)
        for kept in record.data:
            yield from self.custom(kept["name"], kept["data"])
        messages = record.reply.messages if record.reply is not None else []
        for index, message in enumerate(messages):
            yield from self.opened(message.id, index, message.metadata)
            if message.text:
                yield from self.text(index, message.text)
            yield from self.closed(index)
        for message in messages:
            yield from self.message(message)
        for message in messages:
            if message.ask is not None and not message.partial:
                yield from self.ask(message.id, message.ask)

    def conclude(self, record: TurnRecord) -> Iterator[bytes]:
        """The chunks of its end."""
        error = record.error._asdict() if record.error is not None else None
        yield from self._end(record.status, error, record.usage)

    def _started(self, attempt: int) -> Iterator[bytes]:
        self._attempt, self.status = attempt, "running"
        if self.said:
            self.said = False
            yield from self.void()
        yield from self.started(attempt)

    def _step(self, step: StepRecord) -> Iterator[bytes]:
        yield from self.step_began(step) if step.status == "running" else self.step_ended(step)

    def _end(
        self, status: str, error: dict[str, Any] | None, usage: dict[str, Any] | None
    ) -> Iterator[bytes]:
        self.status, self.done = status, True
        yield from self.ended(error, usage)

    # What a protocol says

    def queued(self, position: int) -> Iterator[bytes]:
        """The turn was accepted; `position` unfinished turns are before it."""
        yield from ()

    def started(self, attempt: int) -> Iterator[bytes]:
        """An attempt begins."""
        yield from ()

    def void(self) -> Iterator[bytes]:
        """What was said so far does not count: another attempt begins."""
        yield from ()

    def opened(self, id: str, index: int, metadata: dict[str, Any]) -> Iterator[bytes]:
        """A message of the reply begins."""
        yield from ()

    def text(self, index: int, text: str) -> Iterator[bytes]:
        """A piece of a message's text."""
        yield from ()

    def closed(self, index: int) -> Iterator[bytes]:
        """Nothing more is added to a message."""
        yield from ()

    def step_began(self, step: StepRecord) -> Iterator[bytes]:
        """The bot begins to do something."""
        yield from ()

    def step_text(self, id: str, text: str) -> Iterator[bytes]:
        """A piece of a step's text."""
        yield from ()

    def step_ended(self, step: StepRecord) -> Iterator[bytes]:
        """The bot has done something."""
        yield from ()

    def custom(self, name: str, data: Any) -> Iterator[bytes]:
        """An event of the bot's own."""
        yield from ()

    def message(self, message: Message) -> Iterator[bytes]:
        """A message of the reply was committed."""
        yield from ()

    def ask(self, message: str, ask: Asked) -> Iterator[bytes]:
        """A message of the reply waits for an answer."""
        yield from ()

    def ended(self, error: dict[str, Any] | None, usage: dict[str, Any] | None) -> Iterator[bytes]:
        """The turn has ended with `status`."""
        yield from ()
