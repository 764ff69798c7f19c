"""Cursors: the place in a session's log up to which someone has read.

A cursor names the event that was read last, by its number and by a tag of the act that wrote it:
`15-k3f9a1c2`. A store that was restored, or failed over, may have another event under that number;
then the tag differs, and the reader gets a `gap`. A plain number is a cursor as well, which only
its number protects.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from turnwise.errors import Invalid

MAX_NUMBER = 2**53
PATTERN = r"^\d{1,16}(-[0-9A-Za-z_]{1,40})?$"
_CURSOR = re.compile(PATTERN, re.ASCII)


class Cursor(NamedTuple):
    """An event's number, and the tag of the act that wrote it if it is known."""

    number: int = 0
    tag: str = ""

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """The cursor that a client sends. Raises Invalid."""
        if not _CURSOR.match(text):
            raise Invalid("A cursor is the number of an event, or a text like 15-k3f9a1c2.")
        number, _, tag = text.partition("-")
        if int(number) > MAX_NUMBER:
            raise Invalid("A cursor is the number of an event, or a text like 15-k3f9a1c2.")
        return cls(int(number), tag)

    def __str__(self) -> str:
        return f"{self.number}-{self.tag}" if self.tag else str(self.number)


START = Cursor()
