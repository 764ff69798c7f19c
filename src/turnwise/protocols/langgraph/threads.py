"""Threads: a thread is a session."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import orjson
from fastapi import Request, Response
from pydantic import BaseModel, Field

from turnwise.channels.bodies import JSON
from turnwise.conversation import Session
from turnwise.errors import Invalid, NotFound, Rejected
from turnwise.protocols.door import Caller, Door, name_of, number
from turnwise.protocols.langgraph.ids import turn_of
from turnwise.protocols.langgraph.messages import given
from turnwise.protocols.langgraph.states import interrupts_of, state, states, thread, waiting
from turnwise.protocols.past import Exchange, exchanges


class Exists(Rejected):
    """This thread exists already."""

    code = "exists"
    status = 409


class ThreadIn(BaseModel):
    thread_id: str | None = Field(None, min_length=1, max_length=200)
    metadata: dict[str, Any] | None = None
    if_exists: str | None = "raise"


class SearchIn(BaseModel):
    metadata: dict[str, Any] | None = None
    status: str | None = None
    limit: int = Field(10, ge=1, le=1000)
    offset: int = Field(0, ge=0, le=10_000)


class HistoryIn(BaseModel):
    limit: int | None = Field(10, ge=1, le=1000)
    before: Any = None


class StateIn(BaseModel):
    values: Any = None
    checkpoint: dict[str, Any] | None = None
    checkpoint_id: str | None = None


class Threads:
    """Makes, finds, shows, copies and deletes threads."""

    def __init__(self, door: Door) -> None:
        self._door = door
        path = "/threads/{thread}"
        door.add("POST", "/threads", self.make)
        door.add("POST", "/threads/search", self.search)
        door.add("POST", "/threads/count", self.count)
        door.add("GET", path, self.show)
        door.add("PATCH", path, self.update)
        door.add("DELETE", path, self.delete)
        door.add("POST", path + "/copy", self.copy)
        door.add("GET", path + "/state", self.state)
        door.add("POST", path + "/state", self.add_state)
        door.add("GET", path + "/state/{checkpoint}", self.state)
        door.add("GET", path + "/history", self.history)
        door.add("POST", path + "/history", self.history)

    async def make(self, request: Request) -> Response:
        """A new thread, or with `if_exists: "do_nothing"` the one that is there."""
        caller = await self._door.caller(request)
        body = await self._door.body(request, ThreadIn)
        name = body.thread_id or str(uuid4())
        try:
            found = await caller.session(name)
            if body.if_exists != "do_nothing":
                raise Exists()
        except NotFound:
            found = await caller.create(name, metadata=body.metadata)
        return JSON(orjson.dumps(thread(found, None, ())))

    async def _named(self, request: Request) -> tuple[Caller, Session, list[Exchange]]:
        caller = await self._door.caller(request)
        session = await caller.session(request.path_params["thread"])
        return caller, session, await exchanges(self._door.gateway, session.id)

    async def search(self, request: Request) -> Response:
        """The caller's threads, the last used first."""
        caller = await self._door.caller(request)
        body = await self._door.body(request, SearchIn)
        found = await self._found(caller, body)
        page = found[body.offset : body.offset + body.limit]
        return JSON(orjson.dumps([thread(session, None, ()) for session in page]))

    async def count(self, request: Request) -> Response:
        """How many threads the caller has."""
        caller = await self._door.caller(request)
        body = await self._door.body(request, SearchIn)
        return JSON(orjson.dumps(len(await self._found(caller, body, most=10_000))))

    async def _found(
        self, caller: Caller, body: SearchIn, most: int | None = None
    ) -> list[Session]:
        """As many threads as a page needs, by metadata and status."""
        enough = body.offset + body.limit if most is None else most
        wanted = (body.metadata or {}).items()
        found: list[Session] = []
        before: str | None = None
        while len(found) < enough:
            page = await caller.sessions(limit=100, before=before)
            found += [
                session
                for session in page.sessions
                if wanted <= session.metadata.items()
                and body.status in (None, "idle" if session.status == "idle" else "busy")
            ]
            before = page.next
            if not page.has_more:
                break
        return found[:enough]

    async def show(self, request: Request) -> Response:
        """The thread and its values."""
        _, session, found = await self._named(request)
        asks = await waiting(self._door.gateway, session.id)
        now = state(name_of(session), found, asks)
        return JSON(orjson.dumps(thread(session, now["values"], interrupts_of(found, asks))))

    async def update(self, request: Request) -> Response:
        """Change its metadata, which are merged."""
        _, session, _ = await self._named(request)
        body = await self._door.body(request, ThreadIn)
        metadata = {**session.metadata, **(body.metadata or {})}
        changed = await self._door.gateway.update(session.id, {"metadata": metadata})
        return JSON(orjson.dumps(thread(changed, None, ())))

    async def delete(self, request: Request) -> Response:
        """Delete the session and all its data."""
        _, session, _ = await self._named(request)
        await self._door.gateway.delete(session.id)
        return Response(status_code=204)

    async def copy(self, request: Request) -> Response:
        """A thread that is this one up to its last turn."""
        _, session, _ = await self._named(request)
        made = await self._door.gateway.fork(session.id)
        return JSON(orjson.dumps(thread(made, None, ())))

    # States

    async def state(self, request: Request) -> Response:
        """The newest state, or that of a checkpoint."""
        _, session, found = await self._named(request)
        checkpoint = request.path_params.get("checkpoint")
        asks = await waiting(self._door.gateway, session.id)
        if checkpoint is not None:
            n = turn_of(checkpoint, session.id)
            asks = asks if found and n == found[-1].n else set()
            found = [one for one in found if one.n <= n]
        return JSON(orjson.dumps(state(_called(request), found, asks)))

    async def add_state(self, request: Request) -> Response:
        """Put messages into the history without having them answered."""
        caller, session, _ = await self._named(request)
        caller.check_host()
        body = await self._door.body(request, StateIn)
        values = body.values.get("messages") if isinstance(body.values, dict) else None
        every = values if isinstance(values, list) else []
        messages = [m for one in every if isinstance(one, dict) and (m := given(one))]
        if not messages:
            raise Invalid("Only messages can be added to a thread's state.")
        await self._door.gateway.say(session.id, messages)
        found = await exchanges(self._door.gateway, session.id)
        now = state(_called(request), found, set())
        return JSON(orjson.dumps({"checkpoint": now["checkpoint"]}))

    async def history(self, request: Request) -> Response:
        """One state for each turn, the newest first."""
        _, session, found = await self._named(request)
        limit = max(1, number(request.query_params.get("limit"), 10, 1000))
        before: Any = request.query_params.get("before")
        if request.method == "POST":
            body = await self._door.body(request, HistoryIn)
            limit, before = body.limit or 10, body.before
        asks = await waiting(self._door.gateway, session.id)
        n = None if before is None else turn_of(_id_in(before), session.id)
        shown = states(_called(request), found, asks, n, limit)
        return JSON(orjson.dumps(shown))


def _called(request: Request) -> str:
    return str(request.path_params["thread"])


def _id_in(checkpoint: Any) -> str:
    """The id of a checkpoint, in any of the forms that clients send."""
    for name in ("configurable", "checkpoint_id"):
        if isinstance(checkpoint, dict):
            checkpoint = checkpoint.get(name) or checkpoint
    return checkpoint if isinstance(checkpoint, str) else ""
