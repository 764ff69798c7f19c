"""HTTP: an owner's sessions, taking back what was said, and what only hosts do."""

from __future__ import annotations

from datetime import UTC
from typing import Annotated, Any
from urllib.parse import quote

import orjson
from fastapi import Header, Path, Query, Request, Response

from turnwise.channels.access import Principal
from turnwise.channels.bodies import JSON, body_schema
from turnwise.channels.parameters import Limit, Prefer, SessionId, TurnNumber, patience_of
from turnwise.channels.routes import Routes, parameter, path_of, shown
from turnwise.channels.schemas import (
    ChangeIn,
    FeedbackIn,
    ForkIn,
    OwnerIn,
    SessionCreated,
    SessionOut,
    SessionsOut,
    StoppedOut,
    TurnOut,
    WakeIn,
)
from turnwise.conversation import Session, TurnRecord
from turnwise.errors import Forbidden, NotFound
from turnwise.gateway.gateway import Gateway

Key = Annotated[
    str | None,
    Header(alias="Idempotency-Key", max_length=255, description="Once for one key."),
]
MessageId = Annotated[str, Path(max_length=100, description="The message's id.")]
Next = Annotated[
    str | None, Query(max_length=1000, description="The `next` of the page before this one.")
]
Part = Annotated[str, Query(max_length=200, description="A part of the name.")]


class PeopleChannel(Routes):
    """Whose sessions they are, and what people expect to be able to do with them."""

    def add_routes(self) -> None:
        one, path = {"response_model": TurnOut}, "/sessions/{session_id}"
        turn = path + "/turns/{n}"
        bad = (400, 401, 404, 408, 409, 413, 415, 422)
        again = {"status_code": 202, "responses": {200: {"model": TurnOut}}}
        self.add("GET", "/sessions", self.list, 401, 422, response_model=SessionsOut)
        self.add("POST", turn + "/again", self.again, 401, 404, 409, 422, **again, **one)
        self.add("PATCH", turn, self.change, *bad, openapi_extra=body_schema(ChangeIn), **one)
        stopped: dict[str, Any] = {"response_model": StoppedOut}
        self.add("POST", path + "/stop", self.stop, 401, 404, 422, **stopped)
        forked = {"status_code": 201, "response_model": SessionCreated}
        self.add(
            "POST", path + "/fork", self.fork, *bad, openapi_extra=body_schema(ForkIn), **forked
        )
        feedback = {"status_code": 204, "openapi_extra": body_schema(FeedbackIn)}
        self.add(
            "PUT", path + "/messages/{message_id}/feedback", self.judge, *bad,
            response_class=Response, **feedback,
        )  # fmt: skip
        self._add_host_routes(path, bad)

    def _add_host_routes(self, path: str, bad: tuple[int, ...]) -> None:
        woken = {"status_code": 202, "openapi_extra": body_schema(WakeIn)}
        timed = {204: {"description": "Its time is still to come."}}
        self.add(
            "POST", path + "/wake", self.wake, *bad, 403,
            responses=timed, response_model=TurnOut, **woken,
        )  # fmt: skip
        key = [parameter("path", "key", "The key of a timer.", "tea")]
        self.add(
            "DELETE", path + "/wake/{key:path}", self.unwake, 401, 403, 404, 422,
            status_code=204, response_class=Response, openapi_extra={"parameters": key},
        )  # fmt: skip
        adopted = {"response_model": SessionOut, "openapi_extra": body_schema(OwnerIn)}
        self.add("POST", path + "/owner", self.adopt, *bad, 403, **adopted)

    # Owners

    async def list(
        self, request: Request, limit: Limit = 50, before: Next = None, q: Part = ""
    ) -> Response:
        """The caller's sessions, the last used first. An API key without an owner lists all, in the
        order of their ids."""
        principal = await self.access.to_list(request)
        page = await self._gateway().sessions(principal.owner, limit=limit, before=before, q=q)
        sessions = [orjson.Fragment(shown(session, principal)) for session in page.sessions]
        content = {"sessions": sessions, "has_more": page.has_more, "next": page.next}
        return JSON(orjson.dumps(content))

    async def adopt(self, request: Request, session_id: SessionId) -> Response:
        """Give a session without an owner to one, who never changes. Only for API keys."""
        principal = await self.access.as_host(request, session_id)
        body = await self.body(request, OwnerIn)
        gateway = self._gateway()
        if principal.owner is not None:
            session = await gateway.session(session_id)
            if session.owner not in (None, principal.owner):
                raise NotFound("This session does not exist.")
            if body.owner != principal.owner:
                raise Forbidden("An owner adopts only for itself.")
        session = await gateway.adopt(session_id, body.owner)
        return JSON(shown(session, principal))

    # Taking back

    async def again(
        self,
        request: Request,
        session_id: SessionId,
        n: TurnNumber,
        prefer: Prefer = None,
        key: Key = None,
    ) -> Response:
        """Answer a turn anew: it and all behind it are taken back, and its message is submitted
        once more, as a new turn."""
        principal = await self.access.to_session(request, session_id)
        with self.access.speaking(principal, session_id) as counted:
            submitted = await self._gateway().again(
                session_id, n, key=key, generation=principal.generation, owner=principal.owner
            )
            counted.counts = submitted.created
        where = f"{path_of(request.scope).rsplit('/', 2)[0]}/{submitted.turn.n}"
        return await self._turn(submitted.turn, where, prefer)

    async def _turn(self, record: TurnRecord, where: str, prefer: str | None) -> Response:
        """A turn that was submitted, when it has ended if the client waits for that."""
        patience = patience_of(prefer)
        if patience is not None:
            record = await self._gateway().wait(record.session, record.n, patience)
        return JSON(record.encode(), 202 if record.open else 200, Location=where)

    async def change(self, request: Request, session_id: SessionId, n: TurnNumber) -> Response:
        """Change the text of a message that waits."""
        principal = await self.enter(request, session_id)
        with self.access.speaking(principal, session_id):
            body = await self.body(request, ChangeIn)
            record = await self._gateway().change(session_id, n, body.text)
        return JSON(record.encode())

    async def stop(self, request: Request, session_id: SessionId, key: Key = None) -> Response:
        """Stop the running turn and withdraw all that wait, in one act."""
        await self.enter(request, session_id)
        records = await self._gateway().stop(session_id, key=key)
        return JSON(orjson.dumps({"turns": [orjson.Fragment(r.encode()) for r in records]}))

    async def fork(self, request: Request, session_id: SessionId, key: Key = None) -> Response:
        """A new session of the same owner, which is this one up to a turn."""
        principal = await self.enter(request, session_id)
        body = await self.body(request, ForkIn)
        gateway = self._gateway()
        with self.access.creating(request, principal):
            session = await gateway.fork(session_id, body.at, name=body.name, key=key)
        where = f"{path_of(request.scope).rsplit('/', 2)[0]}/{quote(session.id, safe='')}"
        return made(session, principal, gateway, where)

    async def judge(
        self, request: Request, session_id: SessionId, message_id: MessageId
    ) -> Response:
        """Keep a person's feedback with a message."""
        principal = await self.enter(request, session_id)
        with self.access.speaking(principal, session_id):
            body = await self.body(request, FeedbackIn)
            await self._gateway().judge(session_id, message_id, body.value, body.comment)
        return Response(status_code=204)

    # The bot speaks first

    async def wake(self, request: Request, session_id: SessionId, key: Key = None) -> Response:
        """A turn without a message of a person, now or at a time. Only for API keys."""
        principal = await self.access.as_host(request, session_id)
        body = await self.body(request, WakeIn)
        at = body.at
        if at is not None and at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
        record = await self._gateway().wake(
            session_id,
            body.reason,
            at=None if at is None else at.timestamp(),
            key=key,
            owner=principal.owner,
        )
        if record is None:
            return Response(status_code=204)
        where = f"{path_of(request.scope).rsplit('/', 1)[0]}/turns/{record.n}"
        return await self._turn(record, where, None)

    async def unwake(self, request: Request, session_id: SessionId) -> Response:
        """Forget what was to be said at a time. Only for API keys."""
        principal = await self.access.as_host(request, session_id)
        await self.check(principal, session_id)
        await self._gateway().unwake(session_id, request.path_params["key"])
        return Response(status_code=204)


def made(session: Session, principal: Principal, gateway: Gateway, where: str) -> Response:
    """A session that was created, with its token, unless a login decides."""
    content = orjson.loads(shown(session, principal))
    if principal.needs_token:
        content["token"] = gateway.token(session)
    return JSON(orjson.dumps(content), 201, Location=where)
