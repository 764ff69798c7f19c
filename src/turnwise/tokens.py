"""Session tokens: signed, and valid for one session only.

A token is a JWT (HS256) that names a session and a generation. It is valid as long as its session
exists, which every turn prolongs; with a `ttl` it expires at a fixed time. A refresh starts a new
generation, so older tokens become invalid everywhere at once. The store holds the secrets and the
generation; there is no I/O here, and time is an argument.

Two secrets may be active: after a rotation tokens are signed with the new one, and those that were
signed before are valid until the old one is retired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jwt
import orjson

from turnwise.errors import Unauthorized

ISSUER = "turnwise"
MAX_TOKEN = 4096
"""Bytes; a longer text is not a token of ours."""


SIGNING = "signing"
"""The fact in the store that holds the active secrets after a rotation, the newest first."""
SPREAD = 20.0
"""Seconds that a process knows a secret before it signs with it: all others know it by then."""


class Grant(NamedTuple):
    """The content of a valid token. `expires` is seconds since 1970, or None if the token is valid
    as long as its session."""

    session: str
    generation: int
    expires: float | None


class Signer:
    """Creates and verifies tokens that are valid for `ttl` seconds, or as long as their session."""

    def __init__(self, secret: bytes, ttl: float | None) -> None:
        self._known = {secret: 0.0}
        self._ttl = ttl
        self._opened: dict[str, Grant] = {}

    def learn(self, secrets: Sequence[bytes], now: float) -> None:
        """These secrets are active from `now` on (seconds since 1970), the newest first."""
        if list(secrets) != list(self._known):
            self._known = {secret: self._known.get(secret, now) for secret in secrets}
            self._opened.clear()

    def _signing(self, now: float) -> bytes:
        known = self._known.items()
        spread = (secret for secret, since in known if now - since >= SPREAD)
        return next(spread, list(self._known)[-1])

    def issue(self, session: str, generation: int, now: float) -> str:
        """A token for `session`, from `now` (seconds since 1970)."""
        claims: dict[str, Any] = {"iss": ISSUER, "sub": session, "gen": generation}
        claims["iat"] = int(now)
        if self._ttl is not None:
            claims["exp"] = now + self._ttl
        return jwt.encode(claims, self._signing(now), algorithm="HS256")

    def open(self, token: str, now: float) -> Grant:
        """What the token grants. Raises Unauthorized if it is not ours or has expired."""
        grant = self._opened.get(token)
        if grant is None:
            grant = self._verify(token)
            if len(self._opened) >= 10_000:
                self._opened.clear()  # verifying a signature again is cheap
            self._opened[token] = grant
        if grant.expires is not None and grant.expires <= now:
            raise Unauthorized("The token has expired.")
        return grant

    def _verify(self, token: str) -> Grant:
        if len(token) > MAX_TOKEN:
            raise Unauthorized()
        for secret in self._known:
            try:
                return _grant(token, secret)
            except jwt.InvalidSignatureError:
                continue  # another one may have signed it
            except (jwt.PyJWTError, ValueError, TypeError) as error:
                raise Unauthorized() from error
        raise Unauthorized()


def _grant(token: str, secret: bytes) -> Grant:
    options = {"require": ["sub", "gen"], "verify_exp": False, "verify_iat": False}
    claims = jwt.decode(token, secret, algorithms=["HS256"], options=options)  # type: ignore[arg-type]
    expires = float(claims["exp"]) if "exp" in claims else None
    return Grant(str(claims["sub"]), int(claims["gen"]), expires)


def encoded_secrets(secrets: Sequence[bytes]) -> bytes:
    """Active secrets, as the store holds them."""
    return orjson.dumps([secret.hex() for secret in secrets])


def active(root: bytes, published: Mapping[str, bytes]) -> list[bytes]:
    """The active secrets, the newest first: the store's own one if there was no rotation."""
    if SIGNING not in published:
        return [root]
    return [bytes.fromhex(secret) for secret in orjson.loads(published[SIGNING])]
