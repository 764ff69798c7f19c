"""Rules: taking back what was said, and a copy of a session up to a turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from turnwise.errors import Superseded, TooFarBack
from turnwise.stores.claim import Outcome
from turnwise.stores.header import Header
from turnwise.stores.notices import Signal
from turnwise.stores.rows import ENDED, End, Entry, body, head_of, question_of
from turnwise.stores.rules.ending import close, kept_of, record_of
from turnwise.stores.rules.remains import remains
from turnwise.stores.rules.visible import is_cut
from turnwise.stores.rules.work import Part, Work, move, queued, waiting

PAGE = 200


def cut(work: Work, session: str, n: int) -> Part:
    """Take back turn `n` and all behind it: history, state, memory and asks are as before it.

    Raises Superseded, TooFarBack.
    """
    header = work.header
    entries = yield from _visible(header, n)
    stays = yield from _last_before(header, n, entries)
    before = yield from state_before(header, n)
    yield from _unlearn(work, n)
    yield from _end_from(work, session, n)
    if before != header.states:
        yield from _restore(work, before)
    gone = [id for id, turn, _ in header.asks if turn >= n]
    header.asks = asks_at(header, n - 1)
    header.answered = [a for a in header.answered if a[3] < n]
    last = header.turns
    _add(header, n, last, stays + 1, header.seq)
    header.taken_back += 1
    work.add("x", 1 + len(gone), body([work.now, work.op.id, stays, n, last, gone]))


def asks_at(header: Header, n: int) -> list[list[Any]]:
    """The asks that were open when turn `n` had ended."""
    again = [a[:3] for a in header.answered if a[1] <= n < a[3]]
    return [*again, *(ask for ask in header.asks if ask[1] <= n)]


def _visible(header: Header, n: int) -> Part:
    """The entries of turn `n`, which must be visible and not queued. Raises Superseded."""
    if not header.base_turn < n <= header.turns or is_cut(header, n):
        raise Superseded()
    (entries,) = yield (("turn", n),)
    head = header.head
    runs = head is not None and head.n == n and head.status == "running"
    if not entries or not (entries[-1].kind in ENDED or runs):
        raise Superseded()
    if entries[-1].kind == "g":
        raise Superseded("This message is a part of another turn: take that one back.")
    return entries


def _last_before(header: Header, n: int, entries: Sequence[Entry]) -> Part:
    """The position of the last message before turn `n`, visible or not."""
    if entries[-1].seq is not None:
        return entries[-1].seq - 1
    after = n
    while True:
        (page,) = yield (("ended", after, header.turns + 1, "tfcg", PAGE, False),)
        for entry in page:
            if entry.seq is not None:
                return entry.seq - 1
        if len(page) < PAGE:
            return header.seq
        after = page[-1].turn


def state_before(header: Header, n: int) -> Part:
    """How often the state had changed before turn `n`. Raises TooFarBack if that is not known."""
    after = n - 1
    while header.states:
        (page,) = yield (("ended", after, header.turns + 1, "tfcg", PAGE, False),)
        for entry in page:
            end = End.of(entry)
            if end.attempt:  # it ran, so it was given this state
                if end.states is None and end.n <= header.since:
                    raise TooFarBack()
                return end.states or 0
        if len(page) < PAGE:
            break
        after = page[-1].turn
    return header.states


def _restore(work: Work, number: int) -> Part:
    """The state becomes again what it was when it had changed `number` times."""
    header, state = work.header, b"{}"
    if number:
        kept = (yield (("state", number),))[0]
        if kept is None:
            raise TooFarBack()
        state = kept
    header.states += 1
    work.also("states")[header.states] = state


def _unlearn(work: Work, n: int) -> Part:
    """The memory forgets what turn `n` and later ones had added."""
    header = work.header
    before = header.memory + 1
    first: Entry | None = None
    more = header.memory > header.base_memory
    while more:
        (page,) = yield (("memory", header.base_memory, before, PAGE, True),)
        later = [entry for entry in page if head_of(entry)[0] >= n]
        if later:
            first, before = later[0], later[0].seq
        more = len(later) == PAGE
    if first is not None:
        work.unlearn(first.seq or 0, header.memory)
        header.remembered = head_of(first)[3]
        header.memory += 1  # a number that no entry has: what workers have cached is old


def _end_from(work: Work, session: str, n: int) -> Part:
    """Open turns from `n` on are cancelled; what the running one has said is kept with it."""
    header = work.header
    head = header.head
    running = head is not None and head.status == "running"
    if header.token is not None and not running:  # whoever holds the session has an old state
        work.notices.append(Signal("lost", session, 0))
        work.let_go()
    if head is not None and head.n >= n and running:
        work.notices.append(Signal("lost", session, head.n))
        work.let_go()
        (entry,) = yield from waiting(work, head.n, 1)
        outcome = yield from remains(head, Outcome("cancelled", operation=""))
        yield from close(work, "cut", question_of(entry), outcome)
    yield from withdraw_from(work, n, "cut")


def withdraw_from(work: Work, n: int, act: str) -> Part:
    """Turns that wait are cancelled, from `n` on. Returns the entries that end them."""
    header = work.header
    head = header.head
    if head is None:
        return []
    ended: list[Entry] = []
    if head.n >= n and head.status == "queued" and head.attempt:
        ended.append((yield from withdraw_begun(work, act)))
        head = header.head
        if head is None:
            return ended
    first = max(n, head.n if head.status == "queued" else head.n + 1)
    for entry in (yield from waiting(work, first, None)):
        turn = head if entry.turn == head.n else queued(entry)
        move(turn, act)
        question = question_of(entry)
        more = kept_of(question)
        text = record_of(work, turn, None, b"", b"", question.message, more=more)
        work.add("c", 1, text, turn=turn.n)
        ended.append(work.entries[-1])
        header.open -= 1
    if not header.open:
        header.head = header.ready_at = None
        header.reserved = 0
    return ended


def withdraw_begun(work: Work, act: str) -> Part:
    """The head waits for another attempt, and is cancelled: what the last one said is kept. Returns
    the entry that ends it."""
    head = work.header.head
    assert head is not None
    (entry,) = yield from waiting(work, head.n, 1)
    outcome = yield from remains(head, Outcome("cancelled", operation=""))
    yield from close(work, act, question_of(entry), outcome)
    return work.entries[-1]


def _add(header: Header, first: int, last: int, first_seq: int, last_seq: int) -> None:
    """These turns are taken back; ranges that touch become one. Withdrawn turns have no messages,
    so their range of positions is empty: other turns may take those."""
    cuts = [c for c in header.cuts if c[0] < first]
    if cuts and cuts[-1][1] == first - 1:
        first, _, low, high = cuts.pop()
        if last_seq < first_seq:
            first_seq, last_seq = low, high
        elif low <= high:
            first_seq = low
    header.cuts = [*cuts, [first, last, first_seq, last_seq]]
