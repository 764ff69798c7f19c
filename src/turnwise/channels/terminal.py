"""The terminal: talk to a bot in a shell, in this process or on a server.

The conversation runs on an event loop in a separate thread; the main thread reads lines and
prints. So Ctrl-C, which Python delivers to the main thread, stops the turn and not the program.
Control characters are removed from received text: it must not control the terminal.
"""

from __future__ import annotations

import asyncio
import queue
import secrets
import signal
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Protocol, TypeVar

import httpx2
import orjson
from rich.console import Console
from rich.text import Text

from turnwise.conversation import Answer, Asked
from turnwise.errors import AskClosed, NotFound, StoreUnavailable, TurnwiseError, Unauthorized
from turnwise.gateway.gateway import Gateway

T = TypeVar("T")
HELP = "Ctrl-C stops the answer, Ctrl-D leaves. /history, /reset, /help"
STEP = {"completed": "✓", "failed": "✗"}
PAUSE = 0.5
"""Seconds between two requests to a server that is away."""
FEW, TRIES = 20, 60
"""How often a request, and the next part of an answer, is asked for while it is away."""
_TERMINAL = ("turn.completed", "turn.failed", "turn.cancelled")


class Line(Protocol):
    """One session, in this process or on a server."""

    async def submit(self, text: str, answer: Answer | None = None) -> int: ...

    def events(self, turn: int) -> AsyncIterator[Mapping[str, Any]]: ...

    async def cancel(self, turn: int) -> None: ...

    async def history(self) -> list[Mapping[str, Any]]: ...

    async def reset(self) -> None: ...


class LocalLine:
    """A session on this process's gateway."""

    def __init__(self, gateway: Gateway, session_id: str) -> None:
        self._gateway = gateway
        self._session_id = session_id

    async def submit(self, text: str, answer: Answer | None = None) -> int:
        answers = [answer] if answer is not None else []
        text = "" if answers else text
        submitted = await self._gateway.submit(self._session_id, text, answers=answers, create=True)
        return submitted.turn.n

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
        self._client = httpx2.AsyncClient(
            base_url=f"{url.rstrip('/')}/sessions/{session_id}/",
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

    async def submit(self, text: str, answer: Answer | None = None) -> int:
        body = {"text": text} if answer is None else {"answers": [answer._asdict()]}
        # With a key a repeated request is the same turn, whatever became of the first one.
        headers = {"Idempotency-Key": secrets.token_hex(16)}
        turn = await self._insist("POST", "turns", json=body, headers=headers)
        n: int = turn["n"]
        return n

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


class Terminal:
    """Reads lines, sends them through `line`, and prints the replies as they arrive."""

    def __init__(self, line: Line, loop: asyncio.AbstractEventLoop, console: Console) -> None:
        self._line = line
        self._loop = loop
        self._console = console
        self._ask: Asked | None = None
        """What the last answer asked for, as long as it is not answered."""
        self._told = 0
        """Messages that were streamed, and are not committed yet."""
        self._open = False
        """Whether a text stands on the current line."""

    def run(self) -> None:
        """Run until the end of input. Call it in the main thread, with the loop in another."""
        self._show_history()
        tell = Text(HELP, style="dim")
        while True:
            try:  # everything slow is in here, so that Ctrl-C never ends the program
                if tell:
                    self._console.print(tell)
                    tell = Text()
                self._do(self._console.input("[bold cyan]you ›[/] ").strip())
            except EOFError:
                self._console.print()
                return
            except KeyboardInterrupt:
                tell = Text("  (Ctrl-D leaves)", style="dim")
            except TurnwiseError as error:
                tell = Text(error.message, style="red")

    def _do(self, text: str) -> None:
        if not text:
            return
        if text == "/history":
            self._show_history()
        elif text == "/reset":
            self._ask = None
            self._call(self._line.reset())
            self._console.print("The session is empty.", style="dim")
        elif text == "/help":
            self._console.print(HELP, style="dim")
        else:
            self._talk(text)

    def _talk(self, text: str) -> None:
        try:
            turn = self._call(self._line.submit(text, self._answer(text)))
        except AskClosed:  # by another client: then it is a message
            turn = self._call(self._line.submit(text))
        arrivals: queue.Queue[Mapping[str, Any] | BaseException | None] = queue.Queue()
        asyncio.run_coroutine_threadsafe(self._collect(turn, arrivals), self._loop)
        self._console.print("bot › ", style="bold green", end="")
        self._told, self._open = 0, False
        with self._stopping(turn):
            replied = False
            while (event := arrivals.get()) is not None:
                if isinstance(event, BaseException):
                    raise event
                replied = replied or event["type"] in ("delta", "message")
                if event["type"] == "turn.completed" and not replied:
                    self._console.print("(no reply)", style="dim")
                self._show(event)

    def _answer(self, text: str) -> Answer | None:
        """A text that equals a choice, or its number, is the answer to what was asked last."""
        ask, self._ask = self._ask, None
        if ask is None:
            return None
        if not ask.choices and ask.kind == "question":
            return Answer(ask.id, text)
        choice = ask.typed(text)
        return None if choice is None else Answer(ask.id, choice)

    @contextmanager
    def _stopping(self, turn: int) -> Iterator[None]:
        """Within this context, Ctrl-C cancels the turn and interrupts nothing else."""

        def stop(_number: int, _frame: FrameType | None) -> None:
            asyncio.run_coroutine_threadsafe(self._line.cancel(turn), self._loop)

        previous = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    async def _collect(
        self, turn: int, arrivals: queue.Queue[Mapping[str, Any] | BaseException | None]
    ) -> None:
        try:
            async for event in self._line.events(turn):
                arrivals.put(event)
            arrivals.put(None)
        except Exception as error:
            arrivals.put(error)

    def _show(self, event: Mapping[str, Any]) -> None:
        """Print one event."""
        match event["type"]:
            case "turn.started" if event["attempt"] > 1:
                self._console.print("\n(again)", style="dim")
                self._told, self._open = 0, False
            case "lost":
                self._console.print("\n(the connection is lost; reconnecting)", style="dim")
            case "message.started":
                self._end_line()
                self._told += 1
            case "delta":
                self._print(event["text"])
            case "message":
                self._show_message(event["message"])
            case "step" if event["step"]["status"] != "running":
                self._show_step(event["step"])
            case "ask":
                self._show_ask(Asked.of(event["ask"]))
            case "turn.failed":
                self._end_line()
                self._console.print(Text(event["error"]["message"], style="red"))
            case "turn.cancelled":
                self._end_line()
                self._console.print("(stopped)", style="yellow")
            case "turn.completed":
                self._end_line()

    def _show_message(self, message: Mapping[str, Any]) -> None:
        """A message whose text was streamed adds why it ended, if that is not usual."""
        if self._told:
            self._told -= 1
        else:
            self._end_line()
            self._print(message["text"])
        if ended := message.get("metadata", {}).get("ended"):
            self._console.print(f" ({ended})", style="yellow", markup=False, end="")

    def _end_line(self) -> None:
        if self._open:
            self._console.print()
        self._open = False

    def _show_step(self, step: Mapping[str, Any]) -> None:
        """One line for a step that has ended."""
        self._end_line()
        why = step["error"]["message"] if "error" in step else ""
        line = f"  {STEP[step['status']]} {printable(step['name'])} {printable(why)}".rstrip()
        self._console.print(Text(line, style="red" if why else "dim"))

    def _show_ask(self, ask: Asked) -> None:
        self._end_line()
        self._ask = ask
        for number, choice in enumerate(ask.choices or [], 1):
            self._console.print(Text(f"  {number} {printable(choice)}", style="cyan"))

    def _show_history(self) -> None:
        for message in self._call(self._line.history()):
            who, style = ("you", "cyan") if message["role"] == "user" else ("bot", "green")
            line = Text(f"{who}: ", style=f"dim {style}")
            self._console.print(line.append(printable(message["text"]), style="dim"))
            if message.get("status") == "failed":
                self._console.print(Text(message["error"]["message"], style="red"))
            elif message.get("status") == "cancelled":
                self._console.print("(stopped)", style="yellow")

    def _print(self, text: str) -> None:
        self._console.print(Text(printable(text)), end="", soft_wrap=True)
        self._open = True

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def printable(text: str) -> str:
    """`text` without the characters that could control a terminal."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
