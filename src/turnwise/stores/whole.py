"""Whole: all that a store keeps of one session, as it is moved to another store. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from turnwise.errors import Damaged, Invalid
from turnwise.stores.header import Header
from turnwise.stores.rows import Entry


class Whole(NamedTuple):
    """A session: its header, its entries in order, what its keys stand for, its last states by
    their numbers, its larger parts."""

    session: str
    header: bytes
    entries: Sequence[Entry]
    keys: Sequence[tuple[str, bytes]]
    states: Mapping[int, bytes]
    parts: Mapping[str, bytes]

    def as_json(self) -> dict[str, Any]:
        """As `turnwise sessions export --whole` writes it."""
        return {
            "session": self.session,
            "header": self.header.decode(),
            "entries": [[*entry[:5], entry.body.decode()] for entry in self.entries],
            "keys": [[key, value.decode()] for key, value in self.keys],
            "states": [[number, state.decode()] for number, state in self.states.items()],
            "parts": {name: part.decode() for name, part in self.parts.items()},
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Whole:
        """The inverse of `as_json`. Raises Invalid."""
        try:
            whole = cls(
                found["session"],
                found["header"].encode(),
                [_entry(*values) for values in found["entries"]],
                [(key, value.encode()) for key, value in found["keys"]],
                {int(number): state.encode() for number, state in found["states"]},
                {name: part.encode() for name, part in found["parts"].items()},
            )
            Header.decode(whole.header)
        except (LookupError, TypeError, ValueError, AttributeError, Damaged):
            raise Invalid("This was not written by `export --whole`.") from None
        return whole


def _entry(last: int, kind: str, turn: Any, seq: Any, at: Any, body: str) -> Entry:
    return Entry(last, kind, turn, seq, at, body.encode())
