"""Access: authorization and rate limits of the network channels.

A session's token opens that session. An API key opens every session, for a trusted backend; if
keys are set, creating a session requires one. A host application may decide instead with
`authorize(connection, session_id)`; `session_id` is None when a session is to be created.

A token of another session gets the same answer as a missing session: 404.

For untrusted clients, the number of sessions per address and of messages per session is limited
per minute; each process counts separately.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from ipaddress import IPv6Address, ip_address, ip_network
from secrets import compare_digest
from typing import NamedTuple

from starlette.requests import HTTPConnection

from turnwise import urls
from turnwise.channels.rate_limit import Counted, Rate
from turnwise.errors import Forbidden, NotFound, Unauthorized
from turnwise.gateway.gateway import Gateway
from turnwise.settings import Settings

Authorize = Callable[[HTTPConnection, str | None], bool | Awaitable[bool]]


class Principal(NamedTuple):
    """The caller: the generation of its token (None: trusted) and when it expires."""

    generation: int | None = None
    expires: float | None = None


TRUSTED = Principal()


class Access:
    """The rules of one application."""

    def __init__(
        self,
        gateway: Callable[[], Gateway],
        settings: Settings,
        authorize: Authorize | None = None,
    ) -> None:
        self._gateway = gateway
        self._api_keys = settings.keys()
        self._origins = settings.origins()
        self._authorize = authorize
        self._sessions = Rate(settings.sessions_per_minute, "Too many new sessions from here.")
        self._messages = Rate(settings.messages_per_minute, "Too many messages in this session.")

    async def to_create(self, connection: HTTPConnection) -> None:
        """Raises Unauthorized if this connection may not create a session."""
        if self._authorize is not None:
            if not await self._decide(connection, None):
                raise Unauthorized("Creating a session is not allowed.")
        elif self._api_keys and not self._is_key(bearer(connection)):
            raise Unauthorized("Creating a session needs an API key.")

    async def to_session(
        self, connection: HTTPConnection, session_id: str, token: str | None = None
    ) -> Principal:
        """The caller that accesses `session_id`; its generation has not been checked yet.

        Raises Unauthorized, or NotFound when the token opens another session.
        """
        if self._authorize is not None:
            if not await self._decide(connection, session_id):
                raise NotFound("This session does not exist.")
            return TRUSTED
        token = token or bearer(connection)
        if token is None:
            raise Unauthorized()
        return self.by_token(session_id, token)

    def by_token(self, session_id: str, token: str) -> Principal:
        """The caller that has this token. Raises as `to_session` does."""
        if self._is_key(token):
            return TRUSTED
        grant = self._gateway().grant(token)
        if grant.session != session_id:
            raise NotFound("This session does not exist.")
        return Principal(grant.generation, grant.expires)

    def creating(self, connection: HTTPConnection) -> Counted:
        """Wraps the creation of a session: only a session that is created counts.

        Raises RateLimited if this address created too many.
        """
        trusted = self._authorize is not None or bool(self._api_keys)
        address = connection.client.host if connection.client else ""
        return self._sessions.counting(None if trusted else _network(address))

    def speaking(self, principal: Principal, session_id: str) -> Counted:
        """Wraps the submission of a message: only an accepted message that is not a repeat counts.

        Raises RateLimited if too many messages were sent in this session.
        """
        return self._messages.counting(None if principal is TRUSTED else session_id)

    @property
    def by_host(self) -> bool:
        """Whether the host application decides, in which case no token is needed."""
        return self._authorize is not None

    def check_origin(self, connection: HTTPConnection) -> None:
        """Raises Forbidden when a browser's page of another origin connects."""
        given = connection.headers.get("origin")
        if given is None or urls.origin(given) in self._origins:
            return
        if not urls.same_host(given, connection.headers.get("host", "")):
            raise Forbidden()

    async def _decide(self, connection: HTTPConnection, session_id: str | None) -> bool:
        assert self._authorize is not None
        verdict = self._authorize(connection, session_id)
        return bool(await verdict if inspect.isawaitable(verdict) else verdict)

    def _is_key(self, token: str | None) -> bool:
        if token is None:
            return False
        given = token.encode("utf-8", "replace")
        return any([compare_digest(given, key.encode()) for key in self._api_keys])


def _network(address: str) -> str:
    """The rate-limit key of an address: for IPv6 its /64 network, which one caller owns."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        mapped = found.ipv4_mapped
        return str(mapped) if mapped else str(ip_network((int(found), 64), strict=False))
    return address


def bearer(connection: HTTPConnection) -> str | None:
    """The token of the one Authorization header. Raises Unauthorized when it is malformed."""
    headers = connection.headers.getlist("authorization")
    if not headers:
        return None
    scheme, _, token = headers[0].partition(" ")
    if len(headers) > 1 or scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized("One header `Authorization: Bearer <token>` is required.")
    return token.strip()
