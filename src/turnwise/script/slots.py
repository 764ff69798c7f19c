"""Slots: values extracted from messages and stored in the session's state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from turnwise.errors import ConfigurationError
from turnwise.script.context import Context
from turnwise.script.patterns import Pattern


class RegexpSlot:
    """The part of the text that `pattern` finds: its group `group` (0: all of it)."""

    def __init__(self, pattern: str, *, group: int = 0, ignore_case: bool = False) -> None:
        self.pattern = Pattern(pattern, ignore_case=ignore_case)
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


def slot_at(slots: Mapping[str, Slot], path: str) -> Slot | None:
    """The slot with this name, in a group by `group.name`; None if there is none."""
    found: Slot | None = None
    within: Mapping[str, Slot] = slots
    for name in path.split("."):
        found = within.get(name)
        within = found.slots if isinstance(found, Group) else {}
    return found


def fitting(kept: Mapping[str, Any], slots: Mapping[str, Slot]) -> dict[str, Any]:
    """The values of a conversation that these slots can hold: an earlier version of the script may
    have had slots of another shape, whose values count as not filled."""
    found = dict(kept)
    for name, value in kept.items():
        slot = slots.get(name)
        if isinstance(slot, Group):
            if isinstance(value, dict):
                found[name] = fitting(value, slot.slots)
            else:
                del found[name]
        elif isinstance(slot, RegexpSlot) and not isinstance(value, str):
            del found[name]
    return found


class Extract:
    """Runs before or after a transition: extracts these slots from the message.

    A slot that is not found keeps its value.
    """

    def __init__(self, *names: str) -> None:
        if not names:
            raise ConfigurationError("Extract must name the slots to look for.")
        self.names = names
