"""Operators: who looks after a server sees all sessions, and the whole at one moment.

An operator has one of the admin keys, or is one by the host's own rule. Beneath the operators' path
are the routes of sessions, each open to operators alone, and `now`, the overview.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from starlette.requests import HTTPConnection

from turnwise.channels.access import Access, Principal, bearer, is_one_of
from turnwise.channels.bodies import JSON
from turnwise.channels.problems import ProblemRoute
from turnwise.errors import ConfigurationError, Unauthorized
from turnwise.gateway.gateway import Gateway
from turnwise.gateway.overview import Overview
from turnwise.settings import Settings

OPERATOR = Principal(trusted=True, scope="operator", key=True)
IsOperator = Callable[[HTTPConnection], bool | Awaitable[bool]]


class OperatorAccess(Access):
    """All sessions are open to operators, and nothing to anybody else.

    `is_operator(connection)` is the host's rule; without it the settings' admin keys decide.
    """

    def __init__(
        self,
        gateway: Callable[[], Gateway],
        settings: Settings,
        is_operator: IsOperator | None = None,
    ) -> None:
        super().__init__(gateway, settings)
        self._admin_keys = settings.operators()
        self._is_operator = is_operator
        if is_operator is None and not self._admin_keys:
            raise ConfigurationError(
                "The operator's view needs TURNWISE_ADMIN_KEYS, or your own rule: "
                "turnwise.admin(runtime, authorize=...)."
            )

    async def operator(self, connection: HTTPConnection, token: str | None = None) -> Principal:
        """The caller, which is an operator. Raises Unauthorized, Forbidden."""
        if self._is_operator is None:
            given = token or bearer(connection)
            if not is_one_of(self._admin_keys, given):
                raise Unauthorized("This needs an admin key.")
            return OPERATOR
        self.check_origin(connection)  # a browser sends its cookies along from any page
        answer = self._is_operator(connection)
        verdict = await answer if inspect.isawaitable(answer) else answer
        if not isinstance(verdict, bool):
            kind = type(verdict).__name__
            raise ConfigurationError(f"authorize must return a bool, not {kind}.")
        if not verdict:
            raise Unauthorized("This is for operators.")
        return OPERATOR

    async def to_create(self, connection: HTTPConnection) -> Principal:
        return await self.operator(connection)

    async def to_list(self, connection: HTTPConnection) -> Principal:
        return await self.operator(connection)

    async def to_session(
        self, connection: HTTPConnection, session_id: str, token: str | None = None
    ) -> Principal:
        return await self.operator(connection, token)

    async def caller(self, connection: HTTPConnection, token: str | None) -> Principal:
        return await self.operator(connection, token)

    async def anybody(self, connection: HTTPConnection) -> None:
        await self.operator(connection)

    @property
    def by_host(self) -> bool:
        return self._is_operator is not None


def add_overview(
    routes: APIRouter, access: OperatorAccess, overview: Callable[[], Overview]
) -> None:
    """Add the route of the overview."""

    async def now(request: Request) -> Response:
        """What all processes do now, and what failed last."""
        await access.operator(request)
        found: dict[str, Any] = await overview().look()
        return JSON(orjson.dumps(found))

    routes.add_api_route("/now", now, methods=["GET"], route_class_override=ProblemRoute)
