"""Access: authorization and rate limits of the network channels.

A bearer is tried as an API key, then as a session's token, then as a JWT of the host's own login:

    an API key       a trusted backend: every session, and with `X-Turnwise-Owner` those of an owner
    a token          its own session
    a login's JWT    the sessions of its `sub`, their owner

A host application may decide instead with `authorize(connection, session_id)`; `session_id` is None
when a session is to be created, or the caller's are to be listed. False refuses, True is a trusted
backend, a text is an owner.

A session of another owner, or of another token, gets the same answer as a missing one: 404.

For untrusted clients, the number of sessions per address and of messages per session is limited
per minute; each process counts separately.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from hashlib import sha256
from ipaddress import IPv6Address, ip_address, ip_network
from secrets import compare_digest
from typing import Literal, NamedTuple

from starlette.requests import HTTPConnection

from turnwise import urls
from turnwise.channels.login import Login
from turnwise.channels.rate_limit import Counted, Rates
from turnwise.conversation import checked_owner
from turnwise.errors import ConfigurationError, Forbidden, Invalid, NotFound, Unauthorized
from turnwise.gateway.gateway import Gateway
from turnwise.settings import Settings

Verdict = bool | str
Authorize = Callable[[HTTPConnection, str | None], Verdict | Awaitable[Verdict]]
OWNER = "x-turnwise-owner"


class Principal(NamedTuple):
    """The caller: the generation of its token and when that expires; whose sessions it may use
    (None: any); whether it is a trusted backend, which of them, and whether it has an API key;
    `session` is the one that its token opens."""

    generation: int | None = None
    expires: float | None = None
    owner: str | None = None
    trusted: bool = False
    scope: str = ""
    key: bool = False
    session: str | None = None

    @property
    def needs_token(self) -> bool:
        """Whether a session that it creates comes with a token."""
        return self.trusted or self.owner is None


TRUSTED = Principal(trusted=True)
GUEST = Principal()
LOCAL = Principal(owner="local")


class Access:
    """The rules of one application."""

    def __init__(
        self,
        gateway: Callable[[], Gateway],
        settings: Settings,
        authorize: Authorize | None = None,
        rates: Rates | None = None,
    ) -> None:
        self._gateway = gateway
        self._api_keys = settings.keys()
        self._origins = settings.origins()
        self._login = Login(settings)
        self._guests = settings.guests or not (self._api_keys or self._login.configured)
        self._authorize = authorize
        rates = rates or Rates(settings.sessions_per_minute, settings.messages_per_minute)
        self._sessions, self._messages = rates.sessions, rates.messages

    async def to_create(self, connection: HTTPConnection) -> Principal:
        """The caller that creates a session. Raises Unauthorized if it may not."""
        if self._authorize is not None:
            verdict = await self._decide(connection, None)
            if verdict is False:
                raise Unauthorized("Creating a session is not allowed.")
            return verdict
        token = bearer(connection)
        if token is not None:
            if self._is_key(token):
                return self._by_key(connection, token)
            if self._login.configured:
                return await self._by_login(token)
        if self._guests:
            return GUEST
        raise Unauthorized("Creating a session needs an API key, or a login.")

    async def to_list(self, connection: HTTPConnection) -> Principal:
        """The caller that lists sessions: an owner, or a trusted backend. Raises Unauthorized."""
        principal = GUEST
        if self._authorize is not None:
            verdict = await self._decide(connection, None)
            # One that is only said to be trusted may be anybody who may create a session.
            principal = GUEST if verdict is False else verdict._replace(trusted=False)
        else:
            token = bearer(connection)
            if token is not None and self._is_key(token):
                return self._by_key(connection, token)
            if token is not None and self._login.configured:
                principal = await self._by_login(token)
        if principal.owner is None:
            raise Unauthorized("Listing sessions needs an owner, or an API key.")
        return principal

    async def to_session(
        self, connection: HTTPConnection, session_id: str, token: str | None = None
    ) -> Principal:
        """The caller that accesses `session_id`; its generation and whose session it is have not
        been checked yet.

        Raises Unauthorized, or NotFound when the token opens another session.
        """
        if self._authorize is not None:
            verdict = await self._decide(connection, session_id)
            if verdict is False:
                raise NotFound("This session does not exist.")
            return verdict
        token = token or bearer(connection)
        if token is None:
            raise Unauthorized()
        if self._is_key(token):
            return self._by_key(connection, token)
        try:
            return self.by_token(session_id, token)
        except Unauthorized:
            if not self._login.configured:
                raise
        return await self._by_login(token)

    async def caller(self, connection: HTTPConnection, token: str | None) -> Principal:
        """The caller, whatever session this is about. Raises Unauthorized.

        Where neither keys nor a login are configured, who connects from this machine is the owner
        `local`.
        """
        if self._authorize is not None:
            verdict = await self._decide(connection, None)
            if verdict is False:
                raise Unauthorized("This is not allowed.")
            return verdict
        if token is not None:
            if self._is_key(token):
                return self._by_key(connection, token)
            try:
                grant = self._gateway().grant(token)
                return Principal(grant.generation, grant.expires, session=grant.session)
            except Unauthorized:
                if self._login.configured:
                    return await self._by_login(token)
        if self.is_open and is_local(connection):
            return LOCAL
        raise Unauthorized("A key, a session's token or a login's JWT is needed.")

    @property
    def is_open(self) -> bool:
        """Whether neither keys nor a login nor a host decide who may come in."""
        return not (self.by_host or self._api_keys or self._login.configured)

    async def anybody(self, connection: HTTPConnection) -> None:
        """Raises Unauthorized unless the caller has an API key, a session's token or a login, or is
        known to the host."""
        if self._authorize is not None:
            if await self._decide(connection, None) is False:
                raise Unauthorized()
            return
        token = bearer(connection)
        if token is None:
            raise Unauthorized()
        if self._is_key(token):
            return
        try:
            self._gateway().grant(token)
        except Unauthorized:
            if not self._login.configured:
                raise
            await self._login.person(token)

    async def as_host(self, connection: HTTPConnection, session_id: str) -> Principal:
        """The caller that does what only hosts do. Raises Forbidden for others."""
        principal = await self.to_session(connection, session_id)
        if not principal.key:
            raise Forbidden("This needs an API key.")
        return principal

    def by_token(self, session_id: str, token: str) -> Principal:
        """The caller that has this token, if it is known at once. Raises as `to_session` does."""
        if self._is_key(token):
            return Principal(trusted=True, scope=_scope(token), key=True)
        person = self._login.known(token)
        if person is not None:
            return Principal(None, person.expires, person.owner)
        grant = self._gateway().grant(token)
        if grant.session != session_id:
            raise NotFound("This session does not exist.")
        return Principal(grant.generation, grant.expires)

    async def _by_login(self, token: str) -> Principal:
        person = await self._login.person(token)
        return Principal(None, person.expires, person.owner)

    def _by_key(self, connection: HTTPConnection, token: str) -> Principal:
        """A trusted backend; it may act for an owner. Raises Invalid."""
        owners = connection.headers.getlist(OWNER)
        if not owners:
            return Principal(trusted=True, scope=_scope(token), key=True)
        if len(owners) > 1:
            raise Invalid("One header X-Turnwise-Owner, at most.")
        owner = decoded_owner(owners[0])
        return Principal(owner=owner, trusted=True, scope=_scope(token), key=True)

    def creating(self, connection: HTTPConnection, principal: Principal) -> Counted:
        """Wraps the creation of a session: only a session that is created counts.

        Raises RateLimited if this address created too many.
        """
        trusted = self._authorize is not None or principal.trusted
        address = connection.client.host if connection.client else ""
        return self._sessions.counting(None if trusted else _network(address))

    def speaking(self, principal: Principal, session_id: str) -> Counted:
        """Wraps the submission of a message: only an accepted message that is not a repeat counts.

        Raises RateLimited if too many messages were sent in this session.
        """
        return self._messages.counting(
            None if principal.trusted else f"{principal.owner or ''}\0{session_id}"
        )

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

    def knows(self, authorization: bytes) -> bool:
        """Whether this header can be judged without asking a login."""
        if not self._login.configured:
            return True
        token = authorization[7:].strip().decode("latin-1")
        return self._is_key(token) or self._login.known(token) is not None

    async def _decide(
        self, connection: HTTPConnection, session_id: str | None
    ) -> Principal | Literal[False]:
        assert self._authorize is not None
        answer = self._authorize(connection, session_id)
        verdict = await answer if inspect.isawaitable(answer) else answer
        if isinstance(verdict, str):
            return Principal(owner=checked_owner(verdict))
        if verdict is not None and not isinstance(verdict, bool):
            kind = type(verdict).__name__
            raise ConfigurationError(f"authorize must return a bool or an owner, not {kind}.")
        return TRUSTED if verdict else False

    def _is_key(self, token: str | None) -> bool:
        return is_one_of(self._api_keys, token)


def is_one_of(keys: Iterable[str], token: str | None) -> bool:
    """Whether a token is one of some keys; how long it takes does not say how much of it is."""
    if token is None:
        return False
    given = token.encode("utf-8", "replace")
    return any([compare_digest(given, key.encode()) for key in keys])


def _scope(key: str) -> str:
    """Stands for an API key where keys of requests belong to it."""
    return f"key {sha256(key.encode('utf-8', 'replace')).hexdigest()}"


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


def decoded_owner(header: str) -> str:
    """An owner in a header, which is UTF-8. Raises Invalid."""
    try:
        return checked_owner(header.encode("latin-1").decode())
    except UnicodeDecodeError:
        raise Invalid("An owner in a header must be UTF-8.") from None


def is_local(connection: HTTPConnection) -> bool:
    """Whether a program on this machine connects, and neither a proxy nor a page of elsewhere."""
    server = connection.scope.get("server")
    client = connection.client
    named = urls.origin(f"http://{connection.headers.get('host', '')}")
    given = connection.headers.get("origin")
    page = urls.origin(given) if given is not None else named
    return (
        client is not None
        and server is not None
        and named is not None
        and page is not None
        and all(urls.is_loopback(host) for host in (client.host, server[0], named[1], page[1]))
        and not any(name in connection.headers for name in ("forwarded", "x-forwarded-for"))
    )


def bearer(connection: HTTPConnection) -> str | None:
    """The token of the one Authorization header. Raises Unauthorized when it is malformed."""
    headers = connection.headers.getlist("authorization")
    if not headers:
        return None
    scheme, _, token = headers[0].partition(" ")
    if len(headers) > 1 or scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized("One header `Authorization: Bearer <token>` is required.")
    return token.strip()
