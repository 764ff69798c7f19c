"""The laws that hold in every world: what guarantees.md promises, checked on the whole log."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from world import SESSIONS, Reader, World

from turnwise.conversation.events import (
    ASK,
    ASK_CLOSED,
    CANCELLED,
    CHANGED,
    COMPLETED,
    CUT,
    DELTA,
    FAILED,
    GAP,
    MERGED,
    MESSAGE,
    MESSAGE_STARTED,
    QUEUED,
    RESET,
    STARTED,
    STEP,
)


@dataclass
class Told:
    """What a session's log comes to: the history and the state that it must have."""

    messages: list[tuple[int, str]] = field(default_factory=list)
    completed: set[int] = field(default_factory=set)
    """The turns whose handler has changed the state."""
    turns: dict[int, str] = field(default_factory=dict)
    ended: dict[int, str] = field(default_factory=dict)
    asks: list[str] = field(default_factory=list)
    resets: int = 0
    emptied: set[int] = field(default_factory=set)
    """The turns that a reset has ended, or that were taken back."""
    cut: set[int] = field(default_factory=set)
    """The turns that were taken back."""
    asked: dict[str, int] = field(default_factory=dict)
    """The turns of asks, by their ids."""
    closed: list[tuple[str, int]] = field(default_factory=list)
    """Asks that were closed, and by which turn."""


def check(world: World) -> None:
    """Raises AssertionError that names the seed and what was broken."""
    for session in SESSIONS:
        told = walk(world, session)
        _check_acknowledged(world, session, told)
        _check_history(world, session, told)
        _check_memory(world, session, told)
        _check_copy(world, session)
    for name, (sessions, tally) in world.owned.items():
        assert sessions == [name], "an owner's list is wrong"
        assert tally == (0, 0), "turns of an owner are counted that have ended"
    for reader in world.readers:
        _check_reader(world, reader)


def walk(world: World, session: str) -> Told:
    """Follow the log from its first event; no step may break the order of things."""
    log = world.logs[session]
    assert sorted(log) == list(range(1, len(log) + 1)), "numbers have a gap"
    told = Told()
    running = attempt = 0
    questions: dict[int, str] = {}
    replies: list[tuple[int, str]] = []
    named: list[str] = []
    steps: dict[str, str] = {}
    closing: list[tuple[str, str]] = []
    lost = False
    cancelled: set[int] = set()
    for id in sorted(log):
        event = log[id].json()
        kind, turn = event["type"], event.get("turn", 0)
        if kind == ASK_CLOSED:
            closed = event["ask"]["id"], event["why"]
            assert closed in closing or kind == RESET or turn == 0, "an ask closed by itself"
            told.asks.remove(closed[0])
            told.closed.append((closed[0], turn))
            closing = [one for one in closing if one != closed]
            continue
        assert closing == [], "a message left an ask open that it closes"
        assert not lost or kind in (CANCELLED, RESET), "what was said is lost"
        if kind not in (CANCELLED, RESET):
            cancelled = set()
        if kind == QUEUED:
            assert turn == len(told.turns) + 1, "turns are not numbered in order"
            message = event["message"]
            if message is None:
                told.turns[turn] = event["reason"] or ""
            else:
                told.turns[turn] = questions[turn] = message["text"]
                given = [answer["ask"] for answer in message.get("answers", [])]
                assert set(given) <= set(told.asks), "an answer to what is not open"
                why = "answered" if given else "message"
                closing = [(ask, why) for ask in given or told.asks]
        elif kind == CHANGED:
            assert turn not in told.ended, "a turn was changed that had ended"
            questions[turn] = event["message"]["text"]
        elif kind == MERGED:
            assert turn not in told.ended, "a turn ended twice"
            assert event["merged_into"] not in told.ended, "merged into what has ended"
            told.ended[turn] = kind
        elif kind == CUT:
            first, last = event["turns"]
            told.messages = [one for one in told.messages if one[0] < first]
            gone = set(range(first, last + 1))
            told.cut |= gone
            told.emptied |= gone
            told.completed -= gone
            assert gone <= set(told.ended), "a turn was taken back and goes on"
            again = [a for a, by in told.closed if told.asked[a] < first <= by]
            told.asks = [a for a in again if a not in told.asks] + told.asks
            told.closed = [one for one in told.closed if one[1] < first]
            running, lost = 0 if running >= first else running, False
        elif kind == STARTED:
            assert turn not in told.ended, "a turn started after its end"
            assert running in (0, turn), "two turns at once"
            waiting = [n for n in told.turns if n not in told.ended]
            assert turn == min(waiting), "a turn overtook another"
            assert event["attempt"] <= attempt + 1 if running == turn else True
            running, attempt, replies, named, steps = turn, event["attempt"], [], [], {}
        elif kind == MESSAGE_STARTED:
            assert event["index"] == len(named), "messages are not in order"
            named.append(event["message"]["id"])
        elif kind == STEP:
            steps[event["step"]["id"]] = event["step"]["status"]
        elif kind == ASK:
            assert event["message"] == named[len(replies) - 1]
            told.asks.append(event["ask"]["id"])
            told.asked[event["ask"]["id"]] = turn
        elif kind == DELTA:
            assert (turn, event["attempt"]) == (running, attempt), "a word of a stale attempt"
        elif kind == MESSAGE:
            assert turn == running, "a reply to a turn that does not run"
            assert event["message"]["id"] == named[len(replies)], "a message changed its name"
            replies.append((turn, event["message"]["text"]))
        elif kind in (COMPLETED, FAILED, CANCELLED):
            assert turn not in told.ended, "a turn ended twice"
            told.ended[turn] = kind
            if kind == CANCELLED:
                cancelled.add(turn)
            if turn == running:
                lost = len(replies) < len(named)  # only a reset leaves nothing
                assert kind != COMPLETED or "running" not in steps.values()
                asked = [(turn, questions[turn])] if turn in questions else []
                told.messages += [*asked, *replies]
                if kind == COMPLETED and (asked or told.turns[turn]):
                    told.completed.add(turn)
                running, attempt = 0, 0
            else:
                assert kind == CANCELLED, "a turn that did not run ended"
        elif kind == RESET:
            told.messages, told.completed = [], set()
            told.closed = []
            told.resets, lost = told.resets + 1, False
            told.emptied |= cancelled
            assert told.asks == [], "a reset left an ask open"
            running = 0
            assert set(told.ended) == set(told.turns), "a reset left turns open"
    assert set(told.ended) == set(told.turns), "a turn never ended"
    return told


def _check_acknowledged(world: World, session: str, told: Told) -> None:
    """What was acknowledged is there, once; nothing else is."""
    acked, timed = world.acked[session], world.timed[session]
    for n, text in acked.values():
        assert told.turns.get(n) == text, "an acknowledged message is lost"
    assert len({n for n, _ in acked.values()}) == len(acked), "two messages, one turn"
    rang = [text for text in told.turns.values() if text.endswith("reason")]
    assert len(set(rang)) == len(rang), "a timer rang twice"
    assert told.resets or timed <= set(rang), "a timer did not ring"
    others = [text for text in told.turns.values() if not text.endswith("reason")]
    assert sorted(others) == sorted(t for _, t in acked.values()), "a message came twice"


def _check_history(world: World, session: str, told: Told) -> None:
    """History and state are what the log tells."""
    history: list[Any] = [json.loads(message) for message in world.histories[session]]
    assert [(m["turn"], m["text"]) for m in history] == told.messages, "history and log disagree"
    seqs = [m["seq"] for m in history]
    assert sorted(set(seqs)) == seqs
    if not told.cut:
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs))) if seqs else True
    state = json.loads(world.states[session])
    assert state.get("n", 0) == len(told.completed), "an effect was lost or came twice"


def _check_memory(world: World, session: str, told: Told) -> None:
    """What the bot was told to be remembered is, once, until a reset; open asks are the log's."""
    memory, acked = world.memories[session], world.remembered[session]
    numbers = [n for n, _ in memory]
    assert numbers == sorted(set(numbers))
    if not told.cut:
        assert numbers == list(range(numbers[0], numbers[-1] + 1)) if memory else True
    first = memory[0][0] if memory else 0
    kept = dict(memory)
    for n, body in acked:
        if int(body.split(".")[0]) in told.cut:
            assert n not in kept, "what was learned in a turn that was taken back"
        elif (told.resets == 0 and body) or (memory and n >= first):
            assert kept.get(n) == body, "an acknowledged memory is lost"
    assert len({body for _, body in memory}) == len(memory), "a memory came twice"
    assert sorted(world.asks[session]) == sorted(told.asks)
    forgetful = {n for name, n in world.forgetful if name == session}
    assert forgetful <= told.emptied, "an attempt has forgotten what an earlier one remembered"


def _check_copy(world: World, session: str) -> None:
    """A fork at the last turn has the same history, state and memory."""
    messages, state, memory = world.copies[session]
    assert messages == world.histories[session]
    assert json.loads(state) == json.loads(world.states[session])
    assert memory == world.memories[session]


def _check_reader(world: World, reader: Reader) -> None:
    """Everything once and in order, and what is missing is announced."""
    log, cursor = world.logs[reader.session], 0
    for event in reader.seen:
        if event.type == GAP:
            assert event.id >= cursor
            cursor = event.id
            continue
        assert event.id == cursor + 1, f"event {event.id} after {cursor}, unannounced"
        assert event.tail == log[event.id].tail
        cursor = event.id
    assert cursor == len(log), "a reader did not hear of everything"
