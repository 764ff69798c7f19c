"""Rules: what is visible of a session: all but what was taken back. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from turnwise.stores.header import Header
from turnwise.stores.rows import messages_of
from turnwise.stores.rules.work import Part

Span = tuple[int, int]
"""Numbers with after < number < before."""


def _between(low: int, high: int, gone: Sequence[Span]) -> list[Span]:
    """What is left between `low` and `high` (both exclusive) without the numbers in `gone`, each
    from its first to its last."""
    spans = []
    for first, last in gone:
        if last < first or last <= low:
            continue
        if first >= high:
            break
        if first > low + 1:
            spans.append((low, first))
        low = last
    if low + 1 < high:
        spans.append((low, high))
    return spans


def turns_between(header: Header, low: int, high: int) -> list[Span]:
    """The visible turns between two numbers."""
    return _between(low, high, [(first, last) for first, last, _, _ in header.cuts])


def seqs_between(header: Header, low: int, high: int) -> list[Span]:
    """The positions of visible messages between two positions."""
    return _between(low, high, [(first, last) for _, _, first, last in header.cuts])


def is_cut(header: Header, n: int) -> bool:
    """Whether a turn was taken back."""
    return any(first <= n <= last for first, last, _, _ in header.cuts)


def last_messages(header: Header, count: int) -> int:
    """The position behind which the last `count` visible messages are."""
    if not header.cuts:
        return max(header.base_seq, header.seq - count)
    for low, high in reversed(seqs_between(header, header.base_seq, header.seq + 1)):
        if high - low > count:
            return high - 1 - count
        count -= high - low - 1
    return header.base_seq


def messages_between(
    header: Header, low: int, high: int, limit: int, latest: bool, *, fully: bool = False
) -> Part:
    """The visible messages between two positions, in order, with their positions: the first
    `limit`, or the last."""
    return (yield from messages_in(seqs_between(header, low, high), limit, latest, fully=fully))


def messages_in(spans: Sequence[Span], limit: int, latest: bool, *, fully: bool = False) -> Part:
    """The messages in some spans of positions."""
    found: list[tuple[int, bytes]] = []
    for low, high in spans[:: -1 if latest else 1]:
        left = limit - len(found)
        if left <= 0:
            break
        (entries,) = yield (("messages", low, high, left, latest),)
        page = [
            (i, message)
            for entry in entries
            for i, message in enumerate(messages_of(entry, fully=fully), entry.seq or 0)
            if low < i < high
        ]
        found = [*page[-left:], *found] if latest else [*found, *page[:left]]
    return found
