"""Rehearsal: plays a dialog file of expected exchanges and reports the differences.

    # a comment
    > Hi
    Hi, how are you?
    > fine
    Good.
    What do you want to talk about?

    --- another conversation
    > anything else
    Ooops

The lines after a line that begins with `>` are the expected reply, line by line.
"""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from turnwise.errors import ConfigurationError, TurnError

Say = Callable[[str, str], Awaitable[str]]


@dataclass
class Exchange:
    """A message, its expected reply, and the line of the file."""

    said: str
    line: int
    expected: list[str] = field(default_factory=list)


def read(path: Path) -> list[list[Exchange]]:
    """The conversations of a dialog file. Raises ConfigurationError with the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from None
    found: list[list[Exchange]] = [[]]
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            continue
        if line.startswith("---"):
            found.append([])
        elif line.startswith(">"):
            found[-1].append(Exchange(line[1:].strip(), number))
        elif found[-1]:
            found[-1][-1].expected.append(line.rstrip())
        elif line.strip():
            raise ConfigurationError(f"{path}:{number}: a reply before anything is said with >")
    for conversation in found:
        for exchange in conversation:
            while exchange.expected and not exchange.expected[-1]:
                exchange.expected.pop()
    return [conversation for conversation in found if conversation]


async def play(path: Path, conversations: list[list[Exchange]], say: Say) -> list[str]:
    """The differences, each as readable lines; empty if all replies are as expected.

    `say(session, text)` returns the reply.
    """
    differences = []
    for number, conversation in enumerate(conversations, 1):
        for exchange in conversation:
            try:
                reply = await say(f"conversation {number}", exchange.said)
            except TurnError as error:
                reply = f"[failed: {error.message}]"
            got = [line.rstrip() for line in reply.splitlines()]
            if got != exchange.expected:
                compared = difflib.ndiff(exchange.expected, got)
                lines = [f"  {line.rstrip()}" for line in compared]
                where = f"{path}:{exchange.line}: > {exchange.said}"
                differences.append("\n".join([where, *lines]))
                break  # the rest of this conversation is no longer meaningful
    return differences
