"""The engine of scripts: decides which transition is taken, without any waiting or calling.

`choose` is a generator. It evaluates built-in conditions, and yields a `Question` for each user
function whose result it needs; its driver calls the function and sends the result, or throws what
it raised. So the same engine runs in a turn, in a test without a loop, and in a diagram of the
dialog.

- Transitions are checked by priority, the highest first, equal ones in the order node, LOCAL,
  GLOBAL; the first whose condition holds and whose destination exists is taken, the rest skipped.
- A transition whose condition, priority or destination raises is dropped, alone.
- When none is left, the conversation goes to the fallback node.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from turnwise.script import conditions
from turnwise.script.conditions import Asked, Composite, Condition
from turnwise.script.context import Back, Context, Label
from turnwise.script.flow import (
    Backward,
    Current,
    Dialog,
    Fallback,
    Forward,
    FromHistory,
    Previous,
    Start,
    To,
)

log = logging.getLogger("turnwise.script")


class Question(NamedTuple):
    """A user function whose result the engine needs, and its context."""

    function: Callable[[Context], Any]
    what: str


Asking = Generator[Question, Any, Any]


def choose(dialog: Dialog, context: Context) -> Generator[Question, Any, Label]:
    """The label that the conversation goes to from `context.at`."""
    node = dialog.node_at(context.at)
    ranked: list[tuple[float, To]] = []
    for to in node.transitions:
        priority = yield from _priority(dialog, to)
        if priority is not None:
            ranked.append((priority, to))
    ranked.sort(key=lambda pair: -pair[0])  # stable: equal ones stay in order
    for _, to in ranked:
        target = yield from _target(dialog, context, to)
        if target is not None:
            return target
    return dialog.fallback


def _priority(dialog: Dialog, to: To) -> Generator[Question, Any, float | None]:
    """A transition's priority, or None when it is dropped."""
    priority = to.priority
    if callable(priority):
        try:
            priority = yield Question(priority, "priority")
        except Exception as error:
            _dropped(to, error)
            return None
    if priority is None or priority is True:
        return dialog.priority
    if priority is False:
        return None
    if not isinstance(priority, int | float):
        _dropped(to, TypeError(f"{_name(to.priority)} gave {priority!r}, which is not a priority"))
        return None
    return float(priority)


def _target(dialog: Dialog, context: Context, to: To) -> Generator[Question, Any, Label | None]:
    """Where a transition leads, or None when it is not taken."""
    try:
        if not (yield from holds(to.when, context)):
            return None
        destination: Any = to.destination
        if callable(destination):
            destination = yield Question(destination, "destination")
        label = _resolve(dialog, context, destination)
    except Exception as error:
        _dropped(to, error)
        return None
    if label is None:
        _dropped(to, LookupError(f"there is no node {destination!r}"))
    return label


def holds(condition: Asked | Composite, context: Context) -> Generator[Question, Any, bool]:
    """Whether a condition holds; raises what it raises."""
    if isinstance(condition, Condition):
        return condition.check(context)
    if isinstance(condition, Composite):
        return (yield from _composite(condition, context))
    return bool((yield Question(condition, "condition")))  # truth as Python has it


def _composite(condition: Composite, context: Context) -> Generator[Question, Any, bool]:
    """Any and All stop at the member that decides; a member that raises does not hold."""
    wanted = isinstance(condition, conditions.Any)
    for member in condition.members:
        try:
            held = yield from holds(member, context)
        except Exception as error:
            log.info("a condition raised %s", type(error).__name__)
            held = False
        if isinstance(condition, conditions.Not):
            return not held
        if held is wanted:
            return wanted
    return not wanted


def _resolve(dialog: Dialog, context: Context, destination: Any) -> Label | None:
    """The node of a destination; None where there is none."""
    past = context.past
    label: Label | None
    match destination:
        case str() | tuple() | list():
            named = tuple(destination) if isinstance(destination, list) else destination
            return dialog.find(named, context.at)
        case Current():
            label = context.at
        case Previous():
            label = Back(*past[max(-2, -len(past))])  # at the beginning it stays there
        case FromHistory(n):
            if not -len(past) <= n < 0:
                return None
            label = past[n]
        case Start():
            label = dialog.start
        case Fallback():
            label = dialog.fallback
        case Forward() | Backward():
            return dialog.beside(destination, context.at)
        case _:
            raise TypeError(f"{destination!r} is not a destination")
    return label if label in dialog.nodes else None


def _dropped(to: To, error: Exception) -> None:
    """The error's text may quote a message, so it is not logged."""
    told = error if isinstance(error, LookupError | TypeError) else type(error).__name__
    log.warning("the transition to %s is dropped: %s", _name(to.destination), told)


def _name(value: Any) -> str:
    return getattr(value, "__qualname__", None) or repr(value)
