"""Rules: a turn is started: the claim on it, and what its worker is given with the claim."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from turnwise.conversation import Message
from turnwise.conversation.events import (
    Draft,
    delta_draft,
    message_ended_draft,
    message_started_draft,
)
from turnwise.stores.claim import EXHAUSTED, Claim, Desk, Outcome
from turnwise.stores.header import PLACED, Header
from turnwise.stores.notices import Ready
from turnwise.stores.rows import (
    DESCRIBED,
    PRIVATE,
    Entry,
    Question,
    acceptance,
    body,
    head_of,
    messages_of,
    question_of,
)
from turnwise.stores.rules.ending import close, kept_of, record_of
from turnwise.stores.rules.files import move_files
from turnwise.stores.rules.remains import remains
from turnwise.stores.rules.scheduling import ring
from turnwise.stores.rules.visible import last_messages, messages_between
from turnwise.stores.rules.work import (
    LINE,
    NOTHING,
    Ask,
    Changes,
    Op,
    Part,
    Rule,
    Work,
    alive,
    free,
    move,
    queued,
    token_of,
    waiting,
)

MERGED_TEXT, MERGED_FILES, MERGED_JSON = 100_000, 20, 16_384
"""What messages that are merged into one have at most in all: characters of text, attachments, and
bytes of metadata and of answers. One that would be too much waits for a turn of its own."""


def may_run(header: Header, desk: Desk) -> Part:
    """Whether another turn of the session's owner may run."""
    if desk.owner_limit is None or header.owner is None:
        return True
    ((_, running),) = yield (("tally", header.owner),)
    return running < desk.owner_limit


def lease(
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
    return claim_of(work.op, session, header, desk, question, said, state)


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
    whole = last_messages(header, desk.history)
    known_epoch, known = desk.known(session)
    first = max(whole, known) if known_epoch == epoch else whole
    stored = header.seq - len(said)
    asks: list[Ask] = []
    if state is None and header.states:
        asks.append(("state", header.states))
    parts: Sequence[str] = ()
    if header.parts:
        parts = [name for name in (DESCRIBED, PRIVATE) if name in header.parts]
        asks += [("part", name) for name in parts]
    at_once = first < stored and not header.cuts
    if at_once:
        asks.append(("messages", first, stored + 1, stored - first, True))
    answers = list((yield tuple(asks))) if asks else []
    if state is None:
        state = answers.pop(0) if header.states else None
    known_parts = {name: answers.pop(0) for name in parts} if parts else {}
    history = []
    if at_once:
        history = [message for entry in answers.pop(0) for message in messages_of(entry)]
        history = history[len(history) - (stored - first) :]
    elif first < stored:
        found = yield from messages_between(header, first, stored + 1, desk.history, True)
        history = [message for _, message in found]
    return Claim(
        session=session,
        token=header.token or "",
        turn=head.n if head is not None else 0,
        attempt=head.attempt if head is not None else 0,
        name=header.name,
        owner=header.owner,
        metadata=known_parts.get(DESCRIBED) or b"{}",
        private=known_parts.get(PRIVATE) or b"{}",
        message=question.message,
        note=question.note,
        reason=question.reason,
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
    if header is None or not alive(header, now):
        return NOTHING
    token = token_of(desk.worker, op)
    if op.since is not None and header.token == token and header.head is not None:
        ((entry, *_),) = yield (("turn", header.head.n),)
        return Changes(
            (yield from claim_of(op, session, header, desk, question_of(entry), (), None))
        )
    if header.token is None and _is_due(header, now):  # it takes its place in the line first
        work = Work(header, op, now)
        if header.timer is not None and header.timer <= now:
            yield from ring(work)
        header.reserved = 0
        work.notices.append(Ready())
        return work.done()
    if header.head is None or not free(header, desk.worker, now):
        return NOTHING
    if not (yield from may_run(header, desk)):
        return NOTHING
    work = Work(header, op, now)
    claimed = yield from start(work, session, desk)
    if claimed is None:
        work.line_up()
    return work.done(claimed)


def _is_due(header: Header, now: float) -> bool:
    """Whether a session was to be ready later, and the time has come: such a one is not in the line
    yet."""
    if header.timer is not None and header.timer <= now and header.head is None:
        return True
    since = header.ready_at
    return since is not None and since + PLACED < header.reserved <= now


def start(
    work: Work,
    session: str,
    desk: Desk,
    said: Sequence[bytes] = (),
    state: bytes | None = None,
) -> Part:
    """Start the session's next turn; one without attempts left fails, what is given is said, and
    the next is started."""
    header = work.header
    while (head := header.head) is not None:
        (entry,) = yield from waiting(work, head.n, 1)
        question = question_of(entry)
        if question.given:
            said = [*said, *(yield from conclude(work, question))]
        elif head.attempt < desk.max_attempts:
            if header.merging > head.n and question.message:
                question = yield from _merge(work, entry, question)
            number = header.events + 1
            claimed = yield from lease(work, session, desk, question, number, said, state)
            work.add("s", 1, body([head.n, work.now, work.op.id, head.attempt]))
            return claimed
        else:
            outcome = yield from remains(head, Outcome("failed", error=EXHAUSTED, operation=""))
            move(head, "claim")
            said = [*said, *(yield from close(work, "fail", question, outcome))]
    return None


def conclude(work: Work, question: Question) -> Part:
    """The head says what it was given, at once. Returns its messages, placed."""
    header = work.header
    head = header.head
    assert head is not None
    move(head, "claim")
    head.attempt += 1
    head.started_at, head.started_event = work.now, header.events + 1
    work.add("s", 1, body([head.n, work.now, work.op.id, head.attempt]))
    drafts: list[Draft] = []
    asks: list[tuple[int, str]] = []
    for i, encoded in enumerate(question.given):
        message = Message.decode(encoded)
        place = head.n, work.now, head.attempt, i
        drafts.append(message_started_draft(*place, message))
        drafts.append(delta_draft(*place, message.text))
        drafts.append(message_ended_draft(*place))
        if message.ask is not None:
            asks.append((i, message.ask.id))
    outcome = Outcome("completed", replies=question.given, asks=asks, operation="")
    return (yield from close(work, "complete", question, outcome, drafts))


def _merge(work: Work, entry: Entry, question: Question) -> Part:
    """The waiting turns right behind the head that asked for it become a part of it. Returns the
    head's new question."""
    header = work.header
    head = header.head
    assert head is not None
    others = yield from waiting(work, head.n + 1, LINE)
    numbers = [one.turn for one in others]
    messages = [Message.decode(question.message)]
    merged: set[int] = set()
    for one in others:
        own = question_of(one)
        wanted = own.merge is True or (own.merge and own.merge == question.merge)
        if not wanted or not own.message:
            break
        messages.append(Message.decode(own.message))
        if _is_too_large(Message.merged(messages)):
            messages.pop()
            break
        turn, numbers = queued(one), numbers[1:]
        move(turn, "merge")
        more = {"into": head.n, **kept_of(own)}
        text = record_of(work, turn, None, b"", b"", own.message, waiting=numbers, more=more)
        work.add("g", 1, text, turn=turn.n)
        header.open -= 1
        merged.add(turn.n)
    if len(messages) == 1:
        return question
    yield from move_files(work, merged, head.n)
    question = question._replace(message=Message.merged(messages).encode())
    reword(work, entry, question)
    return question


def _is_too_large(message: Message) -> bool:
    """Whether merged messages would be more than one message may be."""
    return (
        len(message.text) > MERGED_TEXT
        or len(message.attachments) > MERGED_FILES
        or len(orjson.dumps(message.metadata)) > MERGED_JSON
        or len(orjson.dumps([list(answer) for answer in message.answers])) > MERGED_JSON
    )


def reword(work: Work, entry: Entry, question: Question) -> None:
    """The question of a queued turn is another one from now on."""
    n, first, at = acceptance(entry)
    _, position, _, accepted_by, key, *_ = head_of(entry)
    head = [n, position, at, accepted_by, key, 0, first, work.now, work.op.id]
    work.add("w", 1, body(head, *question.parts()), turn=n, at=work.now)
