"""The routes of an agent: run, connect and stop, as AG-UI and CopilotKit ask them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import orjson
from fastapi import Request, Response
from pydantic import BaseModel, Field

from turnwise.channels.bodies import JSON, validated
from turnwise.conversation import Answer, Asked
from turnwise.errors import AskClosed, Invalid, NotFound
from turnwise.protocols.ag_ui.fold import RunFold, idle, interrupt
from turnwise.protocols.ag_ui.messages import RunIn, results, snapshot, text_of
from turnwise.protocols.asking import asks_of, value_of
from turnwise.protocols.door import Caller, Door
from turnwise.protocols.past import Exchange, exchanges, find, last
from turnwise.stores.records import Submitted

AGENT = "turnwise"
UNSPOKEN = ("system", "developer", "activity")
"""Messages that nobody has said."""


class Anything(BaseModel, extra="allow"):
    method: str | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    body: dict[str, Any] = Field(default_factory=dict)


class StopIn(BaseModel):
    runId: str | None = None


class Agent:
    """Runs, connects and stops."""

    def __init__(self, door: Door) -> None:
        self._door = door
        for path in ("", "/"):
            door.add("POST", path, self.root)
        door.add("GET", "/info", self.info)
        door.add("POST", "/info", self.info)
        door.add("POST", "/agent/{agent}/run", self.run)
        door.add("POST", "/agent/{agent}/connect", self.connect)
        door.add("POST", "/agent/{agent}/stop/{thread}", self.stop)

    async def root(self, request: Request) -> Response:
        """A run; or one of CopilotKit's calls, which come here in its single-route form."""
        caller = await self._door.caller(request)
        body = await self._door.body(request, Anything)
        match body.method:
            case None:
                return await self._run(caller, validated(RunIn, body.model_extra or {}))
            case "info":
                return _info()
            case "agent/run":
                return await self._run(caller, validated(RunIn, body.body))
            case "agent/connect":
                return await self._attach(caller, validated(RunIn, body.body))
            case "agent/stop":
                thread = str(body.params.get("threadId") or "")
                return await self._stop(caller, thread, validated(StopIn, body.body).runId)
        raise Invalid(f"The method {body.method!r} is unknown.")

    async def info(self, request: Request) -> Response:
        """Which agents there are: the bot."""
        await self._door.caller(request)
        return _info()

    async def run(self, request: Request) -> Response:
        """A run."""
        caller = await self._door.caller(request)
        return await self._run(caller, await self._door.body(request, RunIn))

    async def connect(self, request: Request) -> Response:
        """What was said, and the running answer."""
        caller = await self._door.caller(request)
        return await self._attach(caller, await self._door.body(request, RunIn))

    async def stop(self, request: Request) -> Response:
        """Stop a run, or all."""
        caller = await self._door.caller(request)
        body = await self._door.body(request, StopIn)
        return await self._stop(caller, request.path_params["thread"], body.runId)

    # Runs

    async def _run(self, caller: Caller, body: RunIn) -> Response:
        self._door.check_stream(caller.request)
        session_id = await caller.begin(body.threadId)
        try:
            await self._door.gateway.turn_by_key(session_id, _key(body))
        except NotFound:
            submitted = await self._submit(caller, session_id, body)
            if submitted is None:
                return await self._attach(caller, body)
            before = partial(self._before, session_id)
            fold = RunFold(body.threadId, body.runId, before)
            return self._door.stream(caller, submitted.turn, fold)
        return await self._attach(caller, body)

    async def _submit(self, caller: Caller, session_id: str, body: RunIn) -> Submitted | None:
        """The turn that a run is; None if it says nothing."""
        spoken = [one for one in body.messages if one.get("role") not in UNSPOKEN]
        last = spoken[-1] if spoken else {}
        note = {
            "door": "ag-ui", "run": body.runId, "tools": body.tools, "context": body.context,
            "state": body.state, "props": body.forwardedProps,
        }  # fmt: skip
        note = {name: value for name, value in note.items() if value}
        more: dict[str, Any] = {"key": _key(body), "note": note}
        if body.resume:
            answers = await self._resumed(session_id, body)
            return await caller.submit(session_id, "", answers=answers, **more)
        if last.get("role") == "tool":
            found = results(spoken)
            waiting = await self._waiting(session_id, found)
            asks = await asks_of(self._door.gateway, session_id, waiting)
            answers = [Answer(id, value_of(asks[id], value)) for id, value in waiting.items()]
            if not answers:
                raise AskClosed()
            return await caller.submit(session_id, "", answers=answers, **more)
        if last.get("role") != "user":
            return None
        text, files = text_of(last)
        id = last.get("id")
        known = None
        if isinstance(id, str):
            note["id"] = id
            if not await self._is_new(session_id, spoken, id):
                known = await find(self._door.gateway, session_id, id)
        if known is not None and known[0].record.note.get("run") == body.runId:
            return Submitted(known[0].record, False)  # the same request was quicker
        if known is not None and known[1].text == text:  # the page wants another answer
            return await caller.again(session_id, known[0].n, key=_key(body), run=body.runId)
        replaces = known[0].n if known is not None else None
        return await caller.submit(session_id, text, attachments=files, replaces=replaces, **more)

    async def _is_new(self, session_id: str, spoken: list[dict[str, Any]], id: str) -> bool:
        """Whether the last message comes right behind the last turn, as mostly: then it need not be
        looked for."""
        end = await last(self._door.gateway, session_id)
        if end is None:
            return True
        before = str(spoken[-2].get("id")) if len(spoken) > 1 else ""
        return end.has(before) and not end.has(id)

    async def _waiting(self, session_id: str, given: list[tuple[str, Any]]) -> dict[str, Any]:
        history = await self._door.gateway.history(session_id, limit=1)
        return {id: value for id, value in given if id in history.asks}

    async def _resumed(self, session_id: str, body: RunIn) -> list[Answer]:
        given = {one.interruptId: one for one in body.resume or ()}
        asks = await asks_of(self._door.gateway, session_id, given)
        answers = []
        for id, one in given.items():
            ask = asks[id]
            value = value_of(ask, one.payload) if one.status != "cancelled" else _declined(ask)
            answers.append(Answer(id, value))
        return answers

    # What there is

    async def _before(self, session_id: str, n: int) -> list[dict[str, Any]]:
        """What was said before the answer to turn `n`; of that only the question."""
        return _before(await exchanges(self._door.gateway, session_id), n)

    async def _attach(self, caller: Caller, body: RunIn) -> Response:
        """What was said, and then the answer of this run, or of the running one, from its first
        word."""
        self._door.check_stream(caller.request)
        session_id = await caller.session_id(body.threadId)
        try:
            await caller.check(session_id)
            found = await exchanges(self._door.gateway, session_id)
        except NotFound:
            found = []
        record = next((e.record for e in found if e.record.note.get("run") == body.runId), None)
        if record is None:
            record = next((e.record for e in found if e.record.open), None)
        if record is None:
            return await self._idle(session_id, body, found)
        fold = RunFold(
            body.threadId, body.runId, partial(self._before, session_id),
            history=_before(found, record.n), attempt=max(1, record.attempt),
        )  # fmt: skip
        return self._door.stream(caller, record, fold)

    async def _idle(self, session_id: str, body: RunIn, found: list[Exchange]) -> Response:
        interrupts = []
        if found:
            history = await self._door.gateway.history(session_id, limit=1)
            interrupts = [
                interrupt(message.ask, message.text)
                for one in found
                for message in one.replies
                if message.ask is not None
                and message.ask.id in history.asks
                and message.ask.kind != "tool"
            ]
        content = idle(body.threadId, body.runId, snapshot(found), interrupts)
        return Response(
            content, media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    async def _stop(self, caller: Caller, thread: str, run: str | None) -> Response:
        session = await caller.session(thread)
        gateway = self._door.gateway
        stopped = []
        if run is not None:
            found = await exchanges(gateway, session.id)
            stopped = [e.record for e in found if e.record.note.get("run") == run]
            for record in stopped:
                await gateway.cancel(session.id, record.n)
        else:
            stopped = await gateway.stop(session.id)
        return JSON(orjson.dumps({"stopped": bool(stopped)}))


def _before(found: Sequence[Exchange], n: int) -> list[dict[str, Any]]:
    """What was said before the answer to turn `n`, as a snapshot."""
    return snapshot([one if one.n < n else one.asked for one in found if one.n <= n])


def _key(body: RunIn) -> str:
    return f"ag-ui {body.runId}"


def _declined(ask: Asked) -> Any:
    """The answer to an ask that a person has turned down: the last choice, or nothing."""
    if ask.choices is not None:
        return ask.choices[-1]
    return {} if ask.kind == "form" else None


def _info() -> Response:
    agents = {
        name: {"name": name, "description": "A Turnwise bot.", "className": "HttpAgent"}
        for name in (AGENT, "default")
    }
    return JSON(orjson.dumps({"version": version("turnwise"), "agents": agents}))
