"""Session tokens: signed, and valid for one session only.

A token is a JWT (HS256) that names a session and a generation. It is valid as long as its session
exists, which every turn prolongs; with a `ttl` it expires at a fixed time. A refresh starts a new
generation, so older tokens become invalid everywhere at once. The store holds the secret and the
generation; there is no I/O here, and time is an argument.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jwt

from turnwise.errors import Unauthorized

ISSUER = "turnwise"
MAX_TOKEN = 4096
"""Bytes; a longer text is not a token of ours."""


class Grant(NamedTuple):
    """The content of a valid token. `expires` is seconds since 1970, or None if the token is valid
    as long as its session."""

    session: str
    generation: int
    expires: float | None


class Signer:
    """Creates and verifies tokens that are valid for `ttl` seconds, or as long as their session."""

    def __init__(self, secret: bytes, ttl: float | None) -> None:
        self._secret = secret
        self._ttl = ttl
        self._opened: dict[str, Grant] = {}

    def issue(self, session: str, generation: int, now: float) -> str:
        """A token for `session`, from `now` (seconds since 1970)."""
        claims: dict[str, Any] = {"iss": ISSUER, "sub": session, "gen": generation}
        claims["iat"] = int(now)
        if self._ttl is not None:
            claims["exp"] = now + self._ttl
        return jwt.encode(claims, self._secret, algorithm="HS256")

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
        options = {"require": ["sub", "gen"], "verify_exp": False, "verify_iat": False}
        try:
            if len(token) > MAX_TOKEN:
                raise Unauthorized()
            claims = jwt.decode(token, self._secret, algorithms=["HS256"], options=options)  # type: ignore[arg-type]
            expires = float(claims["exp"]) if "exp" in claims else None
            return Grant(str(claims["sub"]), int(claims["gen"]), expires)
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise Unauthorized() from error
