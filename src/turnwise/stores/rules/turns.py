"""Rules: a turn on its way, from its submission to its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from turnwise.conversation import TurnRecord, placed
from turnwise.conversation.events import Draft
from turnwise.errors import ClaimLost, KeyReused, NotFound, QueueFull, Unauthorized
from turnwise.stores.base import Submission, Submitted
from turnwise.stores.claim import EXHAUSTED, Claim, Desk, Outcome
from turnwise.stores.header import Head, Header
from turnwise.stores.rows import (
    DESCRIBED,
    ENDED,
    Entry,
    Question,
    body,
    head_of,
    messages_of,
    operation_of,
    question_of,
)
from turnwise.stores.rules.asks import Closed, close_asks, closed_by
from turnwise.stores.rules.readings import record_at
from turnwise.stores.rules.remains import remains
from turnwise.stores.rules.work import (
    _ACTS,
    NOTHING,
    Ask,
    Changes,
    Op,
    Part,
    Rule,
    Work,
    alive,
    born,
    close,
    done_before,
    free,
    held,
    move,
    token_of,
    write,
)


def submit(wish: Submission, desk: Desk | None, op: Op) -> Rule:
    """Answer: (Submitted, the claim or None)."""
    asks = (("key", wish.key),) if wish.key is not None else ()
    header, now, *known = yield asks
    if header is not None and alive(header, now):
        work, fresh = None, False
    elif wish.create:
        work, fresh, known = born(now, wish.ttl, op, header), True, [None]
        header = work.header
    else:
        raise NotFound("This session does not exist.")
    if wish.generation is not None and wish.generation != header.generation:
        raise Unauthorized()
    if op.since is not None and not fresh:
        entry = yield from done_before(op)
        if entry is not None:
            return (yield from _submitted_before(wish, desk, op, header, entry))
    if known and known[0] is not None:
        n, fingerprint = orjson.loads(known[0])
        if fingerprint != wish.fingerprint:
            raise KeyReused()
        record = yield from record_at(wish.session, header, n)
        return Changes((Submitted(record, False), None))
    if header.open >= wish.limit:
        raise QueueFull()
    closed: Closed = ()
    if header.asks or wish.answers:
        closed = yield from closed_by(wish, header)
    if work is None:
        work = Work(header, op, now)
    return (yield from _enter(work, wish, desk, fresh, closed))


def _enter(work: Work, wish: Submission, desk: Desk | None, fresh: bool, closed: Closed) -> Rule:
    """Queue the message; if the session is idle and the desk suitable, also start its turn."""
    header, now = work.header, work.now
    header.turns = n = header.turns + 1
    position, first = header.open, header.events + 1
    header.open += 1
    work.slide()
    if closed:
        close_asks(header, closed)
    claim = None
    if position == 0:
        header.head = Head(n, "queued", 0, 0, int(wish.key is not None), first, now)
        if desk is not None and free(header, desk.worker, now):
            started = first + 1 + len(closed)
            question = Question(wish.message, wish.note)
            claim = yield from _lease(work, wish.session, desk, question, started)
        else:
            work.line_up()
    begun = int(claim is not None)
    head: list[Any] = [n, position, now, work.op.id, wish.key, begun]
    if closed:
        head.append(closed)
    parts = (wish.message,) if wish.note is None else (wish.message, wish.note)
    work.add("q", 1 + len(closed) + begun, body(head, *parts), turn=n)
    record = TurnRecord(
        session=wish.session,
        n=n,
        status="running" if begun else "queued",
        attempt=begun,
        position=None if begun else position,
        message_json=placed(wish.message, n, None),
        note_json=wish.note,
        queued_at=now,
        started_at=now if begun else None,
        first_event=first,
    )
    keys = ((wish.key, orjson.dumps([n, wish.fingerprint])),) if wish.key is not None else ()
    return work.done((Submitted(record, True), claim), keys=keys, fresh=fresh)


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


def _lease(
    work: Work,
    session: str,
    desk: Desk,
    question: Question,
    started_event: int,
    said: Sequence[bytes] = (),
    state: bytes | None = None,
) -> Part:
    """Start the head's next attempt for `desk`. Returns the claim."""
    header = work.header
    head = header.head
    assert head is not None
    move(head, "claim")
    head.attempt += 1
    head.stop, head.started_at, head.started_event = 0, work.now, started_event
    header.token, header.lease = token_of(desk.worker, work.op), work.now + desk.lease
    header.origin, header.written, header.ready_at = work.op.origin, 0, None
    return (yield from claim_of(work.op, session, header, desk, question, said, state))


def claim_of(
    op: Op,
    session: str,
    header: Header,
    desk: Desk,
    question: Question,
    said: Sequence[bytes],
    state: bytes | None,
) -> Part:
    """The claim that the header holds. `said` are messages that are not stored yet, the last of
    the history; `state` is given if it is known."""
    head, epoch = header.head, header.epoch
    whole = max(header.base_seq, header.seq - desk.history)
    known_epoch, known = desk.known(session)
    first = max(whole, known) if known_epoch == epoch else whole
    stored = header.seq - len(said)
    asks: list[Ask] = []
    if state is None and header.states:
        asks.append(("state", header.states))
    if header.parts:
        asks.append(("part", DESCRIBED))
    if first < stored:
        asks.append(("messages", first, stored + 1, stored - first, True))
    answers = list((yield tuple(asks))) if asks else []
    if state is None:
        state = answers.pop(0) if header.states else None
    metadata = answers.pop(0) if header.parts else None
    history = []
    if first < stored:
        history = [message for entry in answers.pop(0) for message in messages_of(entry)]
        history = history[len(history) - (stored - first) :]
    return Claim(
        session=session,
        token=header.token or "",
        turn=head.n if head is not None else 0,
        attempt=head.attempt if head is not None else 0,
        name=header.name,
        metadata=metadata or b"{}",
        message=question.message,
        note=question.note,
        asks=[id for id, *_ in header.asks] if header.asks else (),
        state=state or b"{}",
        memory=header.memory,
        base_memory=header.base_memory,
        seq=header.seq,
        history=[*history, *said[max(0, first - stored) :]],
        history_from=first,
        whole=first == whole,
        epoch=epoch,
        queued_at=head.queued_at if head is not None else 0.0,
        started_at=head.started_at or 0.0 if head is not None else 0.0,
        first_event=head.first_event if head is not None else 0,
        written=header.written,
        incarnation=op.incarnation,
    )


def claim(session: str, desk: Desk, op: Op) -> Rule:
    """Answer: the claim on the session's next turn, or None."""
    header, now = yield ()
    if header is None:
        return NOTHING
    token = token_of(desk.worker, op)
    if op.since is not None and header.token == token and header.head is not None:
        ((entry, *_),) = yield (("turn", header.head.n),)
        return Changes(
            (yield from claim_of(op, session, header, desk, question_of(entry), (), None))
        )
    if header.head is None or not free(header, desk.worker, now):
        return NOTHING
    work = Work(header, op, now)
    claimed = yield from start(work, session, desk)
    if claimed is None:
        work.line_up()
    return work.done(claimed)


def start(
    work: Work,
    session: str,
    desk: Desk,
    said: Sequence[bytes] = (),
    state: bytes | None = None,
) -> Part:
    """Start the session's next turn; one without attempts left fails, and the next is started."""
    header = work.header
    while (head := header.head) is not None:
        (entry,) = (yield (("open", head.n, 1),))[0]
        if head.attempt < desk.max_attempts:
            number = header.events + 1
            claimed = yield from _lease(
                work, session, desk, question_of(entry), number, said, state
            )
            work.add("s", 1, body([head.n, work.now, work.op.id, head.attempt]))
            return claimed
        outcome = yield from remains(head, Outcome("failed", error=EXHAUSTED, operation=""))
        move(head, "claim")
        said = [*said, *(yield from close(work, "fail", question_of(entry), outcome))]
    return None


def append(claim: Claim, drafts: Sequence[Draft], written: int, op: Op) -> Rule:
    """Answer: whether the turn should stop. `written` drafts were written under the claim before:
    what a lost answer wrote is not written again."""
    header, now = yield ()
    header = held(header, claim)
    head = header.head
    if head is None or head.status != "running":  # it holds the session, and no turn
        raise ClaimLost()
    if header.written < written:  # the store has lost some of what it had
        raise ClaimLost()
    stop = bool(head.stop)
    drafts = drafts[header.written - written :]
    if not drafts:
        return Changes(stop)
    work = Work(header, op, now)
    header.written += len(drafts)
    write(work, drafts)
    return work.done(stop)


def finish(claim: Claim, outcome: Outcome, op: Op) -> Rule:
    """Answer: the claim on the session's next turn, if it was asked for."""
    header, now = yield ()
    session, desk = claim.session, outcome.next_desk
    if header is None or header.token != claim.token:
        # Perhaps it was done before, in this try or by an earlier one that was given up.
        (entries,) = yield (("turn", claim.turn),)
        if not entries or entries[-1].kind not in ENDED or operation_of(entries[-1]) != op.id:
            raise ClaimLost()
        if desk is None or header is None or header.token != token_of(desk.worker, op):
            return NOTHING
        assert header.head is not None
        ((entry, *_),) = yield (("turn", header.head.n),)
        question = question_of(entry)
        return Changes((yield from claim_of(op, session, header, desk, question, (), None)))
    header = held(header, claim)
    if header.head is None or header.head.status != "running":
        raise ClaimLost()
    if header.written < claim.written:  # the store has lost some of what it had
        raise ClaimLost()
    work = Work(header, op, now)
    # What an append wrote whose answer was lost is not written again.
    drafts = outcome.drafts[max(0, header.written - claim.written) :]
    work.let_go()
    question = Question(claim.message, claim.note)
    said = yield from close(work, _ACTS[outcome.status], question, outcome, drafts)
    end = work.entries[-1]
    state = outcome.state
    if state is not None:
        header.states += 1
    header.keeper = outcome.keep
    following = None
    if header.head is not None:
        if desk is not None and free(header, desk.worker, now):
            kept = claim.state if state is None else state
            following = yield from start(work, session, desk, said, kept)
        if following is None:
            work.line_up()
    states = {} if state is None else {header.states: state}
    return work.done(following, states=states, ended=end)
