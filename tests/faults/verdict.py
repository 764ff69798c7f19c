"""The verdict on what people recorded: what was acknowledged was kept, once, in order, heard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from people import Person

ENDS = ("turn.completed", "turn.failed", "turn.cancelled")


@dataclass
class Verdict:
    """Counts of what was found, over all people. `broken` says in words what else is wrong."""

    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    reordered: int = 0
    gaps: int = 0
    broken: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.reordered or self.gaps or self.broken)

    def judge(
        self,
        person: Person,
        messages: list[dict[str, Any]],
        events: list[dict[str, Any]],
        rolled_back: Sequence[float] = (),
    ) -> None:
        """`messages` and `events` are the session's history and log, when all is over.

        Where the store was rolled back (at these times of the monotonic clock), what was
        acknowledged last before may be gone: with a disk that lost its last second nobody can do
        better than tell so.
        """
        self.broken += [f"{person.name}: {words}" for words in person.broken]
        self._count_texts(person, events, rolled_back)
        self._follow_turns(person, messages, events)
        self._follow_reader(person, events, rolled_back)

    def _count_texts(
        self, person: Person, events: list[dict[str, Any]], rolled_back: Sequence[float]
    ) -> None:
        queued = [(e["message"]["text"], e["turn"]) for e in events if e["type"] == "turn.queued"]
        found = dict(queued)
        self.acknowledged += len(person.acknowledged)
        self.doubled += len(queued) - len(found)
        setbacks, excused = list(rolled_back), False
        for ack in reversed(person.acknowledged):
            while setbacks and ack.at <= setbacks[-1]:
                setbacks.pop()
                excused = True
            if ack.text in found:
                excused = False
                self.reordered += found[ack.text] != ack.n
            else:
                self.lost += not excused
        for first, second in person.repeated:
            again = any(first.at <= at for at in rolled_back)
            self.doubled += first.n != second.n and not again
        turns = [found[ack.text] for ack in person.acknowledged if ack.text in found]
        self.reordered += sum(b <= a for a, b in pairwise(turns))

    def _follow_turns(
        self, person: Person, messages: list[dict[str, Any]], events: list[dict[str, Any]]
    ) -> None:
        """Turns never overlap, each ends once, its effect landed once, its words are its reply."""
        if [event["id"] for event in events] != list(range(1, len(events) + 1)):
            self.broken.append(f"{person.name}: the log has holes")
        replies = {m["turn"]: m["text"] for m in messages if m["role"] == "assistant"}
        running, attempt, said, completed = 0, 0, "", 0
        ended: list[int] = []
        for event in events:
            kind, turn = event["type"], event.get("turn", 0)
            if kind == "turn.started":
                self.reordered += running not in (0, turn) or turn != len(ended) + 1
                running, attempt, said = turn, event["attempt"], ""
            elif kind == "delta":
                self.reordered += (turn, event["attempt"]) != (running, attempt)
                said += event["text"]
            elif kind in ENDS:
                self.doubled += turn in ended
                ended.append(turn)
                running = 0
                if kind == "turn.completed":
                    completed += 1
                    self.doubled += not said.startswith(f"{completed}:")
                    self.lost += said != replies.get(turn)
        asked = [e["turn"] for e in events if e["type"] == "turn.queued"]
        self.lost += len(set(asked) - set(ended))
        seqs = [message["seq"] for message in messages]
        self.reordered += seqs != list(range(1, len(seqs) + 1))
        self.reordered += [m["turn"] for m in messages] != sorted(m["turn"] for m in messages)

    def _follow_reader(
        self, person: Person, events: list[dict[str, Any]], rolled_back: Sequence[float]
    ) -> None:
        """Everything once and in order, or a gap that was announced."""
        cursor, heard = 0, 0
        for at, event in enumerate(person.seen):
            if event["type"] == "gap":
                cursor, heard = event["resume_at"], at + 1
                continue
            self.gaps += event["id"] != cursor + 1
            cursor = event["id"]
        since = person.seen[heard:]
        if since and not rolled_back and since != events[since[0]["id"] - 1 :]:
            self.broken.append(f"{person.name}: the reader heard something else")
        if not rolled_back and heard:
            self.gaps += 1  # nothing was missing, and yet it was said
