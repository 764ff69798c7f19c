"""A door for other people's clients: who calls, whose session is meant, and how a turn is shown.

An id that a client has made is a name in its owner's space, so that two owners with one id have two
sessions; the id of a session of the same owner is that session itself. A trusted backend that acts
for no owner uses the ids of sessions, and a session's token opens that session.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from turnwise.channels.access import (
    LOCAL,
    Access,
    Authorize,
    Principal,
    bearer,
    decoded_owner,
)
from turnwise.channels.bodies import JSON, M, read_body
from turnwise.channels.problems import OURS, as_problem
from turnwise.conversation import (
    Attachment,
    Message,
    Session,
    TurnRecord,
    checked_session_id,
    file_path,
    named_session_id,
)
from turnwise.errors import Forbidden, Invalid, NoFileStore, NotFound, Unauthorized
from turnwise.gateway.gateway import Gateway
from turnwise.gateway.listing import SessionPage
from turnwise.protocols.fold import Fold
from turnwise.protocols.following import FoldStream, Following, check_stream
from turnwise.runtime import Runtime
from turnwise.stores.records import Submitted

INLINE = 8_192
"""Characters of a data URL that are kept with the message; longer ones become a file."""
ALONE = 3600.0
"""Seconds that the session of a turn lives that stands alone."""

CALLED = "called"
"""Where a session's private part has the name that its client gave it."""

UNEXPECTED = (TypeError, ValueError, AttributeError, KeyError, IndexError, RecursionError)

Endpoint = Callable[[Request], Awaitable[Response]]


class Door:
    """The routes of one protocol. `wrong` makes its answer of an error."""

    def __init__(
        self,
        runtime: Runtime,
        authorize: Authorize | None,
        wrong: Callable[[Exception], Response],
    ) -> None:
        self.routes = APIRouter(include_in_schema=False)
        self._runtime = runtime
        self._access = Access(lambda: runtime.gateway, runtime.settings, authorize, runtime.rates)
        self._route = _route_class(wrong)

    @property
    def gateway(self) -> Gateway:
        """Submit, follow, cancel, read."""
        return self._runtime.gateway

    def add(self, method: str, path: str, endpoint: Endpoint) -> None:
        """Add a route."""
        self.routes.add_api_route(
            path, endpoint, methods=[method], route_class_override=self._route,
            response_class=Response,
        )  # fmt: skip

    async def caller(self, request: Request) -> Caller:
        """Who calls. Raises Unauthorized."""
        tokens = [one for one in (bearer(request), request.headers.get("x-api-key")) if one]
        for token in tokens[:-1]:  # a client may send a key of its own beside the one that counts
            try:
                principal = await self._access.caller(request, token)
                return Caller(request, principal, self._access, self.gateway)
            except Unauthorized:
                pass
        principal = await self._access.caller(request, tokens[-1] if tokens else None)
        return Caller(request, principal, self._access, self.gateway)

    def check_stream(self, request: Request) -> None:
        """What would refuse a stream does so before a message is accepted. Raises TooManyStreams,
        UnsafeStream."""
        check_stream(request)
        self.gateway.hub.check_room()

    async def body(self, request: Request, model: type[M]) -> M:
        """The request's body: it may hold the whole conversation, with its files."""
        settings = self._runtime.settings
        limit = settings.max_body + 2 * settings.max_file
        return await read_body(
            request, model, self.gateway.hub.alarms, limit=limit, timeout=settings.body_timeout
        )

    def stream(
        self,
        caller: Caller,
        record: TurnRecord,
        fold: Fold,
        *,
        skip: int = 0,
        headers: dict[str, str] | None = None,
    ) -> FoldStream:
        """A turn's chunks, behind the first `skip`. Raises TooManyStreams."""
        principal = caller.principal
        following = Following(
            self.gateway, record, fold, skip=skip, generation=principal.generation
        )
        return FoldStream(
            following,
            send_timeout=self._runtime.settings.send_timeout,
            expires=principal.expires,
            headers=headers,
        )


@dataclass(frozen=True)
class Caller:
    """Who calls, and what they may do."""

    request: Request
    principal: Principal
    access: Access
    gateway: Gateway

    def acting_for(self, owner: str | None) -> Caller:
        """The same trusted backend, for an owner that it names in its protocol's own way."""
        principal = self.principal
        if owner is None or not principal.key or principal.owner is not None:
            return self
        principal = principal._replace(owner=decoded_owner(owner))
        return Caller(self.request, principal, self.access, self.gateway)

    def check_host(self) -> None:
        """Raises Forbidden for one who may not put words into a conversation that goes on: neither
        a trusted backend nor somebody at this machine."""
        if not self.principal.trusted and self.principal != LOCAL:
            raise Forbidden("Only an API key puts messages into a conversation.")

    # Sessions

    async def by_id(self, session_id: str) -> Session:
        """The session that an id of ours holds, which is never a name. Raises NotFound,
        Unauthorized."""
        principal = self.principal
        if principal.session is not None and principal.session != session_id:
            raise NotFound("This session does not exist.")
        if principal.owner is None and self.access.by_host:
            await self.access.to_session(self.request, session_id)
        return await self.check(checked_session_id(session_id))

    async def turn(self, session_id: str, n: int) -> TurnRecord:
        """A turn that an id of ours holds. Raises NotFound, Unauthorized."""
        await self.by_id(session_id)
        return await self.gateway.turn(session_id, n)

    async def begin(self, name: str) -> str:
        """The id of the session that the caller calls so, which is made if need be."""
        session_id = await self.session_id(name)
        try:
            await self.check(session_id)
        except NotFound:
            await self.create(name)
        return session_id

    async def session_id(self, name: str) -> str:
        """The id of the session that the caller calls so; it need not exist. Raises NotFound."""
        checked_session_id(name)
        principal = self.principal
        if principal.session is not None:
            if name != principal.session:
                raise NotFound("This session does not exist.")
            return name
        if principal.owner is None:
            if self.access.by_host:
                await self.access.to_session(self.request, name)
            return name
        try:
            return (await self.gateway.session(name, owner=principal.owner)).id
        except NotFound:
            return named_session_id(principal.owner, name)

    async def session(self, name: str) -> Session:
        """The session that the caller calls so. Raises NotFound, Unauthorized."""
        return await self.check(await self.session_id(name))

    async def check(self, session_id: str) -> Session:
        """The session with this id, if the caller may use it. Raises NotFound, Unauthorized."""
        return await self.gateway.session(
            session_id, self.principal.generation, owner=self.principal.owner
        )

    async def sessions(self, *, limit: int = 50, before: str | None = None) -> SessionPage:
        """The caller's sessions, the last used first; of an API key without an owner all. Raises
        Unauthorized for anybody else, also for one who is only said to be trusted."""
        principal = self.principal
        if principal.owner is None and not principal.key:
            raise Unauthorized("Listing conversations needs an owner, or an API key.")
        return await self.gateway.sessions(principal.owner, limit=limit, before=before)

    async def create(
        self,
        name: str | None = None,
        *,
        key: str | None = None,
        messages: Sequence[Message] = (),
        metadata: dict[str, Any] | None = None,
        alone: bool = False,
    ) -> Session:
        """A session of the caller's, or the one that is called so. `alone`: it is in no list, and
        lives an hour."""
        principal = self.principal
        if principal.session is not None:
            return await self.session(name or principal.session)
        session_id = None if name is None else await self.session_id(name)
        with self.access.creating(self.request, principal):
            return await self.gateway.create(
                session_id=session_id, owner=principal.owner, key=key, scope=principal.scope,
                messages=messages, metadata=metadata, unlisted=alone, ttl=ALONE if alone else None,
                private={CALLED: name} if name not in (None, session_id) else None,
            )  # fmt: skip

    # Turns

    async def submit(
        self,
        session_id: str,
        text: str,
        *,
        key: str | None = None,
        attachments: Sequence[Attachment] = (),
        **more: Any,
    ) -> Submitted:
        """Submit a message to a session, which is made if need be; takes what `Gateway.submit`
        takes. Data URLs become files of the session."""
        principal = self.principal
        if key is not None and any(len(file.url) > INLINE for file in attachments):
            try:  # a file that is kept once more has another address
                return Submitted(await self.gateway.turn_by_key(session_id, key), False)
            except NotFound:
                pass
        with self.access.speaking(principal, session_id) as counted:
            submitted = await self.gateway.submit(
                session_id,
                text,
                key=key,
                attachments=[await self._kept(session_id, file) for file in attachments],
                create=principal.session is None,
                generation=principal.generation,
                owner=principal.owner,
                **more,
            )
            counted.counts = submitted.created
        return submitted

    async def again(
        self, session_id: str, n: int, *, key: str | None = None, **noted: Any
    ) -> Submitted:
        """Have turn `n` answered anew, with `noted` in its note. Raises Superseded, TooFarBack."""
        note = {**(await self.gateway.turn(session_id, n)).note, **noted}
        principal = self.principal
        with self.access.speaking(principal, session_id) as counted:
            submitted = await self.gateway.again(
                session_id, n, key=key, note=note, generation=principal.generation,
                owner=principal.owner,
            )  # fmt: skip
            counted.counts = submitted.created
        return submitted

    async def _kept(self, session_id: str, file: Attachment) -> Attachment:
        """A file of a message; a long data URL becomes a file of the session."""
        if len(file.url) <= INLINE or not file.url.startswith("data:"):
            return file
        about, _, data = file.url.partition(",")
        content = unquote_to_bytes(data)
        if about.endswith(";base64"):
            try:
                content = b64decode(content, validate=True)
            except ValueError:
                raise Invalid("A file's data URL is not valid base64.") from None
        name = file.name or "file"
        try:
            kept = await self.gateway.files.upload(session_id, name, file.type, content)
        except NoFileStore:
            return file
        return Attachment(kept.type, f"{file_path(session_id)}{kept.id}", kept.name, kept.size)


def _route_class(wrong: Callable[[Exception], Response]) -> type[APIRoute]:
    """A route whose errors are answered in its protocol's own form."""

    class DoorRoute(APIRoute):
        def get_route_handler(self) -> Endpoint:  # type: ignore[override]
            handle = super().get_route_handler()

            async def handler(request: Request) -> Response:
                try:
                    return await handle(request)
                except ClientDisconnect:
                    return Response(status_code=499)
                except (*OURS, RequestValidationError) as error:
                    return wrong(error)
                except UNEXPECTED as error:  # a body of a shape that nobody has thought of
                    return wrong(error)

            return handler

    return DoorRoute


def number(text: str | None, default: int, most: int) -> int:
    """A number in a query or a header, or the default for anything else."""
    found = (text or "").strip()
    digits = found.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 15:
        return default
    return max(-1, min(int(found), most))


def name_of(session: Session) -> str:
    """What its client calls a session. A fork has the private part of another one, but no name."""
    name = session.private.get(CALLED)
    if not isinstance(name, str) or session.owner is None:
        return session.id
    return name if named_session_id(session.owner, name) == session.id else session.id


def as_detail(error: Exception) -> Response:
    """An error as a `detail`, as several protocols have it."""
    problem = as_problem(error)
    found = orjson.loads(problem.body)
    body = {"detail": found["detail"], "code": found["code"], "message": found["detail"]}
    headers = {name: problem.headers[name] for name in ("retry-after",) if name in problem.headers}
    return JSON(orjson.dumps(body), problem.status_code, **headers)
