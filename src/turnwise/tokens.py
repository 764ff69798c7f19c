"""Session tokens: signed, and good for one session only.

A token is a JWT (HS256) that names a session and a generation. It opens its session as long as
that session lives, which every turn prolongs; with a `ttl` it ends at a fixed time. Refreshing
begins a new generation, so older tokens stop working everywhere at once. The store keeps the
secret and the generation; there is no I/O here, and time is an argument.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jwt

from turnwise.errors import Unauthorized

MAX_TOKEN = 4096
"""Bytes; a longer text is no token of ours."""


class Grant(NamedTuple):
    """What a valid token says. `expires` is seconds since 1970, None where only the session's own
    end counts."""

    session: str
    generation: int
    expires: float | None


class Signer:
    """Makes and opens tokens that live `ttl` seconds, or as long as their session."""

    def __init__(self, secret: bytes, ttl: float | None) -> None:
        self._secret = secret
        self._ttl = ttl
        self._opened: dict[str, Grant] = {}

    def issue(self, session: str, generation: int, now: float) -> str:
        """A token for `session`, from `now` (seconds since 1970)."""
        claims: dict[str, Any] = {"sub": session, "gen": generation, "iat": int(now)}
        if self._ttl is not None:
            claims["exp"] = now + self._ttl
        return jwt.encode(claims, self._secret, algorithm="HS256")

    def open(self, token: str, now: float) -> Grant:
        """What the token grants. Raises Unauthorized when it is not ours or has expired."""
        grant = self._opened.get(token)
        if grant is None:
            grant = self._verify(token)
            if len(self._opened) >= 10_000:
                self._opened.clear()  # checking a signature again is cheap
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
