"""Reasoning: what a model thinks before it answers, as a step of the turn."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType

from turnwise.models.reading import Answer
from turnwise.turn import Step, Turn


class Reasoning:
    """Follows `answer`: its reasoning becomes a step, which ends when the answer begins."""

    def __init__(self, turn: Turn | None, answer: Answer) -> None:
        self._turn = turn
        self._answer = answer
        self._manager: AbstractAsyncContextManager[Step] | None = None
        self._step: Step | None = None

    async def __aenter__(self) -> Reasoning:
        return self

    async def follow(self) -> None:
        """Take what was thought since the last time."""
        thought = self._answer.take_thoughts()
        if self._turn is None:
            return
        if thought:
            if self._step is None:
                self._manager = self._turn.step("reasoning", kind="reasoning")
                self._step = await self._manager.__aenter__()
            await self._step.say(thought)
        elif self._answer.said:
            await self._end(None)

    async def _end(self, error: BaseException | None) -> None:
        manager, self._manager, self._step = self._manager, None, None
        if manager is not None:
            await manager.__aexit__(type(error) if error else None, error, None)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end(error)
