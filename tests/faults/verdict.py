"""The verdict on what people recorded: what was acknowledged was kept, once, in order, heard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from changeful import Changeful
from foreign import Foreign, told
from people import Person

ENDS = ("turn.completed", "turn.failed", "turn.cancelled", "turn.merged")


@dataclass
class Verdict:
    """Counts of what was found, over all people. `broken` says in words what was wrong."""

    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    reordered: int = 0
    gaps: int = 0
    deeds: int = 0
    """Cuts, merges, timers and branches that came to be."""
    broken: list[str] = field(default_factory=list)
    mixed: bool = False
    """Processes of an earlier version were among the servers."""
    _name: str = ""

    @property
    def clean(self) -> bool:
        return not self.broken

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
        self._name = person.name
        self.broken += [f"{person.name}: {words}" for words in person.broken]
        self._count_texts(person, events, rolled_back)
        self._follow_turns(messages, events)
        if isinstance(person, Changeful):
            self._follow_changes(person, messages, events)
        if isinstance(person, Foreign):
            self._follow_streams(person, messages, events)
        self._follow_memory(person, messages, events, bool(rolled_back))
        self._follow_reader(person, events, bool(rolled_back))

    def _note(self, kind: str, wrong: bool, what: object) -> None:
        """Count what is wrong, and say what."""
        if wrong:
            setattr(self, kind, getattr(self, kind) + 1)
            self.broken.append(f"{self._name}: {kind}: {what}")

    def _count_texts(
        self, person: Person, events: list[dict[str, Any]], rolled_back: Sequence[float]
    ) -> None:
        queued = [(e["key"], e["turn"]) for e in events if e["type"] == "turn.queued"]
        found = dict(queued)
        self.acknowledged += len(person.acknowledged)
        self._note("doubled", len(queued) != len(found), "a message is there twice")
        setbacks, excused = list(rolled_back), False
        for ack in reversed(person.acknowledged):
            while setbacks and ack.at <= setbacks[-1]:
                setbacks.pop()
                excused = True
            n = found.get(ack.key)
            if n == ack.n:
                excused = False
            else:  # if it was sent again after a setback, it may be another turn
                self._note("lost", n is None and not excused, ack)
                self._note("reordered", n is not None and not excused, (ack, n))
        for first, second in person.repeated:
            again = any(first.at <= at for at in rolled_back)
            self._note("doubled", first.n != second.n and not again, (first, second))
        turns = [found[ack.key] for ack in person.acknowledged if ack.key in found]
        self._note("reordered", any(b <= a for a, b in pairwise(turns)), turns)

    def _follow_turns(self, messages: list[dict[str, Any]], events: list[dict[str, Any]]) -> None:
        """Turns never overlap, each ends once, its effect landed once, its words are its reply."""
        ids = [event["id"] for event in events]
        self._note("gaps", ids != list(range(1, len(ids) + 1)), "the log has holes")
        replies: dict[int, str] = {}
        for message in messages:
            if message["role"] == "assistant":
                replies[message["turn"]] = replies.get(message["turn"], "") + message["text"]
        running, attempt, said = 0, 0, ""
        waiting: list[int] = []
        ended: list[int] = []
        completed: list[int] = []
        for event in events:
            kind, turn = event["type"], event.get("turn", 0)
            if kind == "turn.queued":
                waiting.append(turn)
            elif kind == "turn.started":
                wrong = running not in (0, turn) or turn not in waiting[:1]
                self._note("reordered", wrong, event)
                running, attempt, said = turn, event["attempt"], ""
            elif kind == "delta":
                self._note("reordered", (turn, event["attempt"]) != (running, attempt), event)
                said += event["text"]
            elif kind in ENDS:
                self._note("doubled", turn in ended, event)
                ended.append(turn)
                if turn in waiting:
                    waiting.remove(turn)
                running = 0 if turn == running else running
                if kind == "turn.completed":
                    completed.append(turn)
                    count = len(completed)
                    self._note("doubled", not said.startswith(f"{count}:"), (count, said))
                    wrong = turn in replies and said != replies[turn]
                    self._note("lost", wrong, (said, replies.get(turn)))
            elif kind == "history.cut":
                self._note("reordered", max(event["turns"]) not in ended, f"goes on: {event}")
                completed = [one for one in completed if one < event["turns"][0]]
        self._note("lost", bool(waiting), f"no end of {waiting}")
        missing = set(completed) - set(replies)
        self._note("lost", bool(missing), f"no reply of {missing}")
        places = [(message["seq"], message["turn"]) for message in messages]
        taken_back = any(event["type"] == "history.cut" for event in events)
        rising = all(a[0] < b[0] for a, b in pairwise(places))
        straight = [seq for seq, _ in places] == list(range(1, len(places) + 1))
        wrong = not rising if taken_back else not straight
        self._note("reordered", wrong or places != sorted(places), places)

    def _follow_changes(
        self, person: Changeful, messages: list[dict[str, Any]], events: list[dict[str, Any]]
    ) -> None:
        """What was said is in the history, or was taken back, or withdrawn; timers fire once."""
        cut: set[int] = set()
        withdrawn: set[int] = set()
        fired: list[str] = []
        said: dict[int, list[str]] = {}
        for event in events:
            kind, message = event["type"], event.get("message")
            if kind == "history.cut":
                first, last = event["turns"]
                cut |= set(range(first, last + 1))
            elif kind == "turn.cancelled":
                withdrawn.add(event["turn"])
            elif kind == "turn.queued" and message is None:
                fired.append(event["reason"])
            elif message is not None and kind in ("turn.queued", "turn.changed"):
                said[event["turn"]] = _texts(message)
        history = {text for message in messages for text in _texts(message)}
        for turn, texts in said.items():
            missing = turn not in cut | withdrawn and not history.issuperset(texts)
            self._note("lost", missing, f"in no history, and not taken back: {texts}")
        for turn, text in person.changed.items():
            self._note("lost", text not in said.get(turn, ()), f"not changed into {text}")
        back = cut & {message["turn"] for message in messages}
        self._note("doubled", bool(back), f"taken back, and in the history: {back}")
        self._note("doubled", sorted(fired) != sorted(person.timed), f"timers fired: {fired}")
        done = [e for e in events if e["type"] in ("history.cut", "turn.merged")]
        self.deeds += len(done) + len(fired) + len(person.branches)

    def _follow_streams(
        self, person: Foreign, messages: list[dict[str, Any]], events: list[dict[str, Any]]
    ) -> None:
        """What each kind of client has heard is what is kept, and what another hears later, chunk
        by chunk; AG-UI's clients hear all anew each time, and only its end is compared."""
        texts: dict[int, str] = {}
        for message in messages:
            if message["role"] == "assistant":
                texts[message["turn"]] = texts.get(message["turn"], "") + message["text"]
        completed = {event["turn"] for event in events if event["type"] == "turn.completed"}
        for heard in person.heard:
            self._note("lost", not heard.turn, f"by {heard.door}: {heard.text}")
            other = heard.door != "ag-ui" and heard.chunks != heard.again
            self._note("gaps", other, f"heard otherwise later: {heard}")
            for chunks in (heard.chunks, heard.again) if heard.turn in completed else ():
                said = told(heard.door, chunks)
                wrong = said != texts.get(heard.turn)
                self._note("lost", wrong, (heard.door, said, texts.get(heard.turn)))
        self.deeds += len(person.heard)

    def _follow_memory(
        self,
        person: Person,
        messages: list[dict[str, Any]],
        events: list[dict[str, Any]],
        rolled_back: bool,
    ) -> None:
        """What a turn remembered is there once, whatever attempt it was; an ask takes one answer,
        from a message that was accepted after it."""
        before = 0
        for message in messages:
            whole = message["role"] == "assistant" and not message.get("partial")
            if whole and ":" in message["text"]:
                mine, _, rest = message["text"].partition(":")[2].strip().partition(" ")
                total = int(rest.partition(" ")[0])
                self._note("doubled", mine != "1", f"done {mine} times: {message}")
                self._note("lost", total <= before and not rolled_back, f"forgotten: {message}")
                before = total
        waiting: set[str] = set()
        asked: dict[str, int] = {}
        closed: list[tuple[str, int]] = []
        for event in events:
            turn = event.get("turn", 0)
            if event["type"] == "ask":
                waiting.add(event["ask"]["id"])
                asked[event["ask"]["id"]] = turn
            elif event["type"] == "turn.queued" and event["message"]:
                given = {answer["ask"] for answer in event["message"].get("answers", [])}
                self._note("reordered", not given <= waiting, f"answered too early: {event}")
            elif event["type"] == "ask.closed":
                self._note("doubled", event["ask"]["id"] not in waiting, event)
                waiting.discard(event["ask"]["id"])
                closed.append((event["ask"]["id"], turn))
            elif event["type"] == "history.cut":  # what was closed since waits again
                first = event["turns"][0]
                waiting |= {ask for ask, by in closed if asked[ask] < first <= by}
                closed = [one for one in closed if one[1] < first]
        self._note("doubled", bool(person.twice) and not rolled_back, f"answered {person.twice}")

    def _follow_reader(
        self, person: Person, events: list[dict[str, Any]], rolled_back: bool
    ) -> None:
        """Everything once and in order, or a gap that was announced.

        A failover takes back what no replica had. Nothing of it was acknowledged, but a reader may
        have heard it, and gets a gap.
        """
        cursor, heard = 0, 0
        for at, event in enumerate(person.seen):
            if event["type"] == "gap":
                back = range(event["resume_at"] + 1, event["after"] + 1)
                heard_before = {e["id"]: e for e in person.seen[:at] if e["id"] in back}
                stands = all(events[id - 1 : id] == [e] for id, e in heard_before.items())
                untrue = not rolled_back and (stands or not heard_before)
                self._note("gaps", untrue, f"nothing is missing, and yet {event}")
                cursor, heard = event["resume_at"], at + 1
                continue
            self._note("gaps", event["id"] != cursor + 1, (cursor, event))
            cursor = event["id"]
        since = person.seen[heard:]
        if since and not rolled_back:
            kept = events[since[0]["id"] - 1 :]
            pairs = zip(since, kept, strict=False)
            other = next(((a, b) for a, b in pairs if not self._is_told(a, b)), None)
            wrong = other is not None or len(since) != len(kept)
            what = f"the reader heard something else: {other or (len(since), len(kept))}"
            self._note("gaps", wrong, what)

    def _is_told(self, heard: dict[str, Any], kept: dict[str, Any]) -> bool:
        """Whether what was heard is what is kept; an earlier version does not tell all of it."""
        if self.mixed:
            return all(name in kept and kept[name] == value for name, value in heard.items())
        return heard == kept


def _texts(message: dict[str, Any]) -> list[str]:
    """What a person said in it, which may be several messages."""
    return [part["text"] for part in message.get("parts") or [message]]
