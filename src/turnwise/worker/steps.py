"""Steps of an attempt: what the bot does while it answers."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Protocol

from turnwise import telemetry
from turnwise.conversation import Failure, StepRecord, events
from turnwise.conversation.steps import INTERRUPTED, MAX_PART, StepKind, cut
from turnwise.errors import BadOutput, TurnError

MAX_STEPS = 1000
"""Maximum number of steps of one turn."""


class Reporter(Protocol):
    """Where the events of steps go."""

    async def report(self, type: str, **more: Any) -> None: ...

    async def report_text(self, step: str, text: str) -> None: ...


class Steps:
    """The steps of one attempt, in order."""

    def __init__(self, turn: int, attempt: int, reporter: Reporter) -> None:
        self._turn = turn
        self._attempt = attempt
        self._reporter = reporter
        self.records: list[StepRecord] = []
        self.unreported: list[StepRecord] = []
        """Steps that have ended without an event."""

    def make(self, name: str, input: Any, kind: StepKind) -> Step:
        """A step that has not begun."""
        return Step(self, self._reporter, str(name)[:200], input, kind)

    def begun(self, name: str, kind: StepKind) -> StepRecord:
        """The record of one more step. Raises TurnError beyond the limit."""
        if len(self.records) >= MAX_STEPS:
            raise TurnError("The bot took too many steps.", code="too_many_steps")
        number = len(self.records) + 1
        step = StepRecord(f"step-{self._turn}-{self._attempt}-{number}", kind, name, "running")
        self.records.append(step)
        return step

    def interrupt(self) -> list[StepRecord]:
        """The attempt ends: running steps have failed. Returns the steps whose end has no event."""
        running = [step for step in self.records if step.status == "running"]
        for step in running:
            step.status, step.error = "failed", INTERRUPTED
        unreported, self.unreported = [*self.unreported, *running], []
        return unreported


class Step:
    """Something that the bot does while it answers, as `async with turn.step(...) as step`.

    Set `output` to its result (JSON). `id` is its id in events and records. If the block raises,
    the step has failed, and the exception goes on.
    """

    def __init__(
        self, steps: Steps, reporter: Reporter, name: str, input: Any, kind: StepKind
    ) -> None:
        self._steps = steps
        self._reporter = reporter
        self._name = name
        self._input = input
        self._kind: StepKind = kind
        self._record: StepRecord | None = None
        self._span: Any = None
        self._size = 0
        self.output: Any = None

    @property
    def id(self) -> str:
        """Its id; unique in the session."""
        return self._begun().id

    def _begun(self) -> StepRecord:
        if self._record is None:
            raise RuntimeError("A step begins with `async with turn.step(...) as step`.")
        return self._record

    async def __aenter__(self) -> Step:
        given, cut_off = _kept(self._input, "input")
        self._record = step = self._steps.begun(self._name, self._kind)
        step.input, step.truncated = given, cut_off
        self._span = telemetry.step_span(self._kind, self._name, step.id)
        self._span.__enter__()
        await self._tell(step)
        return self

    async def say(self, text: str) -> None:
        """Add to the step's text, which is streamed, and is not a part of the answer."""
        step = self._begun()
        if not isinstance(text, str):
            raise BadOutput(f"A step says str, not {type(text).__name__}.")
        encoded = text.encode(errors="replace")
        room = MAX_PART - self._size
        if len(encoded) > room:
            encoded, step.truncated = encoded[:room], True
        self._size += len(encoded)
        if added := encoded.decode(errors="ignore"):
            step.text += added
            await self._reporter.report_text(step.id, added)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        step = self._begun()
        self._span.__exit__(kind, error, trace)
        if step.status != "running":  # the attempt ended before
            return
        if error is None:
            step.output, cut_off = _kept(self.output, "output")
            step.truncated = step.truncated or cut_off
            step.status = "completed"
        else:
            step.status, step.error = "failed", _why(error)
        try:
            await self._tell(step)
        except BaseException:  # the turn is being stopped, or its reply is too long
            self._steps.unreported.append(step)
            if error is None:
                raise

    async def _tell(self, step: StepRecord) -> None:
        await self._reporter.report(events.STEP, step=step.as_event())


def _kept(value: Any, what: str) -> tuple[Any, bool]:
    try:
        return cut(value)
    except (TypeError, ValueError) as error:
        raise BadOutput(f"A step's {what} must be JSON: {error}") from error


def _why(error: BaseException) -> Failure:
    """What people see of a step's error; the text of other exceptions may hold secrets."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return INTERRUPTED
    if isinstance(error, TurnError):
        return Failure(error.code, error.message)
    return Failure("step_error", f"{type(error).__name__}")
