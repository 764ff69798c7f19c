"""Rules: a message enters the mailbox, or something else that the bot is to say something about."""

from __future__ import annotations

from typing import Any

import orjson

from turnwise.conversation import Message, TurnRecord, placed
from turnwise.errors import Busy, KeyReused, MovedOn, NotFound, QueueFull, Superseded, Unauthorized
from turnwise.stores.claim import Desk
from turnwise.stores.header import Head, Header
from turnwise.stores.notices import Signal
from turnwise.stores.records import Submission, Submitted
from turnwise.stores.rows import End, Entry, Question, body, head_of, question_of
from turnwise.stores.rules.asks import Closed, close_asks, closed_by
from turnwise.stores.rules.cuts import cut, withdraw_from
from turnwise.stores.rules.files import name_files
from turnwise.stores.rules.outbox import addressed
from turnwise.stores.rules.readings import record_at
from turnwise.stores.rules.scheduling import is_timed, ring
from turnwise.stores.rules.starting import claim_of, conclude, lease, may_run
from turnwise.stores.rules.visible import is_cut
from turnwise.stores.rules.work import (
    LINE,
    Changes,
    Op,
    Part,
    Rule,
    Work,
    alive,
    born,
    done_before,
    free,
    token_of,
)

SETTLE = 5.0
"""Seconds that a turn waits for more messages, in all."""


def submit(wish: Submission, desk: Desk | None, op: Op) -> Rule:
    """Answer: (Submitted, the claim or None)."""
    asks = (("key", wish.key),) if wish.key is not None else ()
    header, now, *known = yield asks
    if header is not None and alive(header, now):
        work, fresh = None, False
        if wish.owner is not None and header.owner != wish.owner:
            raise NotFound("This session does not exist.")
    elif wish.create:
        work, fresh, known = born(now, wish.ttl, op, header, owner=wish.owner), True, [None]
        header = work.header
    else:
        raise NotFound("This session does not exist.")
    if wish.generation is not None and wish.generation != header.generation:
        raise Unauthorized()
    if op.since is not None and not fresh:
        entry = yield from done_before(op, "q")
        if entry is not None:
            return (yield from _submitted_before(wish, desk, op, header, entry))
    if known and known[0] is not None:
        n, fingerprint = orjson.loads(known[0])
        if fingerprint != wish.fingerprint:
            raise KeyReused()
        record = yield from record_at(wish.session, header, n)
        return Changes((Submitted(record, False), None))
    if wish.key is not None and header.timer is not None and (yield from is_timed(wish.key)):
        raise KeyReused()
    if work is None:
        work = Work(header, op, now)
    if wish.behind is not None and (yield from _has_moved_on(header, wish.behind)):
        raise MovedOn()
    question = Question(wish.message, wish.note, wish.reason, wish.given)
    if wish.replaces is not None:
        question = yield from _instead(work, wish, question)
    elif not _is_alone(header, wish):
        question = yield from _make_way(work, wish, question)
    if wish.address is not None:
        yield from addressed(work, *wish.address)
    closed: Closed = ()
    if question.message and (header.asks or wish.answers or wish.again):
        answers = Message.decode(question.message).answers if wish.again else wish.answers
        closed = yield from closed_by(answers, header)
    return (yield from _enter(work, wish, question, desk, fresh, closed))


def _has_moved_on(header: Header, n: int) -> Part:
    """Whether anything came behind turn `n`, or it was taken back; what was withdrawn before it
    began is nothing."""
    if header.turns == n:
        return False
    if header.open or is_cut(header, n) or n > header.turns or n <= header.base_turn:
        return True
    (later,) = yield (("ended", n, header.turns + 1, "tfcg", LINE, False),)
    return len(later) == LINE or any(entry.seq is not None for entry in later)


def _instead(work: Work, wish: Submission, question: Question) -> Part:
    """The message takes the place of a turn and of all behind it, or that turn's own message does
    so again. Raises Superseded, TooFarBack."""
    assert wish.replaces is not None
    if wish.again:
        (entries,) = yield (("turn", wish.replaces),)
        if not entries:
            raise Superseded()
        last = entries[-1]
        if last.kind in "qw":
            question = question_of(last)
        else:
            end = End.of(last)
            note = orjson.dumps(end.more["note"]) if "note" in end.more else None
            question = Question(end.message, note, end.more.get("reason"))
        if not question.message and question.reason is None:
            raise Superseded("What the bot was given to say cannot be said again.")
    before = work.header.open
    yield from cut(work, wish.session, wish.replaces)
    yield from _check_owner(work, wish, before)
    return question._replace(merge=False, note=wish.note or question.note)


def _is_alone(header: Header, wish: Submission) -> bool:
    """Whether there is nothing that the message could meet, as mostly."""
    policy = wish.when_busy or header.policy
    busy = header.open or header.timer is not None or wish.owner_limit is not None
    if wish.group is not None:
        return False
    return not busy and policy is None and wish.policy[0] == "queue"


def _make_way(work: Work, wish: Submission, question: Question) -> Part:
    """What a message does that finds earlier ones unanswered. Raises Busy, QueueFull."""
    header = work.header
    policy, settle = wish.policy
    if not question.message:
        policy = "queue"
    elif wish.when_busy is not None:
        policy, settle = wish.when_busy, wish.settle
    elif header.policy is not None:
        policy, settle = header.policy
    if wish.group is not None and (yield from _continues(header, wish.group)):
        policy = "queue"
    if header.open and policy == "reject":
        raise Busy()
    before = header.open
    if policy == "interrupt":
        yield from stop_all(work, wish.session)
        header.reserved = 0
    elif before >= wish.limit:
        raise QueueFull(retry_after=(yield from _seconds_a_turn(header)))
    yield from _check_owner(work, wish, before)
    # A timer that is due comes first; a message that interrupts goes before it, and ends it not.
    if policy != "interrupt" and header.timer is not None and header.timer <= work.now:
        yield from ring(work)
    if wish.group is not None:
        settle = wish.settle
    elif policy != "merge":
        return question
    if settle > 0:
        waits = header.head is not None and header.head.status == "queued"
        since = header.head.queued_at if waits and header.head is not None else work.now
        header.reserved = max(header.reserved, min(work.now + settle, since + SETTLE))
    return question._replace(merge=wish.group or True)


def _continues(header: Header, group: str) -> Part:
    """Whether the last turn waits and is of this group."""
    if not header.open or header.merging != header.turns:
        return False
    (entries,) = yield (("turn", header.turns),)
    last = entries[-1] if entries else None
    return last is not None and last.kind in "qw" and question_of(last).merge == group


def _check_owner(work: Work, wish: Submission, before: int) -> Part:
    """Raises QueueFull if too many turns of the owner are open. Those that this act has ended or
    stopped do not count; `before` it, so many of the session were open."""
    header = work.header
    if wish.owner_limit is None or header.owner is None:
        return
    ((waiting, _),) = yield (("tally", header.owner),)
    stopped = int(header.head is not None and header.head.status == "running" and header.head.stop)
    if waiting - (before - header.open) - stopped >= wish.owner_limit:
        words = "Too many of your messages are waiting; try again when some are answered."
        raise QueueFull(words, (yield from _seconds_a_turn(header)))


def stop_all(work: Work, session: str) -> Part:
    """The running turn is asked to stop, and all others are withdrawn. Returns the entries that end
    them."""
    header = work.header
    head = header.head
    if head is not None and head.status == "running" and not head.stop:
        head.stop = 1
        work.notices.append(Signal("cancel", session, head.n))
    ended: list[Entry] = yield from withdraw_from(work, 0, "cancel")
    return ended


def _seconds_a_turn(header: Header) -> Part:
    """How long a turn of the session takes, as it was measured, between 1 and 60 seconds."""
    (last,) = yield (("ended", header.base_turn, header.turns + 1, "tfc", 10, True),)
    ends = [end for end in map(End.of, last) if end.started_at is not None]
    if not ends:
        return 1.0
    took = sum(end.at - (end.started_at or end.at) for end in ends) / len(ends)
    return min(60.0, max(1.0, took))


def _enter(
    work: Work,
    wish: Submission,
    question: Question,
    desk: Desk | None,
    fresh: bool,
    closed: Closed,
) -> Rule:
    """Queue the message; if the session is idle and the desk suitable, also start its turn."""
    header, now = work.header, work.now
    header.turns = n = header.turns + 1
    position, first = header.open, header.events + 1
    header.open += 1
    work.slide()
    if header.owner is not None:
        header.used = now
    if closed:
        close_asks(header, closed, n)
    if question.merge:
        header.merging = n
    if wish.files:
        yield from name_files(work, wish.files, n)
    claim, at_once = None, False
    if position == 0:
        header.head = Head(n, "queued", 0, 0, int(wish.key is not None), first, now)
        if question.given:
            at_once = header.token is None and header.reserved <= now
        elif (
            desk is not None
            and all(entry.seq is None for entry in work.entries)  # the store has the whole history
            and free(header, desk.worker, now)
            and (yield from may_run(header, desk))
        ):
            started = first + 1 + len(closed)
            # The store does not have yet what a cut has restored.
            state = work.also("states").get(header.states) if work.more is not None else None
            claim = yield from lease(work, wish.session, desk, question, started, (), state)
        if claim is None and not at_once:
            work.line_up()
    begun = int(claim is not None)
    head: list[Any] = [n, position, now, work.op.id, wish.key, begun]
    if closed:
        head.append(closed)
    work.add("q", 1 + len(closed) + begun, body(head, *question.parts()), turn=n)
    if at_once:
        yield from conclude(work, question)
    record = TurnRecord(
        session=wish.session,
        n=n,
        status="running" if begun else "queued",
        attempt=begun,
        position=None if begun else position,
        message_json=placed(question.message, n, None) if question.message else None,
        note_json=question.note,
        reason=question.reason,
        queued_at=now,
        started_at=now if begun else None,
        first_event=first,
    )
    if wish.key is not None:
        work.also("keys").append((wish.key, orjson.dumps([n, wish.fingerprint])))
    return work.done((Submitted(record, True), claim), fresh=fresh)


def _submitted_before(
    wish: Submission, desk: Desk | None, op: Op, header: Header, entry: Entry
) -> Rule:
    """The submission was done, but its answer was lost: the same answer again, with its claim."""
    n = head_of(entry)[0]
    record = yield from record_at(wish.session, header, n)
    claim = None
    if desk is not None and header.token == token_of(desk.worker, op):
        claim = yield from claim_of(op, wish.session, header, desk, question_of(entry), (), None)
    return Changes((Submitted(record, True), claim))
