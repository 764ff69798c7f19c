"""Rules: what a claim writes of its turn, and how it ends it."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from turnwise.conversation.events import Draft
from turnwise.errors import ClaimLost
from turnwise.stores.claim import Claim, Outcome
from turnwise.stores.rows import ENDED, Question, body, operation_of, question_of
from turnwise.stores.rules.ending import close
from turnwise.stores.rules.scheduling import ring
from turnwise.stores.rules.starting import claim_of, start
from turnwise.stores.rules.work import NOTHING, Changes, Op, Rule, Work, free, held, token_of, write

_ENDS = {"complete": "completed", "fail": "failed", "stop": "cancelled"}
_ACTS = {status: act for act, status in _ENDS.items()}


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
    if outcome.name is not None and not header.named and outcome.name != header.name:
        header.name = outcome.name
        work.add("n", 1, body([now, op.id], orjson.dumps({"name": outcome.name})))
    question = Question(claim.message, claim.note, claim.reason)
    said = yield from close(work, _ACTS[outcome.status], question, outcome, drafts)
    end = work.entries[-1]
    state = outcome.state
    if state is not None:
        header.states = number = header.states + 1
    header.keeper = outcome.keep
    following = None
    if header.timer is not None and header.timer <= now:
        yield from ring(work)
    if header.head is not None:
        if desk is not None and free(header, desk.worker, now):
            kept = claim.state if state is None else state
            following = yield from start(work, session, desk, said, kept)
        if following is None:
            work.line_up()
    if state is not None:
        work.also("states")[number] = state
    return work.done(following, ended=end)
