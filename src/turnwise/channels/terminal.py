"""The terminal: talk to a bot in a shell, in this process or on a server.

The conversation runs on an event loop in a separate thread; the main thread reads lines and
prints. So Ctrl-C, which Python delivers to the main thread, stops the turn and not the program.
Control characters are removed from received text: it must not control the terminal.
"""

from __future__ import annotations

import asyncio
import queue
import shlex
import signal
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from rich.console import Console
from rich.text import Text

from turnwise.channels.lines import Line
from turnwise.conversation import Answer, Asked
from turnwise.errors import (
    AskClosed,
    Invalid,
    TurnwiseError,
)

T = TypeVar("T")
HELP = (
    "Ctrl-C stops the answer, Ctrl-D leaves. /edit TEXT changes your last message, /again answers "
    "it anew, /fork goes on in a copy, /file PATH [TEXT] sends a file, /sessions [N] lists and "
    "opens. /history, /reset, /help"
)
STEP = {"completed": "✓", "failed": "✗"}


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
        elif text.startswith("/edit "):
            self._follow(self._call(self._line.submit(text[6:], replaces=self._last_turn())))
        elif text.startswith("/file "):
            self._send_file(text[6:].strip())
        elif text == "/again":
            self._follow(self._call(self._line.again(self._last_turn())))
        elif text == "/fork":
            words = "This is a copy; the other one is as it was."
            self._enter(self._call(self._line.fork()), words)
        elif text == "/sessions" or text.startswith("/sessions "):
            self._sessions(text[9:].strip())
        else:
            self._talk(text)

    def _send_file(self, text: str) -> None:
        """Send a file, with a message behind its path. A path with spaces is quoted."""
        try:
            path, *words = shlex.split(text)
            file = self._call(self._line.upload(Path(path).expanduser()))
        except (OSError, ValueError) as error:
            raise Invalid(f"The file cannot be read: {error}") from None
        self._follow(self._call(self._line.submit(" ".join(words), files=[file])))

    def _last_turn(self) -> int:
        """The turn of the last message of a person. Raises Invalid."""
        asked = [m for m in self._call(self._line.history()) if m["role"] == "user"]
        if not asked:
            raise Invalid("You have not sent a message yet.")
        n: int = asked[-1]["turn"]
        return n

    def _enter(self, line: Line, words: str) -> None:
        self._line, self._ask = line, None
        self._console.print(words, style="dim")

    def _sessions(self, number: str) -> None:
        """List the sessions, or open one of the list."""
        found = self._call(self._line.sessions())
        if number.isdigit() and 1 <= int(number) <= len(found):
            chosen = found[int(number) - 1]
            self._enter(self._line.other(chosen["id"]), printable(_name_of(chosen)))
            self._show_history()
            return
        for place, session in enumerate(found, 1):
            line = f"  {place} {printable(_name_of(session))}, {session['messages']} messages"
            self._console.print(Text(line, style="dim"))

    def _talk(self, text: str) -> None:
        try:
            turn = self._call(self._line.submit(text, self._answer(text)))
        except AskClosed:  # by another client: then it is a message
            turn = self._call(self._line.submit(text))
        self._follow(turn)

    def _follow(self, turn: int) -> None:
        """Print a turn while it is answered."""
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


def _name_of(session: Mapping[str, Any]) -> str:
    return str(session["name"] or session["id"])


def printable(text: str) -> str:
    """`text` without the characters that could control a terminal."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
