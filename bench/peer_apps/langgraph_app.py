"""LangGraph's graph of the job: a chat model that says five words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import job
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.graph import START, MessagesState, StateGraph


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
        async for word in job.words(str(messages[-1].content)):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))


model = FiveWords()


async def answer(state: MessagesState) -> dict[str, Any]:
    return {"messages": [await model.ainvoke(state["messages"][-1:])]}


graph = StateGraph(MessagesState).add_node("answer", answer).add_edge(START, "answer").compile()
