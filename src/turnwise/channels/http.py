"""HTTP: sessions, turns, messages and events as JSON, long polling and server-sent events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any
from urllib.parse import quote

import orjson
from fastapi import APIRouter, Query, Request, Response
from starlette.types import Scope

from turnwise.channels.access import Access, Principal
from turnwise.channels.bodies import JSON, M, body_schema, read_body
from turnwise.channels.parameters import (
    After,
    AfterEvent,
    Before,
    LastEventId,
    Limit,
    Prefer,
    SessionId,
    TurnNumber,
    Wait,
    cursor_of,
    patience_of,
    wants_json,
    wants_stream,
)
from turnwise.channels.problems import TITLES, ProblemRoute
from turnwise.channels.schemas import (
    EventsOut,
    MessagesOut,
    Problem,
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
from turnwise.errors import NotFound, StoreUnavailable, Unauthorized
from turnwise.gateway.gateway import Gateway
from turnwise.settings import Settings
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


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {"application/problem+json": {"schema": Problem.model_json_schema()}}
    return {status: {"description": TITLES[status], "content": content} for status in statuses}


class HTTPChannel:
    """The HTTP channel: adds its routes to `routes`, the most frequently used first, because the
    first match is taken."""

    def __init__(
        self,
        routes: APIRouter,
        gateway: Callable[[], Gateway],
        access: Access,
        settings: Settings,
    ) -> None:
        self._routes = routes
        self._gateway = gateway
        self._access = access
        self.settings = settings
        self._add_turn_routes()
        self._add_reading_routes()
        self._add_session_routes()

    def _add(self, method: str, path: str, endpoint: Any, *problems: int, **more: Any) -> None:
        responses = {**_problems(*problems, 429, 503), **more.pop("responses", {})}
        self._routes.add_api_route(
            path,
            endpoint,
            methods=[method],
            responses=responses,
            tags=["sessions"],
            route_class_override=ProblemRoute,
            **more,
        )

    def _add_session_routes(self) -> None:
        body = body_schema(SessionIn)
        made = {"status_code": 201, "response_model": SessionCreated}
        one = {"response_model": SessionOut}
        bad, missing = (400, 401, 408, 413, 415, 422), (401, 404, 422)
        self._add("POST", "/sessions", self.create, *bad, openapi_extra=body, **made)
        path = "/sessions/{session_id}"
        self._add("GET", path, self.session, *missing, **one)
        self._add("PATCH", path, self.update, *bad, 404, openapi_extra=body, **one)
        self._add("DELETE", path, self.delete, *missing, status_code=204, response_class=Response)
        token = {"response_model": TokenOut}
        self._add("POST", path + "/token", self.refresh, *missing, **token)
        self._add("POST", path + "/reset", self.reset, *missing, **one)

    def _add_turn_routes(self) -> None:
        path = "/sessions/{session_id}/turns"
        one = {"response_model": TurnOut}
        body = body_schema(TurnIn)
        body["parameters"] = [
            _parameter("path", "session_id", "The session's id.", "1yKk2XnB3Hq0dG9c"),
            _parameter(
                "header", "Prefer", "`wait=20`: respond when the turn has ended, or after 20 s."
            ),
            _parameter("header", "Idempotency-Key", "One key creates one turn.", maxLength=255),
        ]
        done = {200: {"model": TurnOut, **_STREAM}}
        bad = (400, 401, 404, 408, 409, 413, 415, 422)
        self._add(
            "POST", path, self.submit, *bad,
            status_code=202, openapi_extra=body, responses=done, **one,
        )  # fmt: skip
        self._add("GET", path, self.turns, 401, 404, 422, response_model=TurnsOut)
        self._add("GET", path + "/{n}", self.turn, 401, 404, 422, **one)
        self._add("POST", path + "/{n}/cancel", self.cancel, 401, 404, 422, **one)

    def _add_reading_routes(self) -> None:
        path = "/sessions/{session_id}/"
        history = {"response_model": MessagesOut}
        self._add("GET", path + "messages", self.messages, 401, 404, 422, **history)
        events = {200: {"model": EventsOut, **_STREAM}}
        self._add("GET", path + "events", self.events, 401, 404, 422, responses=events)

    # Sessions

    async def create(self, request: Request) -> Response:
        """Create a session; the response contains its token."""
        await self._access.to_create(request)
        gateway = self._gateway()
        with self._access.creating(request):
            body = await self._body(request, SessionIn)
            session = await gateway.create(name=body.name, metadata=body.metadata, ttl=body.ttl)
        content = {**session.as_dict(), "token": gateway.token(session)}
        where = f"{path_of(request.scope)}/{quote(session.id, safe='')}"
        return JSON(orjson.dumps(content), 201, Location=where)

    async def session(self, request: Request, session_id: SessionId) -> Response:
        """The session: its name, its status, its numbers of turns and messages."""
        principal = await self._access.to_session(request, session_id)
        session = await self._gateway().session(session_id, principal.generation)
        return JSON(orjson.dumps(session.as_dict()))

    async def update(self, request: Request, session_id: SessionId) -> Response:
        """Change name, metadata or ttl; omitted fields keep their values."""
        await self._enter(request, session_id)
        body = await self._body(request, SessionIn)
        changes = body.model_dump(exclude_unset=True)
        session = await self._gateway().update(session_id, changes)
        return JSON(orjson.dumps(session.as_dict()))

    async def refresh(self, request: Request, session_id: SessionId) -> Response:
        """Create a new token; all older tokens become invalid."""
        principal = await self._access.to_session(request, session_id)
        token = await self._gateway().refresh(session_id, principal.generation)
        return JSON(orjson.dumps({"token": token}))

    async def reset(self, request: Request, session_id: SessionId) -> Response:
        """Delete messages, state and mailbox; stop the running turn. Event numbers continue."""
        await self._enter(request, session_id)
        session = await self._gateway().reset(session_id)
        return JSON(orjson.dumps(session.as_dict()))

    async def delete(self, request: Request, session_id: SessionId) -> Response:
        """Delete the session and all its data."""
        await self._enter(request, session_id)
        await self._gateway().delete(session_id)
        return Response(status_code=204)

    # Turns

    async def submit(self, request: Request) -> Response:
        """Submit a message. It is stored before the response is sent; turns run in order."""
        # OpenAPI describes its parameters by hand: resolving them costs more than everything else.
        session_id = request.path_params["session_id"]
        principal = await self._access.to_session(request, session_id)
        where = path_of(request.scope)
        patience = patience_of(request.headers.get("prefer"))
        with self._access.speaking(principal, session_id) as counted:
            body = await self._body(request, TurnIn)
            message = {**body.more(), "key": request.headers.get("idempotency-key")}
            if not wants_stream(request):
                taking = self._take(principal, session_id, body.text, message, where, patience)
                response, counted.counts = await taking
                return response
            submitted, reader = await self._gateway().submit_and_follow(
                session_id, body.text, **message, generation=principal.generation
            )
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
        with self._access.speaking(principal, session_id) as counted:
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
        message["generation"] = principal.generation
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
            not self._access.by_host
            and headers.get(b"authorization", b"")[:7].lower() == b"bearer "
            and length.isdigit()
            and int(length) <= self.settings.max_body
        )

    def principal(self, session_id: str, authorization: bytes) -> Principal:
        """The caller, by an Authorization header. Raises Unauthorized, NotFound."""
        return self._access.by_token(session_id, authorization[7:].strip().decode("latin-1"))

    async def turn(
        self, request: Request, session_id: SessionId, n: TurnNumber, prefer: Prefer = None
    ) -> Response:
        """One turn: its status, its message, its reply."""
        await self._enter(request, session_id)
        record = await self._gateway().wait(session_id, n, patience_of(prefer) or 0.0)
        return JSON(record.encode())

    async def cancel(self, request: Request, session_id: SessionId, n: TurnNumber) -> Response:
        """Withdraw a queued turn or stop a running one; a finished turn does not change."""
        await self._enter(request, session_id)
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
    ) -> Response:
        """Turns in order: the latest ones, or those after or before a number."""
        await self._enter(request, session_id)
        records, has_more = await self._gateway().turns(
            session_id, status=status, before=before, after=after, limit=limit
        )
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
    ) -> Response:
        """The history, oldest first, and the open turns: a consistent snapshot."""
        await self._enter(request, session_id)
        history = await self._gateway().history(session_id, before=before, after=after, limit=limit)
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
        principal = await self._access.to_session(request, session_id)
        await self._gateway().session(session_id, principal.generation)
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

    # Shared

    async def _enter(self, request: Request, session_id: str) -> None:
        """Check access; the session must exist and the token be of its current generation."""
        principal = await self._access.to_session(request, session_id)
        await self._gateway().session(session_id, principal.generation)

    async def _body(self, request: Request, model: type[M]) -> M:
        settings, alarms = self.settings, self._gateway().hub.alarms
        return await read_body(
            request, model, alarms, limit=settings.max_body, timeout=settings.body_timeout
        )


def _parameter(
    where: str, name: str, text: str, example: str | None = None, **schema: Any
) -> dict[str, Any]:
    """A parameter as OpenAPI describes it."""
    found = {"in": where, "name": name, "description": text, "required": where == "path"}
    found["schema"] = {"type": "string", **schema}
    return found if example is None else {**found, "example": example}


def path_of(scope: Scope) -> str:
    """The path as the client requested it, percent-encoded, including the prefix (`root_path`) that
    a proxy or a server may have removed."""
    path, root = scope["path"], scope.get("root_path", "").rstrip("/")
    if not root and (raw := scope.get("raw_path")):
        return str(raw.decode("latin-1").rstrip("/"))
    if root and not (path == root or path.startswith(f"{root}/")):
        path = root + path
    return quote(path, safe="/:@").rstrip("/")
