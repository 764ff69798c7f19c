"""LangGraph's graph of the job: a chat model that says five words."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.graph import START, MessagesState, StateGraph

DELAY, RUNS = float(os.environ.get("PEER_DELAY", "0")), os.environ.get("PEER_RUNS")


def note(text: str) -> None:
    """Remember that the handler ran for this message."""
    if RUNS:
        with Path(RUNS).open("a") as file:
            file.write(f"{text}\n")


class FiveWords(BaseChatModel):
    @property
    def _llm_type(self) -> str:
        return "five words"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        raise NotImplementedError

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        pieces = [str(piece.message.content) async for piece in self._astream(messages)]
        return ChatResult(generations=[ChatGeneration(message=AIMessage("".join(pieces)))])

    async def _astream(
        self, messages: list[BaseMessage], *_: Any, **__: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        await asyncio.to_thread(note, str(messages[-1].content))
        for _piece in range(5):
            if DELAY:
                await asyncio.sleep(DELAY / 5)
            yield ChatGenerationChunk(message=AIMessageChunk(content="word "))


model = FiveWords()


async def answer(state: MessagesState) -> dict[str, Any]:
    return {"messages": [await model.ainvoke(state["messages"][-1:])]}


graph = StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer").compile()
