"""An agent of the OpenAI Agents SDK (pip install openai-agents) behind Turnwise.

    OPENAI_API_KEY=... uvicorn agent_openai_agents:app

The SDK's Session is the turn's memory, a call of a tool is a step, and an approval is an ask.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import agents
from agents.tool_context import ToolContext
from fastapi import FastAPI
from openai import AsyncOpenAI
from openai.types.responses import ResponseTextDeltaEvent

import turnwise
from turnwise import Answer, Ask, Bot, Runtime, Turn
from turnwise.memory import Entry

Item = agents.TResponseInputItem
UNKNOWN = "This call was interrupted. It is unknown whether it has done its work."


@agents.function_tool(failure_error_function=None)
async def get_weather(city: str) -> str:
    """The weather in a city."""
    note(f"get_weather:{city}")
    return f"20 degrees in {city}"


@agents.function_tool(failure_error_function=None, needs_approval=True)
def send_mail(to: str, text: str) -> str:
    """Send a mail."""
    note(f"send_mail:{to}")
    return f"sent to {to}: {text}"


def note(line: str) -> None:
    """So that one sees how often a tool has run."""
    if file := os.environ.get("RUNS"):
        with Path(file).open("a") as runs:
            runs.write(f"{line}\n")


class MemorySession:
    """The SDK's Session in the turn's memory: an entry is an item, or what an ask is about."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.session_id = turn.session.id
        self.session_settings: agents.SessionSettings | None = agents.SessionSettings(limit=200)

    async def entries(self) -> list[Entry]:
        """The memory is only appended to: an entry None takes the one before it back."""
        found: list[Entry] = []
        for entry in await self.turn.memory.read():
            if entry.body is not None:
                found.append(entry)
            elif found:
                found.pop()
        return found

    async def get_items(self, limit: int | None = None) -> list[Item]:
        """A call that was interrupted has no result, and models refuse that: here it has one."""
        items = [entry.body for entry in await self.entries() if "state" not in entry.body]
        results = {i["call_id"] for i in items if i.get("type") == "function_call_output"}
        whole: list[Item] = []
        for item in items:
            whole.append(item)
            if item.get("type") == "function_call" and item["call_id"] not in results:
                whole.append(result_of(item["call_id"], UNKNOWN))
        return whole[-limit:] if limit else whole

    async def add_items(self, items: list[Item]) -> None:
        """The SDK adds items at the end of a round, when most of them are kept already."""
        kept = [entry.body for entry in await self.entries() if entry.turn == self.turn.n]
        if new := [slim for item in items if (slim := slimmed(item)) not in kept]:
            await self.turn.memory.add(*new)

    async def pop_item(self) -> Item | None:
        items: list[Item] = [entry.body for entry in await self.entries()]
        if items:
            await self.turn.memory.add(None)
        return items[-1] if items else None

    async def clear_session(self) -> None:
        await self.turn.memory.forget(before=await self.turn.memory.add(None) + 1)


def slimmed(item: Item) -> Item:
    """Without what the model never sees again: it is half of what is written."""
    unseen = ("id", "status", "provider_data")
    slim: Any = {key: value for key, value in item.items() if key not in unseen}
    if item.get("role") == "assistant" and not isinstance(slim["content"], str):
        text = "".join(part.get("text", "") for part in slim["content"])
        slim = {"role": "assistant", "content": text}
    return cast(Item, slim)


def result_of(call_id: str, output: str) -> Item:
    return {"call_id": call_id, "output": output, "type": "function_call_output"}


def shown(tool: agents.FunctionTool) -> agents.FunctionTool:
    """Its calls are steps, and a result is kept as soon as it is there."""

    async def invoke(context: ToolContext[Turn], arguments: str) -> str:
        turn = context.context
        try:
            async with turn.step(tool.name, json.loads(arguments or "{}")) as step:
                output = step.output = str(await tool.on_invoke_tool(context, arguments))
        except Exception as error:
            output = agents.default_tool_error_function(context, error)
        await MemorySession(turn).add_items([result_of(context.tool_call_id, output)])
        return output

    return replace(tool, on_invoke_tool=invoke)


class Keep(agents.RunHooks[Turn]):
    """What the model said is kept before its calls are run."""

    async def on_llm_end(
        self,
        context: agents.RunContextWrapper[Turn],
        agent: agents.Agent[Turn],
        response: agents.ModelResponse,
    ) -> None:
        usage, turn = response.usage, context.context
        turn.add_usage({"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens})
        await MemorySession(turn).add_items(response.to_input_items())


agents.set_tracing_disabled(True)
name = os.environ.get("OPENAI_MODEL", "gpt-4o-mini")
model = agents.OpenAIChatCompletionsModel(name, AsyncOpenAI())
tools: list[agents.Tool] = [shown(get_weather), shown(send_mail)]
agent = agents.Agent[Turn](name="Assistant", model=model, tools=tools)
bot = Bot()


@bot.reply
async def reply(turn: Turn) -> AsyncIterator[str | Ask]:
    session = MemorySession(turn)
    entries = await session.entries()
    earlier = [entry.body for entry in entries if entry.turn == turn.n]  # by an earlier attempt
    for item in earlier:
        if item.get("role") == "assistant":
            yield item["content"]
    if earlier and earlier[-1].get("role") == "assistant":
        return  # all was said, only the turn had not ended
    work: str | list[Item] | agents.RunState[Turn]
    if entries and entries[-1].body.get("state"):
        asked, kept = entries[-1].body["ask"], entries[-1].body["state"]
        context = agents.RunContextWrapper(turn)
        state = await agents.RunState.from_json(agent, kept, context_override=context)
        if earlier:  # the question was not committed
            yield await ask(turn, state)
            return
        work = await decide(turn, state, asked)
    elif earlier and (not turn.text or {"role": "user", "content": turn.text} in earlier):
        work = []  # go on from what is kept
    else:  # or the answer to a question that is over
        work = turn.text or ", ".join(str(answer.value) for answer in turn.answers)
    run = agents.Runner.run_streamed(agent, work, context=turn, hooks=Keep(), session=session)
    try:
        async for event in run.stream_events():
            data = event.data if event.type == "raw_response_event" else None
            if isinstance(data, ResponseTextDeltaEvent):
                yield data.delta
        if run.interruptions:
            yield await ask(turn, run.to_state())
    finally:  # a turn that is stopped stops the SDK's task, and the request to the model
        run.cancel()
        if run.run_loop_task:
            await asyncio.wait([run.run_loop_task])


async def ask(turn: Turn, state: agents.RunState[Turn]) -> Ask:
    """For the first of the calls that wait; a yes asks for the next."""
    call = state.get_interruptions()[0]
    question = Ask(f"May I call {call.name} with {call.arguments}?", choices=["yes", "no"])
    kept: dict[str, Any] = state.to_json(context_serializer=lambda _: {})
    await turn.memory.add({"ask": question.ask.id, "state": kept})
    return question


async def decide(turn: Turn, state: agents.RunState[Turn], asked: str) -> agents.RunState[Turn]:
    """Any message but a yes to this ask is a no."""
    call = state.get_interruptions()[0]
    if Answer(asked, "yes") in turn.answers:
        # A yes is used once: after a crash the model receives UNKNOWN, and no mail is sent twice.
        await turn.memory.add({"ask": asked, "state": None})
        state.approve(call)
    else:
        state.reject(call)
    if turn.text:
        state.add_input(turn.text)
    return state


runtime = Runtime(bot)
app = FastAPI(lifespan=runtime.lifespan)
app.include_router(turnwise.router(runtime))
