"""Routes: what all parts of the HTTP channel share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import orjson
from fastapi import APIRouter, Request
from starlette.types import Scope

from turnwise.channels.access import Access, Principal
from turnwise.channels.bodies import M, read_body
from turnwise.channels.problems import TITLES, ProblemRoute
from turnwise.channels.schemas import Problem
from turnwise.conversation import Session
from turnwise.gateway.gateway import Gateway
from turnwise.settings import Settings


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    content = {"application/problem+json": {"schema": Problem.model_json_schema()}}
    return {status: {"description": TITLES[status], "content": content} for status in statuses}


class Routes:
    """Adds routes to an application's router."""

    def __init__(
        self,
        routes: APIRouter,
        gateway: Callable[[], Gateway],
        access: Access,
        settings: Settings,
    ) -> None:
        self._routes = routes
        self._gateway = gateway
        self.access = access
        self.settings = settings
        self.add_routes()

    def add_routes(self) -> None:
        """Add the routes of this part."""

    def add(self, method: str, path: str, endpoint: Any, *problems: int, **more: Any) -> None:
        """Add a route, with the problems that it answers beside 429 and 503."""
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

    async def enter(self, request: Request, session_id: str) -> Principal:
        """The caller, which may use the session. Raises Unauthorized, NotFound."""
        principal = await self.access.to_session(request, session_id)
        await self.check(principal, session_id)
        return principal

    async def check(self, principal: Principal, session_id: str) -> Session:
        """The session must exist, be its owner's, and the token of its current generation."""
        return await self._gateway().session(
            session_id, principal.generation, owner=principal.owner
        )

    async def body(self, request: Request, model: type[M]) -> M:
        """The request's body."""
        settings, alarms = self.settings, self._gateway().hub.alarms
        return await read_body(
            request, model, alarms, limit=settings.max_body, timeout=settings.body_timeout
        )


def shown(session: Session, principal: Principal) -> bytes:
    """A session as this caller sees it."""
    more = {"private": session.private} if principal.key and session.private else {}
    return orjson.dumps({**session.as_dict(), **more})


def parameter(
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
