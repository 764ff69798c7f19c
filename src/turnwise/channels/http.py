"""HTTP: sessions, turns, messages and events as JSON, long polling and server-sent events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import orjson
from fastapi import Query, Request, Response

from turnwise.channels.access import Principal
from turnwise.channels.bodies import JSON, body_schema
from turnwise.channels.parameters import (
    After,
    AfterEvent,
    Before,
    LastEventId,
    Limit,
    Prefer,
    SessionId,
    Superseded,
    TurnNumber,
    Wait,
    cursor_of,
    patience_of,
    wants_json,
    wants_stream,
)
from turnwise.channels.people import made
from turnwise.channels.routes import Routes, parameter, path_of, shown
from turnwise.channels.schemas import (
    EventsOut,
    MessagesOut,
    NewSession,
    SessionCreated,
    SessionIn,
    SessionOut,
    TokenOut,
    TurnIn,
    TurnOut,
    TurnsOut,
)
from turnwise.channels.sse import EventStream
from turnwise.conversation import Cursor, Status
from turnwise.conversation.cursors import MAX_NUMBER
from turnwise.errors import Forbidden, NotFound, StoreUnavailable, Unauthorized
from turnwise.timers import Alarms

_STREAM: dict[str, Any] = {
    "description": "The events as JSON, or as a stream with `Accept: text/event-stream`.",
    "content": {
        "text/event-stream": {
            "schema": {"type": "string"},
            "example": 'id: 3\nevent: delta\ndata: {"id":3,"type":"delta","turn":1,'
            '"at":"2026-01-31T12:00:00.000Z","attempt":1,"text":"Hel"}\n\n',
        }
    },
}


class HTTPChannel(Routes):
    """The HTTP channel: adds its routes, the most frequently used first, because the first match is
    taken."""

    def add_routes(self) -> None:
        self._add_turn_routes()
        self._add_reading_routes()
        self._add_session_routes()

    def _add_session_routes(self) -> None:
        body = body_schema(SessionIn)
        created = {"status_code": 201, "response_model": SessionCreated}
        one = {"response_model": SessionOut}
        bad, missing = (400, 401, 408, 413, 415, 422), (401, 404, 422)
        fresh = body_schema(NewSession)
        self.add("POST", "/sessions", self.create, *bad, 403, openapi_extra=fresh, **created)
        path = "/sessions/{session_id}"
        self.add("GET", path, self.session, *missing, **one)
        self.add("PATCH", path, self.update, *bad, 403, 404, openapi_extra=body, **one)
        self.add("DELETE", path, self.delete, *missing, status_code=204, response_class=Response)
        token = {"response_model": TokenOut}
        self.add("POST", path + "/token", self.refresh, *missing, **token)
        self.add("POST", path + "/reset", self.reset, *missing, **one)

    def _add_turn_routes(self) -> None:
        path = "/sessions/{session_id}/turns"
        one = {"response_model": TurnOut}
        body = body_schema(TurnIn)
        body["parameters"] = [
            parameter("path", "session_id", "The session's id.", "1yKk2XnB3Hq0dG9c"),
            parameter(
                "header", "Prefer", "`wait=20`: respond when the turn has ended, or after 20 s."
            ),
            parameter("header", "Idempotency-Key", "One key creates one turn.", maxLength=255),
        ]
        done = {200: {"model": TurnOut, **_STREAM}}
        bad = (400, 401, 404, 408, 409, 413, 415, 422)
        self.add(
            "POST", path, self.submit, *bad,
            status_code=202, openapi_extra=body, responses=done, **one,
        )  # fmt: skip
        self.add("GET", path, self.turns, 401, 404, 422, response_model=TurnsOut)
        self.add("GET", path + "/{n}", self.turn, 401, 404, 422, **one)
        self.add("POST", path + "/{n}/cancel", self.cancel, 401, 404, 422, **one)

    def _add_reading_routes(self) -> None:
        path = "/sessions/{session_id}/"
        history = {"response_model": MessagesOut}
        self.add("GET", path + "messages", self.messages, 401, 404, 422, **history)
        events = {200: {"model": EventsOut, **_STREAM}}
        self.add("GET", path + "events", self.events, 401, 404, 422, responses=events)

    # Sessions

    async def create(self, request: Request) -> Response:
        """Create a session; the response contains its token."""
        principal = await self.access.to_create(request)
        gateway = self._gateway()
        # Without anybody to whom it belongs, a key would give one caller's token to another.
        keyed = principal.owner is not None or principal.scope
        key = request.headers.get("idempotency-key") if keyed else None
        with self.access.creating(request, principal):
            body = await self.body(request, NewSession)
            if not principal.key and (body.private or body.messages):
                raise Forbidden("Only an API key gives what is private, or a history.")
            session = await gateway.create(
                name=body.name, metadata=body.metadata, ttl=self._lifetime(body, principal),
                owner=principal.owner, private=body.private, policy=body.policy,
                messages=[message.plain() for message in body.messages],
                key=key, scope=principal.scope,
            )  # fmt: skip
        where = f"{path_of(request.scope)}/{quote(session.id, safe='')}"
        return made(session, principal, gateway, where)

    def _lifetime(self, body: SessionIn, principal: Principal) -> float | None:
        """The `ttl` that a caller may choose: only a trusted one a longer one than the default."""
        if body.ttl is None or principal.trusted:
            return body.ttl
        return min(body.ttl, self._gateway().session_ttl)

    async def session(self, request: Request, session_id: SessionId) -> Response:
        """The session: its name, its status, its numbers of turns and messages."""
        principal = await self.access.to_session(request, session_id)
        return JSON(shown(await self.check(principal, session_id), principal))

    async def update(self, request: Request, session_id: SessionId) -> Response:
        """Change name, metadata or ttl; omitted fields keep their values."""
        principal = await self.enter(request, session_id)
        with self.access.speaking(principal, session_id):
            body = await self.body(request, SessionIn)
            changes = body.model_dump(exclude_unset=True, exclude={"when_busy", "settle"})
            if "private" in changes and not principal.key:
                raise Forbidden("Only an API key writes what is private.")
            if "when_busy" in body.model_fields_set:
                changes["policy"] = body.policy
            if "ttl" in changes:
                changes["ttl"] = self._lifetime(body, principal)
            session = await self._gateway().update(session_id, changes)
        return JSON(shown(session, principal))

    async def refresh(self, request: Request, session_id: SessionId) -> Response:
        """Create a new token; all older tokens become invalid."""
        principal = await self.access.to_session(request, session_id)
        token = await self._gateway().refresh(
            session_id, principal.generation, owner=principal.owner
        )
        return JSON(orjson.dumps({"token": token}))

    async def reset(self, request: Request, session_id: SessionId) -> Response:
        """Delete messages, state and mailbox; stop the running turn. Event numbers continue."""
        principal = await self.enter(request, session_id)
        session = await self._gateway().reset(session_id)
        return JSON(shown(session, principal))

    async def delete(self, request: Request, session_id: SessionId) -> Response:
        """Delete the session and all its data."""
        await self.enter(request, session_id)
        await self._gateway().delete(session_id)
        return Response(status_code=204)

    # Turns

    async def submit(self, request: Request) -> Response:
        """Submit a message. It is stored before the response is sent; turns run in order."""
        # OpenAPI describes its parameters by hand: resolving them costs more than everything else.
        session_id = request.path_params["session_id"]
        principal = await self.access.to_session(request, session_id)
        where = path_of(request.scope)
        patience = patience_of(request.headers.get("prefer"))
        with self.access.speaking(principal, session_id) as counted:
            body = await self.body(request, TurnIn)
            message = {**body.more(), "key": request.headers.get("idempotency-key")}
            if not wants_stream(request):
                taking = self._take(principal, session_id, body.text, message, where, patience)
                response, counted.counts = await taking
                return response
            submitted, reader = await self._gateway().submit_and_follow(
                session_id, body.text, **message, generation=principal.generation,
                owner=principal.owner,
            )  # fmt: skip
            counted.counts = submitted.created
        return EventStream(
            reader,
            send_timeout=self.settings.send_timeout,
            expires=principal.expires,
            headers={"Location": f"{where}/{submitted.turn.n}"},
        )

    async def take(
        self,
        principal: Principal,
        session_id: str,
        text: str,
        message: dict[str, Any],
        where: str,
        patience: float | None,
    ) -> Response:
        """Submit a message that is counted here; the answer to its request at `where`."""
        with self.access.speaking(principal, session_id) as counted:
            response, counted.counts = await self._take(
                principal, session_id, text, message, where, patience
            )
        return response

    async def _take(
        self,
        principal: Principal,
        session_id: str,
        text: str,
        message: dict[str, Any],
        where: str,
        patience: float | None,
    ) -> tuple[Response, bool]:
        gateway = self._gateway()
        message["generation"], message["owner"] = principal.generation, principal.owner
        if patience is None:
            submitted = await gateway.submit(session_id, text, **message)
            record = submitted.turn
        else:
            submitted, record, _ = await gateway.submit_and_wait(
                session_id, text, timeout=patience, **message
            )
        status = 202 if record.open else 200
        location = f"{where}/{record.n}"
        return JSON(record.encode(), status, Location=location), submitted.created

    # For the fast path

    @property
    def alarms(self) -> Alarms:
        """The timers of this process."""
        return self._gateway().hub.alarms

    def is_open(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request with these headers can be judged by its token and its size alone."""
        length = headers[b"content-length"]
        return (
            not self.access.by_host
            and headers.get(b"authorization", b"")[:7].lower() == b"bearer "
            and self.access.knows(headers[b"authorization"])
            and length.isdigit()
            and int(length) <= self.settings.max_body
        )

    def principal(self, session_id: str, authorization: bytes) -> Principal:
        """The caller, by an Authorization header. Raises Unauthorized, NotFound."""
        return self.access.by_token(session_id, authorization[7:].strip().decode("latin-1"))

    async def turn(
        self, request: Request, session_id: SessionId, n: TurnNumber, prefer: Prefer = None
    ) -> Response:
        """One turn: its status, its message, its reply."""
        await self.enter(request, session_id)
        record = await self._gateway().wait(session_id, n, patience_of(prefer) or 0.0)
        return JSON(record.encode())

    async def cancel(self, request: Request, session_id: SessionId, n: TurnNumber) -> Response:
        """Withdraw a queued turn or stop a running one; a finished turn does not change."""
        await self.enter(request, session_id)
        record = await self._gateway().cancel(session_id, n)
        return JSON(record.encode())

    async def turns(
        self,
        request: Request,
        session_id: SessionId,
        status: Status | None = None,
        before: Before = None,
        after: After = None,
        limit: Limit = 50,
        superseded: Superseded = False,
    ) -> Response:
        """Turns in order: the latest ones, or those after or before a number."""
        await self.enter(request, session_id)
        records, has_more = await self._gateway().turns(
            session_id, status=status, before=before, after=after, limit=limit,
            superseded=superseded,
        )  # fmt: skip
        turns = [orjson.Fragment(record.encode()) for record in records]
        return JSON(orjson.dumps({"turns": turns, "has_more": has_more}))

    # Reading

    async def messages(
        self,
        request: Request,
        session_id: SessionId,
        before: Before = None,
        after: After = None,
        limit: Limit = 50,
        superseded: Superseded = False,
    ) -> Response:
        """The history, oldest first, and the open turns: a consistent snapshot."""
        await self.enter(request, session_id)
        history = await self._gateway().history(
            session_id, before=before, after=after, limit=limit, superseded=superseded
        )
        content = {
            "messages": [orjson.Fragment(message) for message in history.messages_json],
            "has_more": history.has_more,
            "open": [orjson.Fragment(record.encode()) for record in history.open],
            "asks": history.asks,
            "cursor": str(Cursor(history.cursor, history.tag)),
        }
        return JSON(orjson.dumps(content))

    async def events(
        self,
        request: Request,
        session_id: SessionId,
        after: AfterEvent = None,
        turn: Annotated[int | None, Query(ge=1, le=MAX_NUMBER)] = None,
        wait: Wait = 0.0,
        limit: Limit = 100,
        last_event_id: LastEventId = None,
    ) -> Response:
        """Events after a cursor: a stream, or one page with `Accept: application/json`.

        If `Last-Event-ID` and `after` differ, the header is used: it is the newer value.
        """
        principal = await self.access.to_session(request, session_id)
        await self.check(principal, session_id)
        cursor = cursor_of(last_event_id, after)
        reader = self._gateway().follow(
            session_id, cursor, turn=turn, generation=principal.generation
        )
        if not wants_json(request):
            return EventStream(
                reader, send_timeout=self.settings.send_timeout, expires=principal.expires
            )
        with reader:
            found = (await reader.read(wait))[:limit]
        if not found and reader.closed is not None:  # an empty page would mean: no events
            if reader.closed == "gone":
                raise NotFound("This session does not exist.")
            if reader.closed == "token":
                raise Unauthorized("The token has expired or was replaced.")
            raise StoreUnavailable("This process is stopping: try again.")
        following = found[-1].cursor if found else max(cursor, reader.place)
        content = {"events": [orjson.Fragment(e.encoded) for e in found], "next": str(following)}
        return JSON(orjson.dumps(content))
