"""Rehearsal: plays a dialog file of expected exchanges and reports the differences.

    # a comment
    > Hi
    Hi, how are you?
    > fine
    Good.
    What do you want to talk about?

    --- another conversation
    @language de
    > a message
    >> of two lines
    one of several replies
    |
    Your number is [*], for example
    [...]

The lines after a line that begins with `>` are the expected reply, as `shown` writes it. `[*]` is
any text within a line, a line `[...]` any lines; replies with `|` between them are alternatives.
`@name value` at the beginning of a conversation is metadata of its messages.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from turnwise.conversation import Message, Reply
from turnwise.errors import ConfigurationError, TurnError

Say = Callable[[str, str, Mapping[str, str]], Awaitable[Reply]]
MARKS = (">", "#", "---", "\\")
"""What a line begins with that is not a reply's; before a reply's own is a backslash."""
ANY, ANY_LINES = "[*]", "[...]"


@dataclass
class Exchange:
    """A message, its metadata, the line of the file, and the replies of which one is expected."""

    said: str
    line: int
    metadata: dict[str, str] = field(default_factory=dict)
    expected: list[list[str]] = field(default_factory=lambda: [[]])


def read(path: Path) -> list[list[Exchange]]:
    """The conversations of a dialog file. Raises ConfigurationError with the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from None
    found: list[list[Exchange]] = [[]]
    metadata: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            continue
        exchange = found[-1][-1] if found[-1] else None
        if line.startswith("---"):
            found.append([])
            metadata = {}
        elif line.startswith("@") and exchange is None:
            name, _, value = line[1:].strip().partition(" ")
            metadata = {**metadata, name: value.strip()}
        elif line.startswith(">>") and exchange is not None and exchange.expected == [[]]:
            exchange.said += f"\n{line[2:].strip()}"
        elif line.startswith(">"):
            found[-1].append(Exchange(line[1:].strip(), number, metadata))
        elif exchange is None:
            if line.strip():
                raise ConfigurationError(f"{path}:{number}: a reply before anything is said with >")
        elif line.strip() == "|":
            exchange.expected.append([])
        else:
            exchange.expected[-1].append(line.rstrip())
    for conversation in found:
        for exchange in conversation:
            exchange.expected = [_trimmed(reply) for reply in exchange.expected]
    return [conversation for conversation in found if conversation]


def _trimmed(lines: list[str]) -> list[str]:
    """Without empty lines at the end."""
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    return lines


def shown(messages: list[Message]) -> list[str]:
    """A reply as lines: its texts, `[image/png: URL (name)]` for a file, `[choices: a | b]` for
    what can be chosen, `[asks: a form]` for another question."""
    lines: list[str] = []
    for message in messages:
        text = [line.rstrip() for line in message.text.splitlines()]
        lines += [f"\\{x}" if x.startswith(MARKS) or x.strip() == "|" else x for x in text]
        for one in message.attachments:
            lines.append(f"[{one.type}: {one.url}{f' ({one.name})' if one.name else ''}]")
        ask = message.ask
        if ask is not None and ask.choices:
            lines.append(f"[choices: {' | '.join(ask.choices)}]")
        elif ask is not None:
            lines.append(f"[asks: {ask.name or 'a ' + ask.kind}]")
    return _trimmed(lines)


async def play(path: Path, conversations: list[list[Exchange]], say: Say) -> list[str]:
    """The differences, each as readable lines; empty if all replies are as expected.

    `say(session, text, metadata)` returns the reply. Raises what it raises, except TurnError.
    """
    differences = []
    for number, conversation in enumerate(conversations, 1):
        for exchange in conversation:
            try:
                reply = await say(f"conversation {number}", exchange.said, exchange.metadata)
                got = shown(reply.messages)
            except TurnError as error:
                got = [f"[failed: {error.message}]"]
            if not any(fits(expected, got) for expected in exchange.expected):
                nearest = max(exchange.expected, key=lambda one: _likeness(one, got))
                lines = [f"  {line.rstrip()}" for line in difflib.ndiff(nearest, got)]
                where = f"{path}:{exchange.line}: > {exchange.said.splitlines()[0]}"
                differences.append("\n".join([where, *lines]))
                break  # the rest of this conversation is no longer meaningful
    return differences


def fits(expected: list[str], got: list[str]) -> bool:
    """Whether a reply is as expected."""
    parts = [_pattern(line) for line in expected]
    return re.fullmatch("".join(parts), "".join(f"{line}\n" for line in got)) is not None


def _pattern(line: str) -> str:
    if line == ANY_LINES:
        return r"(?:.*\n)*?"
    return ".*?".join(map(re.escape, line.split(ANY))) + r"\n"


def _likeness(expected: list[str], got: list[str]) -> float:
    return difflib.SequenceMatcher(None, expected, got).ratio()
