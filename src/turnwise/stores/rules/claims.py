"""Rules: how claims end, and how a session is held between its turns."""

from __future__ import annotations

import orjson

from turnwise.conversation import Message, placed
from turnwise.errors import ClaimLost, KeyReused, NotQueued
from turnwise.stores.claim import NO_EPOCH, RESERVATION, Claim, Desk, Outcome
from turnwise.stores.header import Header
from turnwise.stores.notices import Signal
from turnwise.stores.rows import ENDED, Entry, Question, accepted, ended, question_of
from turnwise.stores.rules.cuts import withdraw_begun
from turnwise.stores.rules.ending import close, kept_of, next_head, record_of
from turnwise.stores.rules.readings import open_turns, record_at
from turnwise.stores.rules.remains import remains
from turnwise.stores.rules.starting import claim_of, reword
from turnwise.stores.rules.submitting import stop_all
from turnwise.stores.rules.work import (
    LINE,
    NOTHING,
    Changes,
    Op,
    Part,
    Rule,
    Work,
    done_before,
    found,
    held,
    move,
    queued,
    token_of,
)

STOPPED = "stop"
"""The fingerprint of a key with which a session was stopped."""


def _back(work: Work, act: str, question: Question | None) -> Part:
    """The claim ends without an answer: the turn waits again, or ends if it was to stop."""
    head = work.header.head
    work.let_go()
    if head is None or head.status != "running":  # a hold
        return
    if head.stop:
        if question is None:
            (entry,) = (yield (("open", head.n, 1),))[0]
            question = question_of(entry)
        outcome = yield from remains(head, Outcome("cancelled", operation=""))
        yield from close(work, "stop", question, outcome)
    else:
        move(head, act)
        if act == "release":
            head.attempt -= 1


def lapse(op: Op, dead: int | None = None, looked: bool = False) -> Rule:
    """The lease expired, or the process `dead` that holds it has ended: the attempt counts.

    With `looked` the session was found as one whose lease may have expired. If it has not, an empty
    commit sets right when it is found again.
    """
    header, now = yield ()
    if header is None:
        return NOTHING
    over = header.lease is not None and (
        header.lease <= now or (dead is not None and header.origin == dead)
    )
    if not over:
        return Work(header, op, now).done() if looked else NOTHING
    work = Work(header, op, now)
    yield from _back(work, "lapse", None)
    work.line_up()
    work.note("lapse")
    return work.done(True)


def release(claim: Claim, op: Op) -> Rule:
    """Return the turn to the mailbox; not an error if the claim is lost."""
    header, now = yield ()
    if header is None or header.token != claim.token:
        return NOTHING
    work = Work(header, op, now)
    yield from _back(work, "release", Question(claim.message, claim.note, claim.reason))
    header.keeper = None
    work.line_up()
    work.note("release")
    return work.done()


def renew(claim: Claim, lease: float, op: Op) -> Rule:
    """Answer: whether the turn should stop."""
    header, now = yield ()
    header = held(header, claim)
    work = Work(header, op, now)
    header.lease = now + lease
    return work.done(header.head is not None and bool(header.head.stop and claim.turn))


def hold(session: str, owner: str, lease: float, op: Op) -> Rule:
    """Answer: the claim on the session itself, between its turns, or None while a turn runs."""
    header, now = yield ()
    header = found(header, now)
    desk = Desk(owner, lease, 0, 0, lambda _: (NO_EPOCH, 0))
    if op.since is not None and header.token == token_of(owner, op):
        return Changes((yield from _hold(op, session, header, desk)))
    work = Work(header, op, now)
    if header.lease is not None and header.lease <= now:
        yield from _back(work, "lapse", None)
        work.note("lapse")
    if header.token is not None:
        header.reserved = now + RESERVATION
        return work.done()
    header.reserved, header.ready_at = 0, None
    header.token, header.lease = token_of(owner, op), now + lease
    header.origin = op.origin
    return work.done((yield from _hold(op, session, header, desk)))


def _hold(op: Op, session: str, header: Header, desk: Desk) -> Part:
    made: Claim = yield from claim_of(op, session, header, desk, Question(b""), (), None)
    made.turn = made.attempt = 0
    return made


def save(claim: Claim, state: bytes | None, op: Op) -> Rule:
    """Release a held session, with a new state unless it is None."""
    header, now = yield ()
    if op.since is not None and header is not None and (yield from done_before(op)):
        return NOTHING
    header = held(header, claim)
    if header.head is not None and header.head.status == "running":  # a turn's claim
        raise ClaimLost()
    work = Work(header, op, now)
    if state is not None:
        work.header.states += 1
    work.let_go()
    work.slide()
    work.line_up()
    work.note("save")
    return work.done(states={} if state is None else {work.header.states: state})


def forget(worker: str, op: Op) -> Rule:
    """`worker` no longer caches the session."""
    header, now = yield ()
    if header is None or header.keeper != worker:
        return NOTHING
    work = Work(header, op, now)
    header.keeper = None
    return work.done()


def cancel(session: str, n: int, op: Op) -> Rule:
    """Answer: the turn's record. A queued turn is withdrawn, a running one asked to stop."""
    header, now, entries = yield (("turn", n),)
    header = found(header, now)
    if not entries or n <= header.base_turn:
        record = yield from record_at(session, header, n)
        return Changes(record)
    head = header.head
    if entries[-1].kind in ENDED:
        return Changes((yield from record_at(session, header, n)))
    if head is not None and head.n == n and head.status == "running":
        record = accepted(session, entries[-1], header, 0)
        if head.stop:
            return Changes(record)
        work = Work(header, op, now)
        head.stop = 1
        work.notices.append(Signal("cancel", session, n))
        return work.done(record)
    return (yield from _withdraw(Work(header, op, now), session, entries[-1]))


def stop(session: str, key: str | None, op: Op) -> Rule:
    """Answer: the records of the turns that were open. The running one is asked to stop, and all
    that wait are withdrawn. The same key stops once. Raises KeyReused."""
    header, now, *known = yield (("key", key),) if key is not None else ()
    header = found(header, now)
    if known and known[0] is not None:
        if orjson.loads(known[0])[1] != STOPPED:
            raise KeyReused()
        return Changes([])
    if op.since is not None and header.head is None:
        return Changes([])
    records = yield from open_turns(session, header)
    if not records and key is None:
        return Changes([])
    work = Work(header, op, now)
    if key is not None:
        work.also("keys").append((key, orjson.dumps([header.turns, STOPPED])))
    ends = yield from stop_all(work, session)
    done = {entry.turn: ended(session, entry) for entry in ends}
    work.slide()
    return work.done([done.get(record.n, record) for record in records])


def change(session: str, n: int, text: str, op: Op) -> Rule:
    """Answer: the record of a queued turn, whose message has another text from now on. Raises
    NotQueued."""
    header, now, entries = yield (("turn", n),)
    header = found(header, now)
    record = yield from record_at(session, header, n)
    if op.since is not None and (yield from done_before(op)):
        return Changes(record)
    if record.status != "queued" or not record.message_json:
        raise NotQueued()
    question = question_of(entries[-1])
    message = Message.decode(question.message)
    message.text, message.parts = text, ()
    work = Work(header, op, now)
    reword(work, entries[-1], question._replace(message=message.encode()))
    record.message_json = placed(message.encode(), n, None)
    return work.done(record)


def _withdraw(work: Work, session: str, entry: Entry) -> Rule:
    header = work.header
    first = header.head is not None and header.head.n == entry.turn
    if first and header.head is not None and header.head.attempt:
        end = yield from withdraw_begun(work, "cancel")
        work.line_up()
        return work.done(ended(session, end), ended=end)
    turn = header.head if first and header.head is not None else queued(entry)
    move(turn, "cancel")
    work.slide()
    if first:
        waiting = yield from next_head(work)
        if not header.open:
            header.reserved = 0
        work.line_up()
    else:
        header.open -= 1
        (queue,) = yield (("open", header.head.n if header.head else 0, LINE),)
        waiting = [e.turn for e in queue if e.turn != turn.n and not _runs(header, e)]
    question = question_of(entry)
    more = kept_of(question)
    text = record_of(work, turn, None, b"", b"", question.message, waiting=waiting, more=more)
    work.add("c", 1, text, turn=turn.n)
    return work.done(ended(session, work.entries[-1]))


def _runs(header: Header, entry: Entry) -> bool:
    head = header.head
    return head is not None and head.n == entry.turn and head.status == "running"


def fence(name: str, op: Op) -> Rule:
    """The operation `name` was given up and may still arrive: give back the claim that it made, or
    move the session's version, so that it is refused."""
    header, now = yield ()
    if header is None:
        return NOTHING
    work = Work(header, op, now)
    if header.token is not None and header.token.endswith(f".{name}"):
        yield from _back(work, "release", None)
        work.line_up()
        work.note("release")
    return work.done()
