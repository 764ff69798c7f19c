"""Runs: a run is a turn."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import orjson
from fastapi import Request, Response
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask

from turnwise.channels.bodies import JSON
from turnwise.conversation import Answer, TurnRecord, WhenBusy
from turnwise.conversation.cursors import MAX_NUMBER
from turnwise.errors import Invalid, NotFound, StreamEnded
from turnwise.protocols.asking import asks_of, value_of
from turnwise.protocols.door import Caller, Door, number
from turnwise.protocols.following import FoldStream, Following
from turnwise.protocols.langgraph.fold import RunFold
from turnwise.protocols.langgraph.ids import run_id, turn_of
from turnwise.protocols.langgraph.messages import given, kind_of, shown, text_of
from turnwise.protocols.langgraph.states import run, state, waiting
from turnwise.protocols.past import exchanges
from turnwise.stores.records import Submitted

MODES = ["values"]
EVERY = ["values", "messages-tuple", "updates", "custom"]
"""The modes of a run in the background that names none."""
STRATEGIES: dict[str | None, WhenBusy] = {
    "reject": "reject", "interrupt": "interrupt", "rollback": "interrupt", "enqueue": "queue",
}  # fmt: skip
"""What LangGraph's strategies are here; a rollback takes the running turn back as well."""
LEFT = 2.0
"""Seconds after which the run of a client that has left is stopped, if it wants that."""


class RunIn(BaseModel):
    assistant_id: str = Field("turnwise", max_length=200)
    input: Any = None
    command: dict[str, Any] | None = None
    stream_mode: str | list[str] | None = None
    metadata: dict[str, Any] | None = None
    config: dict[str, Any] | None = None
    context: Any = None
    checkpoint: dict[str, Any] | None = None
    checkpoint_id: str | None = None
    multitask_strategy: str | None = None
    on_disconnect: str | None = None
    if_not_exists: str | None = None

    @property
    def modes(self) -> list[str]:
        """In which modes it is streamed."""
        modes = self.stream_mode
        return [modes] if isinstance(modes, str) else modes or MODES

    @property
    def begins_at(self) -> str:
        """The checkpoint from which it begins, if it names one."""
        given = self.checkpoint_id or (self.checkpoint or {}).get("checkpoint_id")
        return str(given) if given else ""

    @property
    def messages(self) -> list[Mapping[str, Any]]:
        """What is said. Raises Invalid."""
        found: Any = self.input.get("messages") if isinstance(self.input, dict) else self.input
        if isinstance(found, str):
            return [{"type": "human", "content": found}]
        if isinstance(found, Mapping):
            found = [found]
        if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
            raise Invalid("input.messages is a list of messages.")
        return found


class Runs:
    """Makes, joins, follows and cancels runs."""

    def __init__(self, door: Door) -> None:
        self._door = door
        runs, one = "/threads/{thread}/runs", "/threads/{thread}/runs/{run}"
        for prefix in (runs, "/runs"):
            door.add("POST", prefix + "/stream", self.stream)
            door.add("POST", prefix + "/wait", self.wait)
            door.add("POST", prefix, self.start)
        door.add("GET", runs, self.list)
        door.add("GET", one, self.show)
        door.add("GET", one + "/stream", self.follow)
        door.add("GET", one + "/join", self.join)
        door.add("POST", one + "/cancel", self.cancel)
        door.add("DELETE", one, self.delete)

    async def _begin(
        self, request: Request, modes: list[str] = MODES
    ) -> tuple[Caller, str, RunIn, Submitted]:
        caller = await self._door.caller(request)
        body = await self._door.body(request, RunIn)
        body.stream_mode = body.stream_mode or modes
        name = request.path_params.get("thread")
        if name is None:
            said = _said(body.messages)
            before = [m for one in body.messages if one is not said and (m := given(one))]
            name = (await caller.create(messages=before, alone=True)).id
            session_id = name
        else:
            session_id = await caller.session_id(name)
            try:
                await caller.check(session_id)
            except NotFound:
                if body.if_not_exists != "create":
                    raise
                await caller.create(name)
        return caller, name, body, await self._submit(caller, session_id, body)

    async def _submit(self, caller: Caller, session_id: str, body: RunIn) -> Submitted:
        note: dict[str, Any] = {
            "door": "langgraph", "assistant": body.assistant_id, "metadata": body.metadata,
            "modes": body.modes, "strategy": body.multitask_strategy,
            "config": body.config, "context": body.context,
        }  # fmt: skip
        more: dict[str, Any] = {"note": {name: value for name, value in note.items() if value}}
        more["key"] = caller.request.headers.get("idempotency-key")
        if body.command is not None and "resume" in body.command:
            answers = await self._resumed(session_id, body.command["resume"])
            return await caller.submit(session_id, "", answers=answers, **more)
        known = await self._known(session_id, body, more["key"])
        if known is not None:
            return Submitted(known, False)
        replaces = await self._behind(session_id, body)
        if body.input is None:
            if replaces is None:
                raise Invalid("A run without input needs a checkpoint that is not the last one.")
            return await caller.again(session_id, replaces, key=more["key"], modes=body.modes)
        messages = body.messages
        if messages and kind_of(messages[-1]) == "tool":
            results = {
                str(one.get("tool_call_id")): one.get("content")
                for one in messages
                if kind_of(one) == "tool"
            }
            asks = await asks_of(self._door.gateway, session_id, results)
            answers = [Answer(id, value_of(asks[id], value)) for id, value in results.items()]
            return await caller.submit(session_id, "", answers=answers, **more)
        said = _said(messages)
        text, files = text_of(said)
        id = said.get("id")
        if isinstance(id, str):
            more["note"]["id"] = id
            more["key"] = more["key"] or _key(id, text, body)
        more["when_busy"] = STRATEGIES.get(body.multitask_strategy)
        if body.multitask_strategy == "rollback" and replaces is None:
            replaces = await self._running(session_id)
        return await caller.submit(session_id, text, attachments=files, replaces=replaces, **more)

    async def _known(self, session_id: str, body: RunIn, key: str | None) -> TurnRecord | None:
        """The turn that this run began when it was sent before: what it takes back is found by what
        is there now, and would be another turn this time."""
        if body.multitask_strategy != "rollback" and not body.begins_at:
            return None
        text = None
        if body.input is not None and body.messages and kind_of(body.messages[-1]) != "tool":
            said = _said(body.messages)
            text, id = text_of(said)[0], said.get("id")
            if isinstance(id, str):
                key = key or _key(id, text, body)
        if key is None:
            return None
        try:
            known = await self._door.gateway.turn_by_key(session_id, key)
        except NotFound:
            return None
        same = text is None or (known.message is not None and known.message.text == text)
        return known if same else None

    async def _running(self, session_id: str) -> int | None:
        """The turn that runs: if it is taken back, nothing of it stays, nor of those that wait."""
        history = await self._door.gateway.history(session_id, limit=1)
        return next((one.n for one in history.open if one.status == "running"), None)

    async def _behind(self, session_id: str, body: RunIn) -> int | None:
        """The turn that follows the checkpoint which the run begins from, if there is one: it is
        taken back."""
        if not body.begins_at:
            return None
        n = turn_of(body.begins_at, session_id)
        found = await exchanges(self._door.gateway, session_id)
        return next((one.n for one in found if one.n > n), None)

    async def _resumed(self, session_id: str, resume: Any) -> list[Answer]:
        """The answers of a command: one value for the open ask, or several by their ids."""
        asks = await waiting(self._door.gateway, session_id)
        if isinstance(resume, dict) and resume and set(resume) <= asks:
            values = resume
        elif asks:
            history = await self._door.gateway.history(session_id, limit=1)
            values = {list(history.asks)[-1]: resume}
        else:
            raise Invalid("Nothing waits for an answer.")
        found = await asks_of(self._door.gateway, session_id, values)
        return [Answer(id, value_of(found[id], value)) for id, value in values.items()]

    # New runs

    async def stream(self, request: Request) -> Response:
        """A run as events."""
        self._door.check_stream(request)
        caller, name, body, submitted = await self._begin(request)
        response = self._stream(caller, name, submitted.turn, body.modes)
        if body.on_disconnect == "cancel":
            response.background = BackgroundTask(self._leave, submitted.turn, response.following)
        return response

    def _stream(
        self, caller: Caller, name: str, record: TurnRecord, modes: list[str], skip: int = 0
    ) -> FoldStream:
        fold = RunFold(record, modes, partial(self._before, record.session))
        return self._door.stream(caller, record, fold, skip=skip, headers=_where(name, record))

    async def _before(self, session_id: str, n: int) -> Sequence[dict[str, Any]]:
        """What was said before the answer of turn `n`."""
        found = await exchanges(self._door.gateway, session_id)
        return shown([one if one.n < n else one.asked for one in found if one.n <= n])

    async def _leave(self, record: TurnRecord, following: Following) -> None:
        """Stop the run of a client that has left and does not come back."""
        if following.closed != "left":
            return
        await asyncio.sleep(LEFT)
        gateway = self._door.gateway
        if not gateway.hub.shut and not gateway.hub.is_followed(record.session, record.n):
            await gateway.cancel(record.session, record.n, patience=0.0)

    async def wait(self, request: Request) -> Response:
        """A run's values, when it has ended."""
        _, name, _, submitted = await self._begin(request)
        return await self._values(name, submitted.turn, _where(name, submitted.turn))

    async def _values(self, name: str, record: TurnRecord, headers: dict[str, str]) -> Response:
        gateway = self._door.gateway
        record = await gateway.wait(record.session, record.n, None)
        if record.open:
            raise StreamEnded()
        if record.error is not None:
            error = {"error": record.error.code, "message": record.error.message}
            return JSON(orjson.dumps({"__error__": error}), 200, **headers)
        found = [one for one in await exchanges(gateway, record.session) if one.n <= record.n]
        asks = await waiting(gateway, record.session)
        return JSON(orjson.dumps(state(name, found, asks)["values"]), 200, **headers)

    async def start(self, request: Request) -> Response:
        """A run in the background."""
        _, name, _, submitted = await self._begin(request, EVERY)
        record = submitted.turn
        body = run(name, record, run_id(record.session, record.n))
        return JSON(orjson.dumps(body), 200, **_where(name, record))

    # Runs that there are

    async def _named(self, request: Request) -> tuple[Caller, str, TurnRecord]:
        caller = await self._door.caller(request)
        name = str(request.path_params["thread"])
        session = await caller.session(name)
        n = turn_of(request.path_params["run"], session.id)
        return caller, name, await self._door.gateway.turn(session.id, n)

    async def list(self, request: Request) -> Response:
        """The thread's runs, the newest first."""
        caller = await self._door.caller(request)
        name = str(request.path_params["thread"])
        session = await caller.session(name)
        limit = max(1, number(request.query_params.get("limit"), 10, 1000))
        first = max(0, number(request.query_params.get("offset"), 0, 10_000))
        records, _ = await self._door.gateway.turns(session.id, limit=first + limit)
        runs = [run(name, one, run_id(session.id, one.n)) for one in reversed(records)]
        status = request.query_params.get("status")
        runs = [one for one in runs if status in (None, one["status"])]
        return JSON(orjson.dumps(runs[first : first + limit]))

    async def show(self, request: Request) -> Response:
        """One run."""
        _, name, record = await self._named(request)
        return JSON(orjson.dumps(run(name, record, request.path_params["run"])))

    async def follow(self, request: Request) -> Response:
        """A run's events, from their start or behind Last-Event-ID, in its own modes or others."""
        caller, name, record = await self._named(request)
        asked = request.query_params.getlist("stream_mode")
        modes = [mode for one in asked for mode in one.split(",") if mode]
        modes = modes or record.note.get("modes") or MODES
        self._door.check_stream(request)
        skip = number(request.headers.get("last-event-id"), -1, MAX_NUMBER) + 1
        return self._stream(caller, name, record, modes, skip)

    async def join(self, request: Request) -> Response:
        """A run's values, when it has ended."""
        _, name, record = await self._named(request)
        return await self._values(name, record, {})

    async def cancel(self, request: Request) -> Response:
        """Stop or withdraw a run."""
        _, _, record = await self._named(request)
        wait = request.query_params.get("wait", "").lower() in ("1", "true")
        patience = 10.0 if wait else 0.0
        await self._door.gateway.cancel(record.session, record.n, patience=patience)
        return Response(status_code=204 if wait else 202)

    async def delete(self, request: Request) -> Response:
        """Stop a run; what it has said stays in the thread."""
        _, _, record = await self._named(request)
        await self._door.gateway.cancel(record.session, record.n)
        return Response(status_code=204)


def _said(messages: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The last message of a person. Raises Invalid."""
    said = [one for one in messages if kind_of(one) == "human"]
    if said:
        return said[-1]
    raise Invalid("input.messages has no message of a person's.")


def _where(name: str, record: TurnRecord) -> dict[str, str]:
    """Where a run is found, relative to the root of this API, as its clients want it."""
    path = f"/threads/{quote(name, safe='')}/runs/{run_id(record.session, record.n)}"
    return {"Location": f"{path}/stream", "Content-Location": path}


def _key(id: str, text: str, body: RunIn) -> str:
    """The idempotency key of a message with an id of the client's."""
    return "langgraph " + sha256(f"{id}\0{text}\0{body.begins_at}".encode()).hexdigest()
