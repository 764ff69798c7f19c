"""Login: JSON Web Tokens of the host's own login, whose `sub` is the owner of sessions.

They are signed with a shared secret (HS256 only) or with keys that the login publishes at a URL, a
JWKS (RS256 and ES256 only): so a public key can never be taken for a secret.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, NamedTuple

import jwt

from turnwise.conversation import checked_owner
from turnwise.errors import (
    ConfigurationError,
    Invalid,
    MissingExtra,
    StoreUnavailable,
    Unauthorized,
)
from turnwise.settings import Settings
from turnwise.tokens import MAX_TOKEN

log = logging.getLogger("turnwise.http")

LEEWAY = 10.0
"""Seconds by which the clocks of the login and of this machine may differ."""
LOOKED = 10.0
"""Seconds between two requests for the login's keys because of a key that is not known."""
KEPT = 300.0
"""Seconds that the login's keys are kept."""
KNOWN = 10_000
"""Tokens that are kept with what they say."""


class LoginUnavailable(StoreUnavailable):
    """The login's keys cannot be read. Try again."""

    code = "login_unavailable"


class Person(NamedTuple):
    """Who has logged in, and until when (seconds since 1970; None: no end)."""

    owner: str
    expires: float | None


class Login:
    """The tokens of a login, by the settings `jwt_*`."""

    def __init__(self, settings: Settings) -> None:
        self._secret = settings.jwt_secret
        self._url = settings.jwt_jwks_url
        self._issuer, self._audience = settings.jwt_issuer or None, settings.jwt_audience or None
        self._known: dict[str, tuple[Person, float]] = {}
        self._keys: dict[str, Any] = {}
        self._read = self._asked = -KEPT
        self._reading = asyncio.Lock()
        if self._secret and self._url:
            raise ConfigurationError("Set jwt_secret or jwt_jwks_url, not both.")
        if self._url and not (self._issuer and self._audience):
            raise ConfigurationError("jwt_jwks_url needs jwt_issuer and jwt_audience as well.")
        if self._url:
            _need_cryptography()

    @property
    def configured(self) -> bool:
        """Whether there is a login."""
        return bool(self._secret or self._url)

    def known(self, token: str) -> Person | None:
        """Who has this token, if it has been verified before and is still valid."""
        person, until = self._known.get(token, (None, 0.0))
        if person is not None and until <= time.time():
            del self._known[token]
            return None
        return person

    async def person(self, token: str) -> Person:
        """Who has logged in with this token. Raises Unauthorized, LoginUnavailable."""
        person = self.known(token)
        if person is None:
            person = self._verify(token, await self._key(token))
            if len(self._known) >= KNOWN:
                self._known.clear()
            until = time.time() + KEPT  # then its key is looked for once more
            self._known[token] = person, min(until, person.expires or until)
        return person

    def _verify(self, token: str, key: Any) -> Person:
        algorithms = ["HS256"] if self._secret else ["RS256", "ES256"]
        options: Any = {"require": ["sub"], "verify_aud": self._audience is not None}
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY,
                options=options,
            )
            owner = checked_owner(claims["sub"])
            expires = float(claims["exp"]) + LEEWAY if "exp" in claims else None
        except (jwt.PyJWTError, Invalid, ValueError, TypeError):
            raise Unauthorized() from None
        return Person(owner, expires)

    async def _key(self, token: str) -> Any:
        """The key that this token must be signed with. Raises Unauthorized, LoginUnavailable."""
        if len(token) > MAX_TOKEN:
            raise Unauthorized()
        if self._secret:
            return self._secret
        try:
            name = jwt.get_unverified_header(token).get("kid", "")
        except jwt.PyJWTError:
            raise Unauthorized() from None
        async with self._reading:
            now = time.monotonic()
            stale = now - self._read > KEPT or name not in self._keys
            if stale and now - self._asked > LOOKED:
                self._asked = now
                await self._read_keys()
        if name not in self._keys:
            if not self._keys:
                raise LoginUnavailable()
            raise Unauthorized()
        return self._keys[name]

    async def _read_keys(self) -> None:
        """Read the login's keys; those that were read before stay if it does not answer."""
        import httpx2

        try:
            async with httpx2.AsyncClient(timeout=5.0) as client:
                answer = await client.get(self._url)
                answer.raise_for_status()
                found = jwt.PyJWKSet.from_dict(answer.json())
        except (httpx2.HTTPError, jwt.PyJWTError, ValueError, TypeError, AttributeError) as error:
            log.warning("cannot read the keys of the login: %s", error)
            return
        self._keys = {key.key_id or "": key.key for key in found.keys}
        self._read = time.monotonic()


def _need_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise MissingExtra("A login with a JWKS", "login") from None
