"""WebSocket: a session's events out, messages in, on one connection.

The client sends the token in the Authorization header, in the subprotocol list (`turnwise.v1`,
`token.<token>`) or in the first frame; never in the URL, which servers log. An invalid frame is
answered with an `error` frame and the connection stays open. Close codes:

    1001/1012  the server restarts: connect again and resume     4401  no valid token in time
    1013       too many open streams                             4404  no such session (any more)
    4408       the client does not read
    4000 + n   the host's `authorize` raised an HTTPException with status n (400 to 499)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, WebSocket, WebSocketDisconnect
from starlette.exceptions import HTTPException, WebSocketException

from turnwise.channels.access import Access, Principal
from turnwise.channels.bodies import BadJSON, validated
from turnwise.channels.schemas import ChangeIn, FeedbackIn, TurnIn
from turnwise.channels.sse import Watch
from turnwise.conversation import Cursor
from turnwise.conversation.cursors import PATTERN
from turnwise.errors import (
    Damaged,
    Forbidden,
    Invalid,
    NotFound,
    Rejected,
    TooLarge,
    TurnwiseError,
    Unauthorized,
)
from turnwise.gateway.gateway import Gateway
from turnwise.gateway.hub import TooManyStreams
from turnwise.gateway.reader import Reader
from turnwise.settings import Settings

PROTOCOL = "turnwise.v1"
AUTH_PATIENCE = 10.0
"""Seconds within which the token must arrive in the first frame."""
MAX_UNKNOWN = 1_000
"""Maximum number of open sockets per process that have not sent a token yet."""
FRAMES = ("message", "again", "change", "cancel", "stop", "feedback", "ping")
CLOSES = {"gone": 4404, "token": 4401, "shutdown": 1012}


class WebSocketChannel:
    """The WebSocket channel: adds its route to `routes`."""

    def __init__(
        self,
        routes: APIRouter,
        gateway: Callable[[], Gateway],
        access: Access,
        settings: Settings,
    ) -> None:
        self._gateway = gateway
        self._access = access
        self._settings = settings
        self._unknown = 0
        routes.add_api_websocket_route("/sessions/{session_id}/ws", self.connect)

    async def connect(
        self,
        socket: WebSocket,
        session_id: str,
        after: Annotated[str, Query(max_length=80, pattern=PATTERN)] = "0",
    ) -> None:
        """Serve one connection until either side closes it."""
        try:
            self._access.check_origin(socket)
        except Forbidden as error:
            raise WebSocketException(1008, error.message) from None
        offered = socket.scope.get("subprotocols", [])
        await socket.accept(PROTOCOL if PROTOCOL in offered else None)
        try:
            principal = await self._authenticate(socket, session_id, offered)
            await self._gateway().session(session_id, principal.generation, owner=principal.owner)
            reader = self._gateway().follow(
                session_id, Cursor.parse(after), generation=principal.generation
            )
        except WebSocketDisconnect:
            return
        except TurnwiseError as error:
            await self._refuse(socket, error)
            return
        except HTTPException as error:  # the host's `authorize` refuses with its own status
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await socket.close(_close_code(error.status_code), str(error.detail)[:120])
            return
        except Exception:  # `authorize` failed: the host's own tools should see that
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await socket.close(1011)
            raise
        with reader:
            connection = Connection(
                socket, session_id, principal, reader, self._gateway(), self._access
            )
            await connection.serve(self._settings)

    @contextlib.contextmanager
    def _strangers(self) -> Iterator[None]:
        """Limits how many sockets may wait for their token at once."""
        if self._unknown >= MAX_UNKNOWN:
            raise TooManyStreams()
        self._unknown += 1
        try:
            yield
        finally:
            self._unknown -= 1

    async def _authenticate(
        self, socket: WebSocket, session_id: str, offered: list[str]
    ) -> Principal:
        token = next((p.removeprefix("token.") for p in offered if p.startswith("token.")), None)
        if token is None and not self._access.by_host and "authorization" not in socket.headers:
            with self._strangers():
                token = await self._first_frame(socket)
        return await self._access.to_session(socket, session_id, token)

    async def _first_frame(self, socket: WebSocket) -> str:
        try:
            async with asyncio.timeout(AUTH_PATIENCE):
                frame = _decoded(await socket.receive(), self._settings.max_body)
        except TimeoutError:
            raise Unauthorized("The token did not arrive in time.") from None
        except Rejected:
            raise Unauthorized() from None
        if frame.get("type") != "auth" or not isinstance(frame.get("token"), str):
            raise Unauthorized("The first frame must contain the token.")
        token: str = frame["token"]
        return token

    async def _refuse(self, socket: WebSocket, error: TurnwiseError) -> None:
        code = 4404 if isinstance(error, NotFound) else 4401
        if isinstance(error, TooManyStreams):
            code = 1013
        elif not isinstance(error, NotFound | Unauthorized):
            code = 1011
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await socket.send_text(_error(error))
            await socket.close(code, error.code)


class Connection:
    """One open socket: one loop sends, another receives."""

    def __init__(
        self,
        socket: WebSocket,
        session_id: str,
        principal: Principal,
        reader: Reader,
        gateway: Gateway,
        access: Access,
    ) -> None:
        self._socket = socket
        self._session_id = session_id
        self._principal = principal
        self._reader = reader
        self._gateway = gateway
        self._access = access

    async def serve(self, settings: Settings) -> None:
        """Run both loops until one ends."""
        self._max_frame = settings.max_body
        receiving = asyncio.get_running_loop().create_task(self._receive())
        self._watch = Watch(self._reader, settings.send_timeout, self._principal.expires)
        code = 1001
        try:
            code = await self._send()
        except TimeoutError:
            code = 4408
        except Damaged:
            code = 1011
        except (WebSocketDisconnect, RuntimeError):
            return  # the client has disconnected
        finally:
            self._watch.stop()
            receiving.cancel()
            await asyncio.wait({receiving})
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
            async with asyncio.timeout(settings.send_timeout):
                await self._socket.close(code)

    async def _send(self) -> int:
        """Send events; returns the code to close with."""
        reader = self._reader
        while not reader.closed:
            for event in await reader.read():
                with self._watch:
                    await self._socket.send_text(event.encoded.decode())
        if reader.closed == "left":
            raise WebSocketDisconnect
        return CLOSES[reader.closed]

    async def _answer(self, text: str) -> None:
        async with asyncio.timeout(AUTH_PATIENCE):
            await self._socket.send_text(text)

    async def _receive(self) -> None:
        try:
            while True:
                await self._handle(await self._socket.receive())
        except (WebSocketDisconnect, RuntimeError, TimeoutError):
            self._reader.shut("left")

    async def _handle(self, received: Any) -> None:
        """Process one frame; an invalid frame is answered with an error and changes nothing."""
        key = None
        try:
            frame = _decoded(received, self._max_frame)
            key = frame.get("key") if isinstance(frame.get("key"), str) else None
            await self._obey(frame)
        except TurnwiseError as error:
            await self._answer(_error(error, key))

    async def _obey(self, frame: dict[str, Any]) -> None:
        kind = frame.get("type")
        if kind == "message":
            await self._submit(frame)
        elif kind == "cancel":
            await self._gateway.cancel(self._session_id, _turn_in(frame), patience=0.0)
        elif kind == "again":
            await self._again(frame)
        elif kind == "stop":
            await self._gateway.stop(self._session_id, patience=0.0)
        elif kind == "change":
            text = validated(ChangeIn, {"text": frame.get("text")}).text
            await self._gateway.change(self._session_id, _turn_in(frame), text)
        elif kind == "feedback":
            await self._judge(frame)
        elif kind == "ping":
            await self._answer('{"type":"pong"}')
        else:
            raise Invalid(f"A frame's type must be one of {', '.join(FRAMES)}.")

    async def _again(self, frame: dict[str, Any]) -> None:
        n, key = _turn_in(frame), _key_in(frame)
        with self._access.speaking(self._principal, self._session_id) as counted:
            submitted = await self._gateway.again(
                self._session_id, n, key=key,
                generation=self._principal.generation, owner=self._principal.owner,
            )  # fmt: skip
            counted.counts = submitted.created

    async def _judge(self, frame: dict[str, Any]) -> None:
        message = frame.get("message")
        if not isinstance(message, str):
            raise Invalid("feedback must name a message by its id.")
        body = validated(FeedbackIn, {k: frame[k] for k in ("value", "comment") if k in frame})
        await self._gateway.judge(self._session_id, message, body.value, body.comment)

    async def _submit(self, frame: dict[str, Any]) -> None:
        key = _key_in(frame)
        content = {k: v for k, v in frame.items() if k in TurnIn.model_fields}
        with self._access.speaking(self._principal, self._session_id) as counted:
            body = validated(TurnIn, content)
            submitted = await self._gateway.submit(
                self._session_id,
                body.text,
                **body.more(),
                key=key,
                generation=self._principal.generation,
                owner=self._principal.owner,
            )
            counted.counts = submitted.created


def _turn_in(frame: dict[str, Any]) -> int:
    n = frame.get("turn")
    if type(n) is not int or not 1 <= n <= 2**53:  # True is an int, and no number of a turn
        raise Invalid("The frame must name a turn by its number.")
    return n


def _key_in(frame: dict[str, Any]) -> str | None:
    key = frame.get("key")
    if key is not None and not isinstance(key, str):
        raise Invalid("A key must be a string.")
    return key


def _close_code(status: int) -> int:
    """The close code that stands for an HTTP status: 4401 for 401, 4404 for 404, and so on."""
    return 4000 + status if 400 <= status < 500 else 1011


def _decoded(received: Any, limit: int) -> dict[str, Any]:
    """The JSON object in a received text frame."""
    if received["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(received.get("code", 1000))
    text = received.get("text")
    if text is None:
        raise Invalid("Frames must be text frames.")
    if len(text) > limit:
        raise TooLarge(f"A frame has at most {limit} characters.")
    try:
        frame = orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        raise BadJSON("The frame is not valid JSON.") from None
    if not isinstance(frame, dict):
        raise Invalid("A frame must be a JSON object.")
    return frame


def _error(error: TurnwiseError, key: str | None = None) -> str:
    body = {
        "type": "error",
        "code": error.code,
        "message": error.message,
        "retryable": error.retryable,
    }
    if key is not None:
        body["key"] = key
    return orjson.dumps(body).decode()
