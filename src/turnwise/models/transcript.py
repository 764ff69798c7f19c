"""Transcript: the calls and results of earlier turns, which a model must see again.

They are kept in the session's memory, an entry for each message, so they outlive a stop, a crash
and the next attempt: a call whose result is there is not run again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from turnwise.conversation import valid_text
from turnwise.identity import bits
from turnwise.memory import Entry
from turnwise.models.calls import Call
from turnwise.turn import Turn

OURS = "openai"
"""The key of our entries in the memory, beside what a bot itself keeps there."""
INTERRUPTED = "No result: it was interrupted."
WAITING = "Not run yet: it waits until the person allows it."
UNANSWERED = "Not allowed: the person wrote something else instead."
DECLINED = "Not allowed: the person declined."
MANY = 400
"""Entries above which those of turns that are no longer in the history are forgotten."""


class Transcript:
    """The calls and results of a session, as its memory holds them."""

    def __init__(self, turn: Turn, entries: Iterable[Entry]) -> None:
        self._turn = turn
        self._calls: list[tuple[int, dict[str, Any]]] = []
        self._results: dict[str, str] = {}
        self._done: set[str] = set()
        """The calls whose results are of this turn."""
        self.asked: dict[str, str] = {}
        """The calls that an ask is about, by the ask's id."""
        self._entries = list(entries)
        for entry in self._entries:
            if isinstance(entry.body, dict) and OURS in entry.body:
                self._take(entry.turn, entry.body[OURS])

    @classmethod
    async def of(cls, turn: Turn) -> Transcript:
        """That of the turn's session."""
        return cls(turn, await turn.memory.read(last=MANY * 2))

    def _take(self, turn: int, kept: Mapping[str, Any]) -> None:
        if kept.get("role") == "tool":
            self._results[kept["tool_call_id"]] = kept["content"]
            if turn == self._turn.n:
                self._done.add(kept["tool_call_id"])
        elif kept.get("tool_calls"):
            self._calls.append((turn, dict(kept)))
        elif "ask" in kept:
            self.asked[kept["ask"]] = kept["call"]

    async def _keep(self, *kept: dict[str, Any]) -> None:
        await self._turn.memory.add(*({OURS: one} for one in kept))
        for one in kept:
            self._take(self._turn.n, one)

    async def called(self, text: str, calls: Sequence[Call]) -> list[Call]:
        """The model has called. Returns the calls, each with an id that no other has: some servers
        count from nought in every answer."""
        known = {call.id for _, message in self._calls for call in _calls_of(message)}
        fresh: list[Call] = []
        for call in calls:
            if call.id in known:
                call = call._replace(id=f"call_{bits(96):024x}")
            known.add(call.id)
            fresh.append(Call(call.id, valid_text(call.name), valid_text(call.arguments)))
        message = {"role": "assistant", "content": valid_text(text) or None}
        await self._keep({**message, "tool_calls": [call.as_dict() for call in fresh]})
        return fresh

    async def resulted(self, call: str, result: str) -> None:
        """A call has its result."""
        await self._keep({"role": "tool", "tool_call_id": call, "content": valid_text(result)})

    async def asks(self, ask: str, call: str) -> None:
        """A call waits for an answer."""
        await self._keep({"ask": ask, "call": call})

    def waiting(self) -> list[Call]:
        """The calls that have no result, and either a person was asked for them, or they are of the
        last round."""
        asked = set(self.asked.values())
        last = len(self._calls) - 1
        return [
            call
            for place, (_, message) in enumerate(self._calls)
            for call in _calls_of(message)
            if call.id not in self._results and (place == last or call.id in asked)
        ]

    def done(self) -> list[tuple[Call, str]]:
        """The calls of this turn that have a result, with it: earlier attempts have run them."""
        return [
            (call, self._results[call.id])
            for _, message in self._calls
            for call in _calls_of(message)
            if call.id in self._done
        ]

    @property
    def last_turn(self) -> int:
        """The turn of the last round."""
        return self._calls[-1][0] if self._calls else 0

    def rounds(self) -> int:
        """How many rounds this turn has had."""
        return sum(turn == self._turn.n for turn, _ in self._calls)

    def by_turn(self) -> dict[int, list[dict[str, Any]]]:
        """What the model sees of each turn's calls: every call with its result."""
        found: dict[int, list[dict[str, Any]]] = {}
        open_calls = {self.asked[ask] for ask in self._turn.asks if ask in self.asked}
        for turn, message in self._calls:
            group = found.setdefault(turn, [])
            # What was said beside the calls of an earlier turn is in its answer.
            group.append(message if turn == self._turn.n else {**message, "content": None})
            for call in message["tool_calls"]:
                missing = WAITING if call["id"] in open_calls else INTERRUPTED
                result = self._results.get(call["id"], missing)
                group.append({"role": "tool", "tool_call_id": call["id"], "content": result})
        return found

    async def tidy(self) -> None:
        """Forget the entries of turns that are no longer in the history, up to the first entry that
        is needed or is not ours."""
        if len(self._entries) <= MANY:
            return
        oldest = min((m.turn for m in self._turn.messages if m.turn is not None), default=0)
        for entry in self._entries:
            ours = isinstance(entry.body, dict) and OURS in entry.body
            if entry.turn >= oldest or not ours:
                await self._turn.memory.forget(before=entry.n)
                return


def _calls_of(message: Mapping[str, Any]) -> list[Call]:
    return [Call(call["id"], **call["function"]) for call in message["tool_calls"]]
