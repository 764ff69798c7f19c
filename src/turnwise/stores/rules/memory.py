"""Rules: what the bot remembers of a session beside what was said."""

from __future__ import annotations

from collections.abc import Sequence

from turnwise.errors import MemoryFull
from turnwise.stores.claim import Claim
from turnwise.stores.header import Header
from turnwise.stores.rows import body, head_of, operation_of, remembered
from turnwise.stores.rules.work import Changes, Op, Rule, Work, found, held


def remember(claim: Claim, bodies: Sequence[bytes], limit: int, again: bool, op: Op) -> Rule:
    """Add entries to the session's memory, under the claim. Answer: the number of the last one.

    Raises MemoryFull if it would hold more than `limit` bytes.
    """
    header, now = yield ()
    header = held(header, claim)
    if (again or op.since is not None) and header.memory > header.base_memory:
        (last,) = yield (("memory", header.memory - 1, header.memory + 1, 1, True),)
        if (
            last and operation_of(last[0]) == op.id
        ):  # only the holder of the claim writes here, one at a time
            return Changes(header.memory)
    if header.remembered - header.forgotten + sum(map(len, bodies)) > limit:
        raise MemoryFull(f"The session's memory holds at most {limit:,} bytes: forget some of it.")
    work = Work(header, op, now)
    for text in bodies:
        header.memory += 1
        head = [claim.turn, now, op.id, header.remembered]
        work.add("m", 0, body(head, text), turn=-header.memory, seq=header.memory)
        header.remembered += len(text)
    return work.done(header.memory)


def forget_memory(claim: Claim, before: int, op: Op) -> Rule:
    """Forget the entries below the number `before`, under the claim. Answer: the base."""
    header, now = yield ()
    header = held(header, claim)
    base, end = header.base_memory, min(before - 1, header.memory)
    if end <= base:
        return Changes(base)
    forgotten = header.remembered
    if end < header.memory:
        (kept,) = yield (("memory", end, header.memory + 1, 1, False),)
        forgotten = head_of(kept[0])[3] if kept else forgotten
    work = Work(header, op, now)
    header.base_memory, header.forgotten = end, forgotten
    work.note("forget")
    return work.done(end, forgotten=end)


def empty_memory(header: Header) -> None:
    """A reset leaves nothing of it."""
    header.base_memory, header.forgotten = header.memory, header.remembered


def memory(session: str, after: int, limit: int) -> Rule:
    """Answer: the last `limit` entries whose numbers are above `after`, oldest first."""
    header, now = yield ()
    header = found(header, now)
    after = max(after, header.base_memory)
    if after >= header.memory:
        return Changes([])
    (entries,) = yield (("memory", after, header.memory + 1, limit, True),)
    return Changes([remembered(entry) for entry in entries])
