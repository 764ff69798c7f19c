"""A Pydantic AI agent behind Turnwise.

    OPENAI_API_KEY=... uvicorn agent_pydantic_ai:app

It needs pydantic-ai-slim[openai]. The calls are steps, Pydantic AI's own messages are in the
session's memory as soon as they exist, and send_mail is asked for. So a tool whose result is there
does not run again, whatever happens to the process, and an ask may be answered next week.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic_ai import Agent, DeferredToolRequests, DeferredToolResults, RunContext, Tool
from pydantic_ai import messages as ai
from pydantic_ai.capabilities import Hooks, ValidatedToolArgs, WrapToolExecuteHandler
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.tools import ToolDefinition

import turnwise
from turnwise import Ask, Bot, Runtime, Turn


async def get_weather(city: str) -> str:
    """The weather in a city."""
    note(f"get_weather:{city}")
    return f"20 degrees in {city}"


def send_mail(to: str, text: str) -> str:
    """Send a mail."""
    note(f"send_mail:{to}")
    return f"sent to {to}: {text}"


def note(line: str) -> None:
    """So that one sees how often a tool has run."""
    if file := os.environ.get("RUNS"):
        with Path(file).open("a") as runs:
            runs.write(f"{line}\n")


async def as_step(
    ctx: RunContext[Turn],
    /,
    *,
    call: ai.ToolCallPart,
    tool_def: ToolDefinition,
    args: ValidatedToolArgs,
    handler: WrapToolExecuteHandler,
) -> Any:
    """Every tool runs inside this."""
    async with ctx.deps.step(call.tool_name, call.args_as_dict()) as step:
        step.output = await handler(args)
    return step.output


agent: Agent[Turn, str | DeferredToolRequests] = Agent(
    OpenAIChatModel(os.environ.get("OPENAI_MODEL", "gpt-4o-mini")),
    deps_type=Turn,
    output_type=[str, DeferredToolRequests],
    tools=[get_weather, Tool(send_mail, requires_approval=True)],
    capabilities=[Hooks(tool_execute=as_step)],
)
bot = Bot()


@bot.reply
async def reply(turn: Turn) -> AsyncIterator[str | Ask]:
    """Go on from what the memory holds: the agent's messages, and what was asked."""
    entries = await turn.memory.read(last=200)
    history = ai.ModelMessagesTypeAdapter.validate_python(
        [entry.body for entry in entries if entry.body["kind"] != "ask"]
    )
    last = entries[-1] if entries else None
    begun = last is not None and last.turn == turn.n  # by an earlier attempt of this turn
    asked = last.body if last is not None and last.body["kind"] == "ask" else None

    prompt: str | None = turn.text
    approvals: DeferredToolResults | None = None
    if begun and asked:
        yield await ask(turn, asked["calls"])
        return
    if begun and isinstance(history[-1], ai.ModelResponse) and not history[-1].tool_calls:
        yield history[-1].text or ""  # it was complete, but the turn had not ended
        return
    if begun:
        prompt = None  # the history has it
    elif asked:
        # Only a "yes" to this very ask is a yes. A "yes" to an older one, or a message, is a no.
        yes = any((answer.ask, answer.value) == (asked["id"], "yes") for answer in turn.answers)
        approvals = DeferredToolResults(approvals=dict.fromkeys(asked["calls"], yes))
        prompt = turn.text or None
    elif turn.answers and not turn.text:
        yield "That is no longer asked."  # an earlier message in the queue was a no
        return
    else:
        history = ai.repair_messages(history)  # a stopped turn leaves calls without results

    kept = begun or approvals is not None  # such a run begins with the history's last message
    async with agent.iter(
        prompt, message_history=history, deferred_tool_results=approvals, deps=turn
    ) as run:
        async for node in run:
            if Agent.is_model_request_node(node):
                if not kept:
                    await keep(turn, [node.request])
                async with node.stream(run.ctx) as stream:
                    async for piece in stream.stream_text(delta=True, debounce_by=None):
                        yield piece
            elif Agent.is_call_tools_node(node) and not kept:
                await keep(turn, [node.model_response])
                used = node.model_response.usage
                turn.add_usage(
                    {"input_tokens": used.input_tokens, "output_tokens": used.output_tokens}
                )
            kept = kept and Agent.is_user_prompt_node(node)

    if run.result and isinstance(run.result.output, DeferredToolRequests):
        calls = {
            call.tool_call_id: f"{call.tool_name} {call.args_as_json_str()}"
            for call in run.result.output.approvals
        }
        # Calls of the same response that need no approval have run: their results come last.
        done = [m for m in run.all_messages()[-1:] if isinstance(m, ai.ModelRequest)]
        yield await ask(turn, calls, done)


async def keep(turn: Turn, messages: Sequence[ai.ModelMessage], *more: Any) -> None:
    """Add messages to the memory, one entry each."""
    await turn.memory.add(
        *ai.ModelMessagesTypeAdapter.dump_python(list(messages), mode="json"), *more
    )


async def ask(turn: Turn, calls: dict[str, str], done: Sequence[ai.ModelMessage] = ()) -> Ask:
    """One question for all calls, kept together with the results of those that have run."""
    question = Ask(f"May I run {' and '.join(calls.values())}?", choices=["yes", "no"])
    await keep(turn, done, {"kind": "ask", "id": question.ask.id, "calls": calls})
    return question


runtime = Runtime(bot)
app = FastAPI(lifespan=runtime.lifespan)
app.include_router(turnwise.router(runtime))
