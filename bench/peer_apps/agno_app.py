"""Agno's AgentOS with the job: an agent whose model says five words. PEER_STORE is its database."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from agno.agent import Agent
from agno.db.postgres import AsyncPostgresDb
from agno.db.sqlite import AsyncSqliteDb
from agno.job_queue import QueueConfig
from agno.models.base import Model
from agno.models.response import ModelResponse
from agno.os import AgentOS

DELAY, RUNS = float(os.environ.get("PEER_DELAY", "0")), os.environ.get("PEER_RUNS")
STORE = os.environ["PEER_STORE"]


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
        if RUNS:
            with Path(RUNS).open("a") as file:  # noqa: ASYNC230 as short as a print
                file.write(f"{messages[-1].content}\n")
        for _piece in range(5):
            if DELAY:
                await asyncio.sleep(DELAY / 5)
            yield ModelResponse(role="assistant", content="word ")

    def _parse_provider_response(self, response: Any, **_: Any) -> Any:
        return response

    def _parse_provider_response_delta(self, response: Any) -> Any:
        return response


db: Any
queue = None  # the durable queue takes no SQLite
if STORE.startswith("sqlite"):
    db = AsyncSqliteDb(db_url=STORE)
else:
    db = AsyncPostgresDb(db_url=STORE)
    # By default one attempt gives up what a crash interrupts, and a grace of 60 s waits as long.
    queue = QueueConfig(
        durable=True, max_concurrency=32, max_attempts=3, retry_delay_seconds=0,
        lock_grace_seconds=6,
    )  # fmt: skip
agent = Agent(id="echo", model=FiveWords(id="five-words"), db=db, telemetry=False)
app = AgentOS(agents=[agent], db=db, queue=queue, telemetry=False).get_app()
