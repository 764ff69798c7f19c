"""Context: everything that a script's functions can see of the conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, overload

from turnwise.conversation import Message
from turnwise.errors import TurnwiseError


class Label(NamedTuple):
    """The position of a conversation in a script: a flow and a node."""

    flow: str
    node: str

    def __str__(self) -> str:
        return f"{self.flow}/{self.node}"


class Back(Label):
    """The node before the current one, to which a conversation goes back: it leaves the way."""

    __slots__ = ()


class Past(Sequence[Label]):
    """The visited nodes in the state's format; labels are created only on access."""

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
        """A copy with one more node, limited to the last `remembered`; or, on the way back, with
        one less."""
        if isinstance(label, Back):
            return Past(self.kept[:-1] or self.kept)
        return Past([*self.kept, [*label]][-remembered:])


class NothingSaid(TurnwiseError):
    """This dialog does not contain a message yet."""

    code = "nothing_said"


@dataclass
class Context:
    """The argument of a script's conditions, priorities, destinations, responses and services.

    `past` are the visited nodes, the current one last; `slots` the extracted values; `state` the
    session's JSON dict, `misc` the node's own data. `turn` is the Turn, or None if a step is
    evaluated without one.
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
        """The last message. Raises NothingSaid in an empty dialog."""
        if self.message is None:
            raise NothingSaid()
        return self.message

    @property
    def text(self) -> str:
        """The text of the last message; raises NothingSaid."""
        return self.request.text

    @property
    def languages(self) -> list[str]:
        """The tags of the languages to answer in, the first one wanted most: the slot `language`,
        or what the state, the session's metadata or the message's metadata say of `language`."""
        session = getattr(self.turn, "session", None)
        said = (
            self.slots.get("language"),
            self.state.get("language"),
            session.metadata.get("language") if session is not None else None,
            self.message.metadata.get("language") if self.message is not None else None,
        )
        return [tag for tag in said if isinstance(tag, str) and tag.strip()]

    def slot(self, path: str) -> Any:
        """A slot by its name, in a group by `group.name`; None if it is not filled."""
        found: Any = self.slots
        for name in path.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        return found
