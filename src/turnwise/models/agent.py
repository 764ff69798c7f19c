"""Agent: a model that calls tools until it has its answer, within one turn."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, Protocol

import orjson

from turnwise.conversation import Ask, Message
from turnwise.errors import ModelError, TurnError
from turnwise.models.calls import Call
from turnwise.models.reading import Answer
from turnwise.models.tools import Tool, jsonable, shown
from turnwise.models.transcript import DECLINED, UNANSWERED, Transcript
from turnwise.turn import Turn

log = logging.getLogger("turnwise.models")

ALLOW, DENY = "yes", "no"
FAILED = "Error: "
"""What the result of a call that failed begins with."""


class Model(Protocol):
    """What an agent asks of its model."""

    def request(
        self,
        turn: Turn,
        answer: Answer,
        transcript: Transcript,
        tools: Mapping[str, Tool],
    ) -> AsyncIterator[str]: ...


class Agent:
    """Answers one turn: asks the model, runs its calls, asks again; at most `rounds` times."""

    def __init__(self, model: Model, tools: Mapping[str, Tool], turn: Turn, rounds: int) -> None:
        self._model = model
        self._tools = tools
        self._turn = turn
        self._rounds = rounds

    async def answer(self) -> AsyncIterator[str | Message]:
        """The pieces of the answer, and an Ask for each call that needs approval."""
        transcript = self._transcript = await Transcript.of(self._turn)
        asks = [ask async for ask in self._go_on()]
        while not asks:
            answer = Answer()
            tools = self._tools if transcript.rounds() < self._rounds else {}
            async for piece in self._model.request(self._turn, answer, transcript, tools):
                yield piece
            if not answer.calls:
                break
            if not tools:
                raise ModelError(
                    f"The language model called tools more than {self._rounds} times.",
                    code="model_rounds",
                )
            calls = await transcript.called(answer.text, answer.calls)
            asks = [ask async for ask in self._run(calls)]
        for ask in asks:
            if ask is not None:
                yield ask
        await transcript.tidy()

    async def _go_on(self) -> AsyncIterator[Ask | None]:
        """Calls without a result: an earlier attempt made them, or a person was asked. Yields None
        while other answers are missing."""
        transcript, turn = self._transcript, self._turn
        for call, result in transcript.done():
            await self._show(call, result)
        waiting = transcript.waiting()
        asked = {call: ask for ask, call in transcript.asked.items()}
        given = {answer.ask: answer.value for answer in turn.answers}
        left = answered = 0
        again: list[Call] = []
        for call in waiting:
            ask = asked.get(call.id, "")
            if ask in given:
                answered += 1
                if given[ask] == ALLOW:
                    await self._call(call)
                else:
                    await transcript.resulted(call.id, DECLINED)
            elif ask in turn.asks:
                left += 1  # it waits on
            elif transcript.last_turn == turn.n:  # an earlier attempt of this turn has called it
                again.append(call)
            elif ask:
                await transcript.resulted(call.id, UNANSWERED)
        async for question in self._run(again):
            yield question
        if left and answered:
            yield None

    async def _show(self, call: Call, result: str) -> None:
        """A step of an earlier attempt, which is void with it, once more."""
        with suppress(TurnError):
            async with self._turn.step(call.name, _given(call)) as step:
                if result.startswith(FAILED):
                    raise TurnError(result.removeprefix(FAILED))
                step.output = result

    async def _run(self, calls: list[Call]) -> AsyncIterator[Ask]:
        """Run the calls that need no approval, all at once; yields what is asked for the others."""
        free = [call for call in calls if not self._needs_approval(call)]
        running = [asyncio.ensure_future(self._call(call)) for call in free]
        try:
            await asyncio.gather(*running)
        finally:  # none goes on when the turn has ended
            for task in running:
                task.cancel()
        for call in calls:
            if call not in free:
                ask = self._ask_for(call)
                assert ask.ask is not None
                await self._transcript.asks(ask.ask.id, call.id)
                yield ask

    def _needs_approval(self, call: Call) -> bool:
        tool = self._tools.get(call.name)
        if tool is None or not tool.approve:
            return False
        try:
            tool.checked(call.arguments)
        except TurnError:  # the model receives the error, and no person is asked
            return False
        return True

    def _ask_for(self, call: Call) -> Ask:
        arguments = jsonable(self._tools[call.name].checked(call.arguments))
        listed = "\n".join(f"- {name}: {value}" for name, value in arguments.items())
        about = f"\n\n{listed}" if listed else ""
        return Ask(
            f"May I call **{call.name}**?{about}",
            choices=[ALLOW, DENY],
            name=call.name,
            data={"tool": call.name, "arguments": arguments},
        )

    async def _call(self, call: Call) -> None:
        """Run one call as a step; the model receives its result, or its error."""
        tool = self._tools.get(call.name)
        result = ""
        try:
            async with self._turn.step(call.name, _given(call)) as step:
                if tool is None:
                    raise TurnError(f"There is no tool {call.name!r}.", code="no_tool")
                found = await tool.run(self._turn, tool.checked(call.arguments))
                result, step.output = shown(found), jsonable(found)
        except TurnError as error:
            result = f"{FAILED}{error.message}"
        except Exception as error:
            log.warning("the tool %s failed: %s", call.name, type(error).__name__, exc_info=True)
            result = f"{FAILED}{type(error).__name__}: {error}"
        await self._transcript.resulted(call.id, result)


def _given(call: Call) -> Any:
    """The arguments as a step shows them."""
    try:
        return orjson.loads(call.arguments or "{}")
    except ValueError:
        return call.arguments
