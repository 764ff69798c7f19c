"""Flow: the parts of a script, and the resulting nodes with everything they inherit.

    flow -> node -> response, transitions, pre_transition, pre_response, misc

Every node inherits from GLOBAL (of the script) and LOCAL (of its flow): transitions are appended
(the node's, then LOCAL's, then GLOBAL's), the response is used only if the node has none, and if a
name exists in both, the nearer one is used.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from turnwise.conversation import Message
from turnwise.errors import ConfigurationError
from turnwise.script.conditions import Always, Asked, Composite
from turnwise.script.context import Context, Label
from turnwise.script.languages import Localized, missing
from turnwise.script.slots import Extract

log = logging.getLogger("turnwise.script")

GLOBAL = "GLOBAL"
LOCAL = "LOCAL"
FIELD = re.compile(r"(\{(?=\{))?\{(\w[\w.-]*)\}(?(1)\})")
"""A slot in a template, or one that is escaped by another pair of braces."""
NAME = re.compile(r"\w[\w-]*")
"""The name of a slot that a template can name."""


@dataclass(frozen=True)
class Current:
    """Stay."""


@dataclass(frozen=True)
class Previous:
    """Back to the node from which the conversation came here, and from there further back: what was
    gone back from is no longer on the way. At the beginning it stays there."""


@dataclass(frozen=True)
class FromHistory:
    """To an earlier node: -1 is the current one, -2 the one before. It is a step forward, so from
    there `FromHistory(-2)` leads here again; see Previous."""

    n: int


@dataclass(frozen=True)
class Start:
    """To the script's first node."""


@dataclass(frozen=True)
class Fallback:
    """To the script's fallback node."""


@dataclass(frozen=True)
class Forward:
    """To the next node of this flow, in the order they are written."""

    loop: bool = False


@dataclass(frozen=True)
class Backward:
    """To the previous node of this flow."""

    loop: bool = False


Relative = Current | Previous | FromHistory | Start | Fallback | Forward | Backward
Destination = str | tuple[str, str] | Relative | Callable[[Context], Any]
Priority = float | bool | None | Callable[[Context], Any]


@dataclass(frozen=True)
class To:
    """A transition to `destination` if `when` holds; the highest `priority` is checked first."""

    destination: Destination
    when: Asked | Composite = field(default_factory=Always)
    priority: Priority = None


@dataclass(frozen=True)
class Template:
    """A response: a text in which `{slot}`, or `{group.slot}`, stands for a slot's value, and
    `{{slot}}` for `{slot}`. Given a Message, its text is filled."""

    text: str
    message: Message | None = None

    def names(self) -> list[str]:
        """The slots that it names."""
        return [found.group(2) for found in FIELD.finditer(self.text) if not found.group(1)]


@dataclass(frozen=True)
class Choice:
    """A response: one of these, chosen at random. Raises ConfigurationError if there is none."""

    options: Sequence[str | Message | Template]

    def __post_init__(self) -> None:
        if not self.options:
            raise ConfigurationError("A choice needs at least one response.")


class Together:
    """Functions that run concurrently before a transition or a response."""

    def __init__(self, *functions: Callable[[Context], Any]) -> None:
        self.functions = functions


Response = str | Message | Choice | Template | Localized | Callable[..., Any] | None
Before = Extract | Together | Callable[[Context], Any]


@dataclass
class Node:
    """A node: what it answers, and where to go from it.

    `pre_transition` and `pre_response` are functions `(context)` by name, run in this order before
    the transition from here is chosen and before the response is created. With `pass_through` the
    conversation does not wait here: the response is sent and the next transition chosen at once.
    """

    response: Response = None
    transitions: Sequence[To] = ()
    pre_transition: Mapping[str, Before] = field(default_factory=dict)
    pre_response: Mapping[str, Before] = field(default_factory=dict)
    misc: Mapping[str, Any] = field(default_factory=dict)
    pass_through: bool = False


Flows = Mapping[str, "Node | Mapping[str, Node | Mapping[str, Any]]"]


class Dialog:
    """A script's nodes with everything they inherit; reports errors with flow and node.

    `warnings` describe what works but is probably a mistake.
    """

    def __init__(
        self,
        flows: Mapping[str, Any],
        *,
        start: tuple[str, str],
        fallback: tuple[str, str] | None = None,
        priority: float = 1.0,
    ) -> None:
        self.priority = priority
        self.warnings: list[str] = []
        self.nodes: dict[Label, Node] = {}
        self.order: dict[str, list[str]] = {}
        everywhere = _node(flows.get(GLOBAL, Node()), GLOBAL)
        for flow, nodes in flows.items():
            if flow == GLOBAL:
                continue
            if not isinstance(nodes, Mapping):
                raise ConfigurationError(f"Flow {flow} must be a mapping of nodes.")
            local = _node(nodes.get(LOCAL, Node()), f"{flow}/{LOCAL}")
            self.order[flow] = [name for name in nodes if name != LOCAL]
            for name in self.order[flow]:
                own = _node(nodes[name], f"{flow}/{name}")
                self.nodes[Label(flow, name)] = _inherit(own, local, everywhere)
        self._gone = {
            flow: _inherit(Node(), _node(nodes.get(LOCAL, Node()), flow), everywhere)
            for flow, nodes in flows.items()
            if flow != GLOBAL
        }
        self._everywhere = _inherit(Node(), Node(), everywhere)
        self.start = self._named(start, "start")
        self.fallback = self._named(fallback or start, "fallback")
        for label, node in self.nodes.items():
            self._check_destinations(label, node)
            self._warn_of_shadows(label, node)
        self._warn_of_unreachable()
        self.warnings += missing({label: node.response for label, node in self.nodes.items()})

    def node_at(self, label: Label) -> Node:
        """The node; of one that this version of the script does not have any more, what it would
        inherit."""
        node = self.nodes.get(label)
        if node is not None:
            return node
        log.warning("%s is not in the script any more", label)
        return self._gone.get(label.flow, self._everywhere)

    def _named(self, label: tuple[str, str], what: str) -> Label:
        if not _is_pair(label) or Label(*label) not in self.nodes:
            raise ConfigurationError(f"The {what} node {label!r} is not in the script.")
        return Label(*label)

    def _check_destinations(self, label: Label, node: Node) -> None:
        for to in node.transitions:
            if isinstance(to.destination, str | tuple) and self.find(to.destination, label) is None:
                raise ConfigurationError(f"{label}: there is no node {to.destination!r} to go to.")

    def find(self, destination: str | tuple[str, str], at: Label) -> Label | None:
        """The node that a constant destination names, from `at`; None if there is none."""
        named = (at.flow, destination) if isinstance(destination, str) else destination
        label = Label(*named) if _is_pair(named) else None
        return label if label in self.nodes else None

    def _warn_of_shadows(self, label: Label, node: Node) -> None:
        """Transitions after one that is always taken are never checked."""
        fixed = [(p, to) for to in node.transitions if (p := self._fixed(to)) is not None]
        taken = False
        for _, to in sorted(fixed, key=lambda pair: -pair[0]):
            if taken:
                warning = f"{label}: the transition to {to.destination!r} is never taken."
                self.warnings.append(warning)
            taken = taken or (isinstance(to.when, Always) and not callable(to.destination))

    def _fixed(self, to: To) -> float | None:
        if to.priority is None or to.priority is True:
            return self.priority
        return None if to.priority is False or callable(to.priority) else float(to.priority)

    def _warn_of_unreachable(self) -> None:
        """Nodes that nothing leads to; functions and relative destinations may lead anywhere."""
        reached, todo = {self.start, self.fallback}, [self.start, self.fallback]
        while todo:
            label = todo.pop()
            for to in self.nodes[label].transitions:
                for target in self.targets(to.destination, label):
                    if target not in reached:
                        reached.add(target)
                        todo.append(target)
        for label in self.nodes:
            if label not in reached:
                self.warnings.append(f"{label}: nothing leads to this node.")

    def targets(self, destination: Destination, at: Label) -> list[Label]:
        """The possible targets of a destination that are known without a conversation."""
        match destination:
            case str() | tuple():
                found = self.find(destination, at)
                return [found] if found else []
            case Forward() | Backward():
                next_one = self.beside(destination, at)
                return [next_one] if next_one else []
            case Start():
                return [self.start]
            case Fallback():
                return [self.fallback]
            case Current() | Previous() | FromHistory():
                return []
            case _:
                return list(self.nodes)

    def beside(self, destination: Forward | Backward, at: Label) -> Label | None:
        """The node after or before `at` in its flow; None at the ends unless it loops."""
        names = self.order[at.flow]
        i = names.index(at.node) + (1 if isinstance(destination, Forward) else -1)
        if not destination.loop and not 0 <= i < len(names):
            return None
        return Label(at.flow, names[i % len(names)])


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(isinstance(part, str) for part in value)
    )


def _node(given: Any, where: str) -> Node:
    """A node from a Node or a dict of its keywords. Raises ConfigurationError."""
    if isinstance(given, Mapping):
        unknown = set(given) - set(Node.__dataclass_fields__)
        if unknown:
            named = ", ".join(sorted(map(str, unknown)))
            raise ConfigurationError(f"{where}: a node has no {named}.")
        given = Node(**given)
    if not isinstance(given, Node):
        raise ConfigurationError(f"{where}: a node is a Node or a dict, not {given!r}.")
    for to in given.transitions:
        if not isinstance(to, To):
            raise ConfigurationError(f"{where}: a transition is a To, not {to!r}.")
        if not (
            isinstance(to.destination, str | Relative) or callable(to.destination)
        ) and not _is_pair(to.destination):
            raise ConfigurationError(f"{where}: {to.destination!r} is not a destination.")
        if not (hasattr(to.when, "check") or isinstance(to.when, Composite) or callable(to.when)):
            raise ConfigurationError(f"{where}: {to.when!r} is not a condition.")
        if not (
            to.priority is None or isinstance(to.priority, int | float) or callable(to.priority)
        ):
            raise ConfigurationError(f"{where}: {to.priority!r} is not a priority.")
    for response in said_by(given.response):
        known = response is None or isinstance(response, str | Message | Template)
        if not known and not callable(response):
            raise ConfigurationError(f"{where}: {response!r} is not a response.")
    return given


def said_by(response: Response) -> list[Any]:
    """All that a response may come to: of its choices and languages each."""
    if isinstance(response, Localized):
        return [found for one in response.options.values() for found in said_by(one)]
    return list(response.options) if isinstance(response, Choice) else [response]


def _inherit(own: Node, local: Node, everywhere: Node) -> Node:
    responses = (node.response for node in (own, local, everywhere))
    return Node(
        response=next((response for response in responses if response is not None), None),
        transitions=(*own.transitions, *local.transitions, *everywhere.transitions),
        pre_transition={**everywhere.pre_transition, **local.pre_transition, **own.pre_transition},
        pre_response={**everywhere.pre_response, **local.pre_response, **own.pre_response},
        misc={**everywhere.misc, **local.misc, **own.misc},
        pass_through=own.pass_through,
    )
