"""Reading: a model server's answer as pieces of text, whatever form it has.

OpenAI-compatible servers differ in everything but the simplest answer: chunks without choices or
without text, errors inside a stream that started well, one JSON document although a stream was
requested, a page of HTML from a proxy, lines that are invalid in a stream. None of this may lose
text that was received.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from typing import Any, Literal

from turnwise.identity import bits
from turnwise.models.calls import Call

DONE = object()
"""Represents `data: [DONE]`."""
OPENS, CLOSES = "<think>", "</think>"
MOST_STRANGE = 100_000
"""Characters kept of an answer that is not a stream."""

_ENDS = {
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "model_context_window_exceeded": "length",
    "content_filter": "filtered",
    "safety": "filtered",
    "error": "error",
}
_FIELDS = ("event:", "id:", "retry:", ":")


class Strange(str):
    """A body without a single JSON document in it."""


async def documents(lines: AsyncIterable[str]) -> AsyncIterator[Any]:
    """The JSON documents of a stream of server-sent events, or of another kind of body; DONE for
    its end marker, and a Strange text if there was no JSON at all."""
    data: list[str] = []
    strange: list[str] = []
    size, found = 0, False
    async for line in lines:
        line = line.lstrip("\ufeff")
        if line.startswith("data:"):
            data.append(line[5:].strip())
        elif line.startswith("error:"):
            data.append(f'{{"error": {line[6:].strip()}}}')
        elif line.startswith(_FIELDS):
            continue
        elif line.strip():
            size += len(line)
            if size <= MOST_STRANGE:
                strange.append(line)
        elif data:
            for document in _parsed("\n".join(data)):
                found = True
                yield document
            data.clear()
    for text in ("\n".join(data), "\n".join(strange)):
        for document in _parsed(text):
            found = True
            yield document
    if not found and strange:
        yield Strange("\n".join(strange))


def _parsed(text: str) -> Iterator[Any]:
    """The documents in a text, one or several; text that is not JSON is skipped."""
    decoder, place = json.JSONDecoder(), 0
    while place < len(text):
        if text.startswith("[DONE]", place) or text.startswith("[done]", place):
            yield DONE
            place += len("[DONE]")
            continue
        try:
            document, place = decoder.raw_decode(text, place)
        except ValueError:
            place = text.find("\n", place) + 1 or len(text)
        else:
            yield document
        while place < len(text) and text[place].isspace():
            place += 1


class Inside:
    """Splits a text that begins with `<think>` into reasoning and answer, piece by piece."""

    def __init__(self) -> None:
        self._held = ""
        self._where: Literal["start", "thought", "text"] = "start"

    def split(self, piece: str, *, last: bool = False) -> tuple[str, str]:
        """The text and the reasoning that a piece adds. What may be a mark is held back."""
        if self._where == "text":
            return piece, ""
        held, self._held = self._held + piece, ""
        if self._where == "start":
            begun = held.lstrip()
            if begun.startswith(OPENS):
                self._where, held = "thought", begun[len(OPENS) :]
            elif OPENS.startswith(begun) and not last:
                self._held = held
                return "", ""
            else:
                self._where = "text"
                return held, ""
        thought, mark, text = held.partition(CLOSES)
        if mark:
            self._where = "text"
            return text.lstrip(), thought
        if not last:
            for size in range(min(len(CLOSES) - 1, len(held)), 0, -1):
                if CLOSES.startswith(held[-size:]):
                    self._held = held[-size:]
                    return "", held[:-size]
        return "", held


class Answer:
    """The received part of an answer."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew: another request is made for it."""
        self.said = False
        """Whether there was text."""
        self.thought = False
        """Whether there was reasoning."""
        self.done = False
        """Whether the server marked the end."""
        self.text = ""
        """All of it."""
        self.thoughts = ""
        """Reasoning since the last `take_thoughts`."""
        self.inside: Inside | None = None
        """Splits reasoning from a text that begins with it."""
        self._calls: dict[int, dict[str, str]] = {}
        self.finish: str | None = None
        self.model: str | None = None
        self.usage: dict[str, int] | None = None
        self.trouble: Any = None
        """The body of an error that arrived instead of an answer."""

    @property
    def calls(self) -> list[Call]:
        """The tool calls, in order; one without an id gets one."""
        if self.ended in ("cut", "error"):
            return []  # perhaps not whole
        for found in self._calls.values():
            found["id"] = found["id"] or f"call_{bits(96):024x}"
        whole = (found for _, found in sorted(self._calls.items()) if found["name"])
        return [Call(found["id"], found["name"], found["arguments"]) for found in whole]

    @property
    def progress(self) -> tuple[int, bool, int]:
        """It changes when the model has said, thought or called something more."""
        written = sum(len(call["arguments"]) + 1 for call in self._calls.values())
        return len(self.text), self.thought and not self.said, len(self.thoughts) + written

    def take_thoughts(self) -> str:
        """The reasoning since the last time."""
        thoughts, self.thoughts = self.thoughts, ""
        return thoughts

    @property
    def ended(self) -> str | None:
        """Why the text is incomplete: length, filtered, error or cut; None if it is complete."""
        if self.trouble is not None:
            return "error"
        if self.finish is None:
            return None if self.done else "cut"
        return _ENDS.get(self.finish.lower())

    def hear(self, document: Any) -> str:
        """The text that a document adds."""
        if document is DONE:
            self.done = True
        if isinstance(document, Strange):
            self.trouble = self.trouble or document
        if not isinstance(document, dict):
            return ""
        self.trouble = self.trouble or _error_in(document)
        if isinstance(document.get("model"), str) and document["model"]:
            self.model = document["model"]
        self._count(document.get("usage"))
        choices = document.get("choices")
        text = ""
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and choice.get("index") in (0, None):
                text += self._choice(choice)
        if text or document is DONE:
            self.inside = self.inside or Inside()
            text, thought = self.inside.split(text, last=document is DONE)
            self._think(thought)
        self.text += text
        self.said = self.said or bool(text)
        return text

    def rest(self) -> str:
        """What was held back of the text when the answer ended without a mark."""
        if self.inside is None:
            return ""
        text, thought = self.inside.split("", last=True)
        self._think(thought)
        self.text += text
        self.said = self.said or bool(text)
        return text

    def _think(self, thought: Any) -> None:
        if isinstance(thought, str) and thought:
            self.thought = True
            self.thoughts += thought

    def _place(self, piece: dict[str, Any], *, begins: bool) -> int:
        """Which call a piece belongs to: by its id if that is known, else by its index; an index
        that another call has with another id is of a new one."""
        id, place = piece.get("id"), piece.get("index")
        if isinstance(id, str) and id:
            for known, call in self._calls.items():
                if call["id"] == id:
                    return known
        if not isinstance(place, int):
            return len(self._calls) if begins else max(self._calls, default=0)
        taken = self._calls.get(place, {}).get("id")
        return max(self._calls) + 1 if id and taken and taken != id else place

    def _call(self, calls: Any) -> None:
        """Pieces of tool calls; some servers send them whole, without a place or an id."""
        for piece in calls if isinstance(calls, list) else ():
            if not isinstance(piece, dict):
                continue
            function = piece.get("function")
            function = function if isinstance(function, dict) else {}
            place = self._place(piece, begins=bool(function.get("name")))
            call = self._calls.setdefault(place, {"id": "", "name": "", "arguments": ""})
            for name, value in (("id", piece.get("id")), ("name", function.get("name"))):
                if isinstance(value, str) and value and not call[name]:
                    call[name] = value
            given = function.get("arguments", "")
            call["arguments"] += given if isinstance(given, str) else json.dumps(given or {})

    def _choice(self, choice: dict[str, Any]) -> str:
        self.trouble = self.trouble or choice.get("error")
        if isinstance(choice.get("finish_reason"), str) and choice["finish_reason"]:
            self.finish = choice["finish_reason"]
        text = self._text(choice.get("delta"))
        if text or self.said:
            return text
        whole = choice.get("message")
        if (
            isinstance(whole, dict) and not self._calls
        ):  # one document although a stream was requested
            self.done = True
            return self._text(whole)
        return choice["text"] if isinstance(choice.get("text"), str) else ""

    def _text(self, said: Any) -> str:
        if not isinstance(said, dict):
            return ""
        for name in ("reasoning_content", "reasoning", "thinking"):
            if said.get(name):
                self.thought = True
                self._think(said[name])
                break
        self._call(said.get("tool_calls"))
        content = said.get("content")
        if isinstance(content, list):
            content = "".join(map(self._part, content))
        if isinstance(content, str) and content:
            return content
        refusal = said.get("refusal")
        return refusal if isinstance(refusal, str) else ""

    def _part(self, part: Any) -> str:
        if isinstance(part, str):
            return part
        if not isinstance(part, dict):
            return ""
        if part.get("type") in ("thinking", "reasoning"):
            self.thought = True
            self._think(part.get("thinking") or part.get("text"))
            return ""
        return part["text"] if isinstance(part.get("text"), str) else ""

    def _count(self, usage: Any) -> None:
        """Some servers report the usage so far in each chunk: the last one counts."""
        if not isinstance(usage, dict):
            return
        names = {
            "input_tokens": "prompt_tokens",
            "output_tokens": "completion_tokens",
            "total_tokens": "total_tokens",
        }
        counts = {ours: _tokens(usage.get(theirs)) for ours, theirs in names.items()}
        if any(counts.values()):
            self.usage = {name: number for name, number in counts.items() if number is not None}


def _tokens(number: Any) -> int | None:
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number < 2**53:
        return None
    return int(number)


def _error_in(document: dict[str, Any]) -> Any:
    """The error in a document, or None. Some servers wrap it, others do not."""
    if document.get("error"):
        return document["error"]
    if document.get("choices"):
        return None
    if document.get("object") == "error" or document.get("type") == "error":
        return document
    if "detail" in document or (
        "code" in document and ("message" in document or "details" in document)
    ):
        return document
    return None
