"""Context: all that a script's functions see of the conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, overload

from turnwise.conversation import Message
from turnwise.errors import TurnwiseError


class Label(NamedTuple):
    """Where in a script a conversation is: a flow and a node."""

    flow: str
    node: str

    def __str__(self) -> str:
        return f"{self.flow}/{self.node}"


class Past(Sequence[Label]):
    """The nodes visited, as the state keeps them; labels are made of those that are looked at."""

    def __init__(self, kept: Sequence[Sequence[str]]) -> None:
        self.kept = kept

    def __len__(self) -> int:
        return len(self.kept)

    @overload
    def __getitem__(self, index: int) -> Label: ...

    @overload
    def __getitem__(self, index: slice) -> list[Label]: ...

    def __getitem__(self, index: int | slice) -> Label | list[Label]:
        if isinstance(index, slice):
            return [Label(*label) for label in self.kept[index]]
        return Label(*self.kept[index])

    def then(self, label: Label, remembered: int) -> Past:
        """The same and one more, the last `remembered` of them."""
        return Past([*self.kept, [*label]][-remembered:])


class NothingSaid(TurnwiseError):
    """Nobody has said anything in this dialog yet."""

    code = "nothing_said"


@dataclass
class Context:
    """What conditions, priorities, destinations, responses and services of a script are given.

    `past` are the nodes visited, the current one last; `slots` what was extracted; `state` the
    session's JSON dict, `misc` the node's own data. `turn` is the Turn, or None where a step is
    looked at without one.
    """

    message: Message | None
    past: Sequence[Label]
    slots: dict[str, Any] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    misc: Mapping[str, Any] = field(default_factory=dict)
    turn: Any = None

    @property
    def at(self) -> Label:
        """The current node."""
        return self.past[-1]

    @property
    def request(self) -> Message:
        """What was said last. Raises NothingSaid in an empty dialog."""
        if self.message is None:
            raise NothingSaid()
        return self.message

    @property
    def text(self) -> str:
        """The text of what was said last; raises NothingSaid."""
        return self.request.text

    def slot(self, path: str) -> Any:
        """A slot by its name, in a group by `group.name`; None where it is not filled."""
        found: Any = self.slots
        for name in path.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        return found
