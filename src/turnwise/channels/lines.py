"""Lines: a session for the terminal, in this process or on a server."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import httpx2
import orjson

from turnwise.conversation import Answer, Attachment, file_path
from turnwise.errors import (
    AskClosed,
    NotFound,
    StoreUnavailable,
    TurnwiseError,
    Unauthorized,
)
from turnwise.gateway.gateway import Gateway

PAUSE = 0.5
"""Seconds between two requests to a server that is away."""
SHOWN = 20
"""Sessions in a list."""
FEW, TRIES = 20, 60
"""How often a request, and the next part of an answer, is asked for while it is away."""
_TERMINAL = ("turn.completed", "turn.failed", "turn.cancelled", "turn.merged")


class Line(Protocol):
    """One session, in this process or on a server."""

    async def submit(
        self,
        text: str,
        answer: Answer | None = None,
        replaces: int | None = None,
        files: Sequence[Attachment] = (),
    ) -> int: ...

    async def upload(self, path: Path) -> Attachment: ...

    async def again(self, turn: int) -> int: ...

    async def fork(self) -> Line: ...

    async def sessions(self) -> list[Mapping[str, Any]]: ...

    def other(self, session_id: str) -> Line: ...

    def events(self, turn: int) -> AsyncIterator[Mapping[str, Any]]: ...

    async def cancel(self, turn: int) -> None: ...

    async def history(self) -> list[Mapping[str, Any]]: ...

    async def reset(self) -> None: ...


class LocalLine:
    """A session on this process's gateway."""

    def __init__(self, gateway: Gateway, session_id: str) -> None:
        self._gateway = gateway
        self._session_id = session_id

    async def submit(
        self,
        text: str,
        answer: Answer | None = None,
        replaces: int | None = None,
        files: Sequence[Attachment] = (),
    ) -> int:
        answers = [answer] if answer is not None else []
        text = "" if answers else text
        submitted = await self._gateway.submit(
            self._session_id, text, answers=answers, replaces=replaces, attachments=files,
            create=True,
        )  # fmt: skip
        return submitted.turn.n

    async def upload(self, path: Path) -> Attachment:
        await self._gateway.create(session_id=self._session_id)
        content = await asyncio.to_thread(path.read_bytes)
        file = await self._gateway.files.upload(self._session_id, path.name, None, content)
        url = f"{file_path(self._session_id)}{file.id}"
        return Attachment(file.type, url, file.name, file.size)

    async def again(self, turn: int) -> int:
        return (await self._gateway.again(self._session_id, turn)).turn.n

    async def fork(self) -> Line:
        return self.other((await self._gateway.fork(self._session_id)).id)

    async def sessions(self) -> list[Mapping[str, Any]]:
        page = await self._gateway.sessions(None, limit=SHOWN)
        return [session.as_dict() for session in page.sessions]

    def other(self, session_id: str) -> Line:
        return LocalLine(self._gateway, session_id)

    async def events(self, turn: int) -> AsyncIterator[Mapping[str, Any]]:
        record = await self._gateway.turn(self._session_id, turn)
        after = record.first_event - 1
        with self._gateway.follow(self._session_id, after, turn=turn) as reader:
            async for event in reader:
                yield event.json()

    async def cancel(self, turn: int) -> None:
        await self._gateway.cancel(self._session_id, turn)

    async def history(self) -> list[Mapping[str, Any]]:
        try:
            history = await self._gateway.history(self._session_id, limit=20)
        except NotFound:
            return []
        return [orjson.loads(message) for message in history.messages_json]

    async def reset(self) -> None:
        with suppress(NotFound):
            await self._gateway.reset(self._session_id)


class RemoteLine:
    """A session on the server at `url`, opened with `token`; a broken stream is resumed."""

    def __init__(self, url: str, session_id: str, token: str) -> None:
        self._url, self._token = url, token
        self._client = httpx2.AsyncClient(
            base_url=f"{url.rstrip('/')}/sessions/{quote(session_id, safe='')}/",
            headers={"Authorization": f"Bearer {token}"},
            timeout=30.0,
        )

    @classmethod
    async def open(cls, url: str, *, token: str | None, session_id: str | None) -> RemoteLine:
        """Connect to a session on the server; without a token, create one."""
        if token is not None:
            return cls(url, session_id or _session_in(token), token)
        try:
            async with httpx2.AsyncClient(timeout=30.0) as client:
                made = _checked(await client.post(f"{url.rstrip('/')}/sessions", json={}))
        except (httpx2.TransportError, httpx2.InvalidURL) as error:
            raise StoreUnavailable(f"No server answers at {url}: {error}") from None
        return cls(url, made["id"], made["token"])

    async def submit(
        self,
        text: str,
        answer: Answer | None = None,
        replaces: int | None = None,
        files: Sequence[Attachment] = (),
    ) -> int:
        body: dict[str, Any] = {"text": text}
        if answer is not None:
            body = {"answers": [answer._asdict()]}
        if files:
            body["attachments"] = [file.as_dict() for file in files]
        if replaces is not None:
            body = {**body, "replaces": replaces}
        return await self._turn("turns", json=body)

    async def upload(self, path: Path) -> Attachment:
        content = await asyncio.to_thread(path.read_bytes)
        made = await self._send("POST", "files", files={"file": (path.name, content)})
        return Attachment(made["type"], made["url"], made["name"], made["size"])

    async def again(self, turn: int) -> int:
        return await self._turn(f"turns/{turn}/again")

    async def _turn(self, path: str, **more: Any) -> int:
        # With a key a repeated request is the same turn, whatever became of the first one.
        headers = {"Idempotency-Key": secrets.token_hex(16)}
        n: int = (await self._insist("POST", path, headers=headers, **more))["n"]
        return n

    async def fork(self) -> Line:
        made = await self._send("POST", "fork")
        return RemoteLine(self._url, made["id"], made.get("token") or self._token)

    async def sessions(self) -> list[Mapping[str, Any]]:
        url = f"{self._url.rstrip('/')}/sessions"
        page = await self._send("GET", url, params={"limit": SHOWN})
        sessions: list[Mapping[str, Any]] = page["sessions"]
        return sessions

    def other(self, session_id: str) -> Line:
        return RemoteLine(self._url, session_id, self._token)

    async def events(self, turn: int) -> AsyncIterator[Mapping[str, Any]]:
        after, failures = 0, 0
        while True:
            params = {"turn": turn, "after": after, "wait": 20}
            accept = {"Accept": "application/json"}
            try:
                page = await self._send("GET", "events", params=params, headers=accept)
            except StoreUnavailable:
                failures += 1
                if failures == 1:
                    yield {"type": "lost"}
                if failures > TRIES:
                    raise
                await asyncio.sleep(PAUSE)
                continue
            failures, after = 0, page["next"]
            for event in page["events"]:
                yield event
                if event["type"] in _TERMINAL:
                    return

    async def cancel(self, turn: int) -> None:
        await self._insist("POST", f"turns/{turn}/cancel")

    async def history(self) -> list[Mapping[str, Any]]:
        page = await self._insist("GET", "messages", params={"limit": 20})
        messages: list[Mapping[str, Any]] = page["messages"]
        return messages

    async def reset(self) -> None:
        await self._send("POST", "reset")

    async def _insist(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """`_send`, repeated for a moment while the server is away; for requests that may be."""
        for _ in range(FEW):
            try:
                return await self._send(method, path, **more)
            except StoreUnavailable:
                await asyncio.sleep(PAUSE)
        return await self._send(method, path, **more)

    async def _send(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """The server's answer. Raises StoreUnavailable while it is away, TurnwiseError."""
        try:
            return _checked(await self._client.request(method, path, **more))
        except httpx2.TransportError as error:
            raise StoreUnavailable("The server cannot be reached.") from error


def _checked(response: httpx2.Response) -> dict[str, Any]:
    """The body of a good answer. Raises what the answer says instead."""
    try:
        body: dict[str, Any] = response.json()
        if response.is_success:
            return body
        detail = str(body["detail"])
    except (ValueError, KeyError, TypeError):  # not one of ours: a proxy's page
        body, detail = {}, f"The server answered {response.status_code}."
    if response.status_code in (502, 503, 504):
        raise StoreUnavailable(detail)
    if body.get("code") == AskClosed.code:
        raise AskClosed(detail)
    raise (Unauthorized if response.status_code == 401 else TurnwiseError)(detail)


def _session_in(token: str) -> str:
    """The session that a token names; the server checks the signature."""
    import jwt

    try:
        claims = jwt.decode(token, options={"verify_signature": False})
        return str(claims["sub"])
    except (jwt.PyJWTError, KeyError):
        raise Unauthorized("This is not a session token.") from None
