"""Slots: values extracted from messages and stored in the session's state."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from turnwise.errors import ConfigurationError
from turnwise.script.context import Context


class RegexpSlot:
    """The part of the text that `pattern` finds: its group `group` (0: all of it)."""

    def __init__(self, pattern: str, *, group: int = 0, ignore_case: bool = False) -> None:
        try:
            self.pattern = re.compile(pattern, re.IGNORECASE if ignore_case else 0)
        except re.error as error:
            raise ConfigurationError(f"{pattern!r} is not a regular expression: {error}") from None
        if not 0 <= group <= self.pattern.groups:
            raise ConfigurationError(f"{pattern!r} has no group {group}.")
        self._group = group

    def find(self, context: Context) -> Any:
        """The value, or None."""
        found = self.pattern.search(context.text)
        return found.group(self._group) if found else None


class FunctionSlot:
    """What `function(context)` returns; None leaves the slot empty."""

    def __init__(self, function: Callable[[Context], Any]) -> None:
        self.function = function


class Group:
    """Slots within a slot, each extracted separately."""

    def __init__(self, slots: Mapping[str, Slot]) -> None:
        self.slots = dict(slots)


Slot = RegexpSlot | FunctionSlot | Group


class Extract:
    """Runs before or after a transition: extracts these slots from the message.

    A slot that is not found keeps its value.
    """

    def __init__(self, *names: str) -> None:
        if not names:
            raise ConfigurationError("Extract must name the slots to look for.")
        self.names = names
