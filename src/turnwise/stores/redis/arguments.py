"""Arguments: what an act has changed, as the script that commits it is given it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from turnwise.stores import rules
from turnwise.stores.header import Header, Index, Owned
from turnwise.stores.notices import Ready, Signal
from turnwise.stores.redis.keys import PLACES, encoded, pack, pack_place
from turnwise.stores.rows import ACCEPTED, ENDED, Entry
from turnwise.stores.rules import STATES, Changes

NO_INDEX = Index(None, None, None, None, 0.0)


def arguments(
    id: bytes, changes: Changes, body: bytes, publish: str, origin: int, now: float
) -> list[Any]:
    """The arguments of the script that commits an act."""
    header = changes.header
    assert header is not None
    was, is_ = changes.was or NO_INDEX, rules.index(header)
    before = was
    owned = _owned(was.owned, NO_INDEX.owned if changes.delete else is_.owned, changes.fresh)
    signal = next((n for n in changes.notices if isinstance(n, Signal)), None)
    ready = any(isinstance(n, Ready) for n in changes.notices)
    fields: list[Any] = []
    if changes.fresh:
        fields += ("b", header.version)
        was = NO_INDEX
    for key, value in changes.keys:
        fields += (b"k" + encoded(key), value)
    for name, part in changes.parts.items():
        fields += ("p" + name, part)
    if is_.owned is not None and (changes.fresh or was.owned is None):
        fields += ("o", encoded(is_.owned.owner))
    return [
        id,
        changes.last_version or "",
        header.version,
        body,
        "gone" if changes.delete else "new" if changes.fresh else "",
        _changed(was.ready, is_.ready),
        _changed(was.lease, is_.lease),
        _changed(was.expires, is_.expires),
        _changed(was.keeper, is_.keeper),
        header.base_event if changes.erase else "",
        2 * len(changes.states),
        header.states - STATES if changes.states else "",
        publish,
        origin,
        b"%s\n%d\n%s" % (signal.kind.encode(), signal.turn, id) if signal is not None else "",
        ("keeper" if is_.keeper else "any") if ready else "",
        "1" if any(entry.kind not in "om" for entry in changes.entries) else "",
        now,
        *owned,
        b"%d %d" % changes.unlearned if changes.unlearned is not None else "",
        rules.failed_at(changes.entries) or "",
        _channel(before.outbox),
        _channel(None if changes.delete else is_.outbox),
        len(fields),
        *fields,
        *(value for pair in changes.states.items() for value in pair),
        *_entries(header, changes.entries),
    ]


def _owned(was: Owned | None, is_: Owned | None, fresh: bool) -> tuple[Any, ...]:
    """Whose session it is, when it was used last, and how the numbers of open and running turns
    change: all empty if nothing of it does."""
    if was == is_ and not fresh:
        return ("" if is_ is None else encoded(is_.owner)), "", "", ""
    one = is_ or was
    if one is None:
        return "", "", "", ""
    before = (0, 0) if was is None else was[2:]
    after = (0, 0) if is_ is None else is_[2:]
    used = "-" if is_ is None or is_.used is None else is_.used
    return encoded(one.owner), used, after[0] - before[0], after[1] - before[1]


def _channel(name: str | None) -> bytes:
    return b"" if name is None else encoded(name)


def _changed(was: Any, is_: Any) -> Any:
    return "" if was == is_ else "-" if is_ is None else is_


def _entries(header: Header, entries: Sequence[Entry]) -> Iterable[Any]:
    for i, entry in enumerate(entries):
        stream = "e" if entry.at is None else "d"  # what retention removes is apart
        place = b"%d-%d" % (entry.last, header.count * PLACES + i)
        if entry.kind == "m":
            stream, place = "m", b"%d-0" % (entry.seq or 0)
        yield from (stream, place, pack(entry))
        if entry.kind in ACCEPTED:
            yield from (f"t{entry.turn}", "")
        elif entry.kind in ENDED:
            yield from (f"t{entry.turn}", pack_place(place, entry))
        else:
            yield from ("", "")
