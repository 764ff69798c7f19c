"""Agno's AgentOS with the job: an agent whose model says five words. PEER_STORE is its database."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import job
from agno.agent import Agent
from agno.db.sqlite import AsyncSqliteDb
from agno.models.base import Model
from agno.models.response import ModelResponse
from agno.os import AgentOS


class FiveWords(Model):
    def invoke(self, *_: Any, **__: Any) -> ModelResponse:
        raise NotImplementedError

    def invoke_stream(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    async def ainvoke(self, messages: list[Any], *_: Any, **__: Any) -> ModelResponse:
        pieces = [piece.content async for piece in self.ainvoke_stream(messages)]
        return ModelResponse(role="assistant", content="".join(pieces))

    async def ainvoke_stream(
        self, messages: list[Any], *_: Any, **__: Any
    ) -> AsyncIterator[ModelResponse]:
        async for word in job.words(str(messages[-1].content)):
            yield ModelResponse(role="assistant", content=word)

    def _parse_provider_response(self, response: Any, **_: Any) -> Any:
        return response

    def _parse_provider_response_delta(self, response: Any) -> Any:
        return response


db = AsyncSqliteDb(db_url=os.environ["PEER_STORE"])
agent = Agent(id="echo", model=FiveWords(id="five-words"), db=db, telemetry=False)
app = AgentOS(agents=[agent], db=db, telemetry=False).get_app()
