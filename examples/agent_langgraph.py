"""A LangGraph agent, whose checkpoints are in the session's memory.

    pip install langgraph openai
    OPENAI_API_KEY=... uvicorn agent_langgraph:app

The calls are steps, a stopped or killed turn goes on from its newest checkpoint, and send_mail is
asked for.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    AnyMessage,
    HumanMessage,
    ToolCall,
    ToolMessage,
    convert_to_openai_messages,
    message_chunk_to_message,
)
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_metadata,
)
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import Runtime as Run
from langgraph.types import Command, Send, StateSnapshot, interrupt
from openai import AsyncOpenAI

import turnwise
from turnwise import Ask, Bot, Runtime, Turn


@tool
async def get_weather(city: str) -> str:
    """The weather in a city."""
    note(f"get_weather:{city}")
    return f"20 degrees in {city}"


@tool
def send_mail(to: str, text: str) -> str:
    """Send a mail."""
    note(f"send_mail:{to}")
    return f"sent to {to}: {text}"


def note(line: str) -> None:
    """So that one sees how often a tool has run."""
    if file := os.environ.get("RUNS"):
        with Path(file).open("a") as runs:
            runs.write(f"{line}\n")


TOOLS = {each.name: each for each in (get_weather, send_mail)}
APPROVE = {"send_mail"}
client = AsyncOpenAI()


class MemorySaver(BaseCheckpointSaver[int]):
    """A graph's newest checkpoint, in `turn.memory`.

    An entry is a key and its value, and the newest value of a key counts. A turn's first checkpoint
    is written whole, and what is older is forgotten; with the others only new messages are written.
    """

    def __init__(self, turn: Turn) -> None:
        super().__init__()
        self._memory = turn.memory
        self._written: dict[tuple[Any, ...], Any] = {}

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        space = config["configurable"].get("checkpoint_ns", "")
        values = dict(checkpoint["channel_values"])
        messages = values.pop("messages", [])
        now: dict[tuple[Any, ...], Any] = {
            ("message", space, at): self._dump(message) for at, message in enumerate(messages)
        }
        rest = {**checkpoint, "channel_values": values}
        more = get_checkpoint_metadata(config, metadata)
        now["checkpoint", space] = self._dump((rest, more, len(messages)))
        new = {key: value for key, value in now.items() if self._written.get(key) != value}
        last = await self._memory.add(*new.items())
        if not space and ("checkpoint", space) not in self._written:
            await self._memory.forget(before=last - len(new) + 1)
        self._written |= new
        return {"configurable": {**config["configurable"], "checkpoint_id": checkpoint["id"]}}

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        place = config["configurable"]
        of = ("write", place.get("checkpoint_ns", ""), place["checkpoint_id"], task_path, task_id)
        numbered = [(WRITES_IDX_MAP.get(write[0], at), write) for at, write in enumerate(writes)]
        await self._memory.add(*(((*of, at), self._dump(write)) for at, write in numbered))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        space = config["configurable"].get("checkpoint_ns", "")
        entries = await self._memory.read(last=1_000_000)
        found = {tuple(key): value for key, value in (entry.body for entry in entries)}
        if ("checkpoint", space) not in found:
            return None
        checkpoint, metadata, count = self._load(found["checkpoint", space])
        checkpoint["channel_values"]["messages"] = [
            self._load(found["message", space, at]) for at in range(count)
        ]
        place = {**config["configurable"], "checkpoint_id": checkpoint["id"]}
        keys = sorted(key for key in found if key[:3] == ("write", space, checkpoint["id"]))
        writes = [(key[4], *self._load(found[key])) for key in keys]
        return CheckpointTuple({"configurable": place}, checkpoint, metadata, None, writes)

    async def alist(
        self, config: RunnableConfig | None, **criteria: Any
    ) -> AsyncIterator[CheckpointTuple]:
        if config is not None and (newest := await self.aget_tuple(config)):
            yield newest

    def _dump(self, value: Any) -> tuple[str, str]:
        kind, data = self.serde.dumps_typed(value)
        return kind, b64encode(data).decode()

    def _load(self, dumped: tuple[str, str]) -> Any:
        kind, data = dumped
        return self.serde.loads_typed((kind, b64decode(data)))


@dataclass
class Context:
    """What the nodes need beside the state."""

    turn: Turn


async def call_model(state: MessagesState, runtime: Run[Context]) -> Command[str]:
    """Stream what the model says, and go on to the tools that it calls."""
    turn = runtime.context.turn
    stream = await client.chat.completions.create(
        model=os.environ.get("OPENAI_MODEL", "gpt-4o-mini"),
        messages=cast(Any, convert_to_openai_messages([*with_results(state["messages"])])),
        tools=cast(Any, [convert_to_openai_tool(each) for each in TOOLS.values()]),
        stream=True,
        stream_options={"include_usage": True},
    )
    usage = None
    whole = AIMessageChunk(content="", response_metadata={"turn": turn.n})
    async with stream:
        async for chunk in stream:
            usage = chunk.usage or usage
            for delta in (choice.delta for choice in chunk.choices):
                calls = [
                    tool_call_chunk(id=call.id, index=call.index, name=of.name, args=of.arguments)
                    for call in delta.tool_calls or []
                    if (of := call.function)
                ]
                whole += AIMessageChunk(content=delta.content or "", tool_call_chunks=calls)
                runtime.stream_writer(delta.content or "")
    if whole.text and whole.tool_calls:  # what is said after the tools is a paragraph of its own
        whole += AIMessageChunk(content="\n\n")
        runtime.stream_writer("\n\n")
    if usage is not None:
        turn.add_usage(
            {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens}
        )
    # A task for each call, so that the result of each is kept as it comes.
    tasks = [Send("tool", call) for call in whole.tool_calls]
    return Command(update={"messages": [message_chunk_to_message(whole)]}, goto=tasks)


def with_results(messages: list[AnyMessage]) -> Iterator[AnyMessage]:
    """Each call followed by its result, because servers refuse anything else. A turn that was
    stopped may have left calls without one."""
    results = {m.tool_call_id: m for m in messages if isinstance(m, ToolMessage)}
    for message in messages:
        if not isinstance(message, ToolMessage):
            yield message
        for call in message.tool_calls if isinstance(message, AIMessage) else []:
            lost = ToolMessage("The call was interrupted.", tool_call_id=call["id"])
            yield results.get(str(call["id"]), lost)


async def call_tool(state: ToolCall, runtime: Run[Context]) -> dict[str, Any]:
    """Run one call, if need be after the person has said yes."""
    name, arguments, turn = state["name"], state["args"], runtime.context.turn
    shown: dict[str, Any] = {}
    if name in APPROVE and interrupt(state) != "yes":
        content = "The person has denied this call."
    else:
        try:
            shown = {"turn": turn.n, "name": name, "input": arguments}
            async with turn.step(name, arguments) as step:
                step.output = content = await TOOLS[name].ainvoke(arguments)
        except Exception as error:  # the model receives it, and can do something else
            content = f"The tool has failed: {error!r}"
    result = ToolMessage(content, tool_call_id=state["id"], response_metadata=shown)
    return {"messages": [result]}


builder = StateGraph(MessagesState, context_schema=Context)
builder.add_node("model", call_model)
builder.add_node("tool", call_tool)
builder.add_edge(START, "model")
builder.add_edge("tool", "model")
bot = Bot()


@bot.reply
async def reply(turn: Turn) -> AsyncIterator[str | Ask]:
    graph = builder.compile(checkpointer=MemorySaver(turn))
    config: RunnableConfig = {
        "configurable": {"thread_id": turn.session.id},
        "metadata": {"turn": turn.n},
        "recursion_limit": 25,
    }
    state = await graph.aget_state(config)
    for message in state.values.get("messages", []):
        shown = message.response_metadata
        if shown.get("turn") != turn.n:
            continue
        # By an earlier attempt of this turn, and the reply begins anew.
        if isinstance(message, ToolMessage):
            async with turn.step(shown["name"], shown["input"]) as step:
                step.output = message.content
        else:
            yield message.text
    pieces = cast(
        AsyncGenerator[str, None],
        graph.astream(
            beginning(turn, state),
            config,
            context=Context(turn),
            stream_mode="custom",
            durability="sync",
        ),
    )
    async with aclosing(pieces):
        async for piece in pieces:
            yield piece
    state = await graph.aget_state(config)
    for question in state.interrupts[:1]:  # one after the other
        call = question.value
        ask = Ask(f"May I run {call['name']} with {call['args']}?", choices=["yes", "no"])
        turn.state["asked"] = [ask.ask.id, question.id, checkpoint_of(state)] if ask.ask else None
        yield ask


def checkpoint_of(state: StateSnapshot) -> str | None:
    """The id of the checkpoint at which the graph is."""
    return state.config["configurable"].get("checkpoint_id")


def beginning(turn: Turn, state: StateSnapshot) -> MessagesState | Command[str] | None:
    """What the graph begins the turn with."""
    if state.metadata and state.metadata.get("turn") == turn.n:
        return None  # an earlier attempt was killed: go on from its checkpoint
    # An answer counts if it is to what was asked last, and the graph still waits for it.
    ask, question, checkpoint = turn.state.get("asked") or ("", "", "")
    value = dict(turn.answers).get(ask) if checkpoint == checkpoint_of(state) else None
    given = {} if value is None else {question: value}
    text = turn.text or " ".join(str(answer.value) for answer in turn.answers if not given)
    # The id is the turn's, so that a second attempt does not add the message again.
    said: list[AnyMessage] = [HumanMessage(text, id=f"turn {turn.n}")] if text else []
    if answers := given or {each.id: "no" for each in state.interrupts}:
        return Command(resume=answers, update={"messages": said})
    # A stopped turn has left the results of calls that were done while another was running.
    done = [message for task in state.tasks for message in (task.result or {}).get("messages", ())]
    return {"messages": [*done, *said]}


runtime = Runtime(bot)
app = FastAPI(lifespan=runtime.lifespan)
app.include_router(turnwise.router(runtime))
