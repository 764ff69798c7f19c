"""Script: plays a dialog as the reply handler of a bot.

The order within a turn: the functions before the transition, the choice of the transition (the
engine's), the functions before the response, the response. The conversation's position and its
slots are in the session's state and are committed with the reply, or not at all.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import logging
import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from turnwise import handlers
from turnwise.conversation import Message
from turnwise.errors import TurnError
from turnwise.script.conditions import Composite, SlotsExtracted
from turnwise.script.context import Context, Label, Past
from turnwise.script.engine import choose
from turnwise.script.file import File, Functions
from turnwise.script.flow import (
    FIELD,
    NAME,
    Before,
    Choice,
    Dialog,
    Node,
    Template,
    Together,
    said_by,
)
from turnwise.script.languages import Localized
from turnwise.script.slots import Extract, FunctionSlot, Group, Slot, fitting, slot_at
from turnwise.turn import Turn

log = logging.getLogger("turnwise.script")

OWN = "script"
"""The name in the state under which the position and the slots are kept."""
REMEMBERED = 32
"""Maximum number of visited nodes that a conversation remembers."""
PASSES = 20
"""Maximum number of nodes that one turn may pass through."""
SORRY = "Sorry, something went wrong here. Please try again."


class Script:
    """A dialog as a reply handler: `Bot(Script(flows, start=("flow", "node")))`.

    `flows` maps flows to nodes, each a Node or a dict of its keywords. `fallback` is the node to go
    to if no transition fits (default: `start`); `priority` the default priority of transitions;
    `slots` the slots that can be extracted. A condition, priority, destination or function before
    them may take `timeout` seconds. If a response raises, `error_reply` is sent and the
    conversation stays at its node. Raises ConfigurationError for a script that cannot work;
    `warnings` lists probable mistakes.
    """

    def __init__(
        self,
        flows: Mapping[str, Any],
        *,
        start: tuple[str, str],
        fallback: tuple[str, str] | None = None,
        priority: float = 1.0,
        slots: Mapping[str, Slot] | None = None,
        timeout: float = 10.0,
        error_reply: str | Localized = SORRY,
    ) -> None:
        self.dialog = Dialog(flows, start=start, fallback=fallback, priority=priority)
        self.slots = dict(slots or {})
        self.dialog.warnings += [*odd_names(self.slots), *unknown_slots(self.dialog, self.slots)]
        self._timeout = timeout
        self._error_reply = error_reply

    @classmethod
    def load(cls, path: str | Path, functions: Functions | None = None) -> Script:
        """The script in a YAML file, which may name only these `functions`.

        Raises ConfigurationError with file, line, flow and node.
        """
        read = File(Path(path), {} if functions is None else functions)
        script = cls(**read.build())
        script.dialog.warnings = [read.located(warning) for warning in script.warnings]
        for warning in script.warnings:
            log.warning("%s", warning)
        return script

    @property
    def warnings(self) -> list[str]:
        """Probable mistakes: nodes that nothing leads to, transitions that are never taken."""
        return self.dialog.warnings

    async def aclose(self) -> None:
        """Close the resources of responses: the connections of models."""
        for node in self.dialog.nodes.values():
            for response in said_by(node.response):
                if close := getattr(response, "aclose", None):
                    await close()

    async def __call__(self, turn: Turn) -> None:
        """Answer one turn."""
        before = turn.state.get(OWN)
        kept: dict[str, Any] = before if isinstance(before, dict) else {}
        past = Past(kept.get("past") or [[*self.dialog.start]])
        slots = copy.deepcopy(fitting(kept.get("slots", {}), self.slots))
        context = Context(turn.message, past, slots, turn.state, turn=turn)
        for _ in range(PASSES):
            before_it = Trace(context)
            there = await self._step(turn, context, past)
            if there is None:  # it failed, and leaves no trace
                before_it.restore()
            past = there or past
            turn.state[OWN] = {"past": past.kept, "slots": context.slots}
            if there is None or not self.dialog.nodes[context.at].pass_through:
                return
        raise TurnError("The script goes round in circles.", code="script_loop")

    async def _step(self, turn: Turn, context: Context, past: Past) -> Past | None:
        """Go from one node to the next and respond there; None if that failed."""
        node = self.dialog.node_at(context.at)
        context.misc = fresh(node.misc)
        await self._before(context, node.pre_transition)
        label = await self._choose(context)
        node = self.dialog.nodes[label]
        there = past.then(label, REMEMBERED)
        context.past, context.misc = there, fresh(node.misc)
        await self._before(context, node.pre_response)
        try:
            await self._respond(turn, context, node)
        except TurnError:
            raise
        except Exception as error:
            log.error("%s: the response raised %s", label, type(error).__name__)
            context.past = past
            words = self._error_reply
            if isinstance(words, Localized):
                words = words.option(context.languages)
            await turn.say(Message(words))
            return None
        return there

    async def _choose(self, context: Context) -> Label:
        """Drive the engine: call the functions it asks for and send it the results."""
        try:
            asking = choose(self.dialog, context)
            question = next(asking)
            while True:
                try:
                    result = await self._called(context, question.function)
                except Exception as error:
                    question = asking.throw(error)
                else:
                    question = asking.send(result)
        except StopIteration as chosen:
            label: Label = chosen.value
            return label
        except Exception:
            log.exception("%s: no transition could be chosen", context.at)
            return self.dialog.fallback

    async def _called(self, context: Context, function: Callable[[Context], Any]) -> Any:
        """The result of a user function, within the timeout; a plain one runs in the thread."""
        async with asyncio.timeout(self._timeout):
            if context.turn is not None and not handlers.is_async(function):
                result = await context.turn.in_thread(function, context)
            else:
                result = function(context)
            return await result if inspect.isawaitable(result) else result

    # Before a transition or a response

    async def _before(self, context: Context, functions: Mapping[str, Before]) -> None:
        """Run them in order; one that raises is logged and does not affect the others. It leaves no
        trace, unless it ran together with others, whose traces cannot be told from its own."""
        for name, function in functions.items():
            if isinstance(function, Together):
                await asyncio.gather(
                    *(
                        self._one_before(context, name, one, alone=False)
                        for one in function.functions
                    )
                )
            else:
                await self._one_before(context, name, function)

    async def _one_before(
        self, context: Context, name: str, function: Before, *, alone: bool = True
    ) -> None:
        before_it = Trace(context) if alone else None  # the others go on meanwhile
        try:
            if isinstance(function, Extract):
                for path in function.names:
                    await self._extract(context, path)
            else:
                assert not isinstance(function, Together)
                await self._called(context, function)
        except Exception as error:
            if before_it is not None:
                before_it.restore()
            log.error("%s: %s raised %s", context.at, name, type(error).__name__)

    async def _extract(self, context: Context, path: str) -> None:
        """Extract the slot `path`; one that is not found keeps its value."""
        slot = slot_at(self.slots, path)
        if slot is None:
            raise LookupError(f"the script has no slot {path}")
        found = await self._find(context, slot)
        if found is None:
            return
        *groups, last = path.split(".")
        into = context.slots
        for name in groups:
            if not isinstance(into.get(name), dict):
                into[name] = {}
            into = into[name]
        if isinstance(found, dict) and isinstance(into.get(last), dict):
            into[last].update(found)
        else:
            into[last] = found

    async def _find(self, context: Context, slot: Slot) -> Any:
        if isinstance(slot, Group):
            found = {name: await self._find(context, one) for name, one in slot.slots.items()}
            return {name: value for name, value in found.items() if value is not None} or None
        if isinstance(slot, FunctionSlot):
            return await self._called(context, slot.function)
        return slot.find(context)

    # The response

    async def _respond(self, turn: Turn, context: Context, node: Node) -> None:
        response: Any = node.response
        while isinstance(response, Choice | Localized):
            if isinstance(response, Localized):
                response = response.option(context.languages)
            else:
                response = random.choice(response.options)
        if isinstance(response, Template):
            text = filled(response.text, context)
            response = text if response.message is None else replaced(response.message, text)
        if response is None:
            response = Message("")
        if isinstance(response, str):
            await turn.say(Message(response))
        elif isinstance(response, Message):
            # A copy each time: changes to it must not change the script.
            await turn.say(replaced(response, response.text))
        else:
            argument: Any = turn if _wants_turn(response) else context
            threaded = not handlers.is_async(response)
            await handlers.run(turn, response, argument, threaded=threaded)


def filled(text: str, context: Context) -> str:
    """`text` with each `{slot}` replaced by its value; an empty slot becomes an empty text, and
    `{{slot}}` becomes `{slot}`."""

    def value(found: re.Match[str]) -> str:
        if found.group(1):
            return f"{{{found.group(2)}}}"
        value = context.slot(found.group(2))
        return "" if value is None else str(value)

    return FIELD.sub(value, text)


def replaced(message: Message, text: str) -> Message:
    """A copy of a message with this text."""
    made = Message(text, role=message.role)
    made.attachments = copy.deepcopy(message.attachments)
    made.metadata = copy.deepcopy(message.metadata)
    return made


def fresh(misc: Any) -> Any:
    """Containers as copies: what a turn changes in them is seen by no other. What they hold, such
    as a model, is shared."""
    if type(misc) is dict or isinstance(misc, Mapping):  # the first is quick
        return {name: fresh(value) for name, value in misc.items()}
    for kind in (list, set, tuple):
        if type(misc) is kind:
            return kind(map(fresh, misc))
    return misc


class Trace:
    """The slots and the state as they are now, to come back to them. The script's own part of the
    state is kept uncopied: it is replaced at the end of a step and not changed within one."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._slots = copy.deepcopy(context.slots)
        self._state = {n: copy.deepcopy(v) if n != OWN else v for n, v in context.state.items()}

    def restore(self) -> None:
        """Everything is as it was."""
        kept = ((self._context.slots, self._slots), (self._context.state, self._state))
        for now, before in kept:
            now.clear()
            now.update(before)


def odd_names(slots: Mapping[str, Slot], above: str = "") -> list[str]:
    """Warnings of slots that no template can name."""
    found = []
    for name, slot in slots.items():
        if not NAME.fullmatch(name):
            words = "a template cannot name it: its letters, digits, _ and - begin with no -"
            found.append(f"slots: {above}{name}: {words}.")
        if isinstance(slot, Group):
            found += odd_names(slot.slots, f"{above}{name}.")
    return found


def unknown_slots(dialog: Dialog, slots: Mapping[str, Slot]) -> list[str]:
    """Warnings of names that are no slots, if the script has slots at all."""
    found = []
    for label, node in dialog.nodes.items() if slots else ():
        templates = (one for one in said_by(node.response) if isinstance(one, Template))
        named = [name for one in templates for name in one.names()]
        for to in node.transitions:
            named += _asked(to.when)
        for function in (*node.pre_transition.values(), *node.pre_response.values()):
            if isinstance(function, Extract):
                named += function.names
        found += [
            f"{label}: there is no slot {name!r}."
            for name in dict.fromkeys(named)
            if slot_at(slots, name) is None
        ]
    return found


def _asked(condition: Any) -> list[str]:
    """The slots that a condition asks for."""
    if isinstance(condition, SlotsExtracted):
        return list(condition.names)
    members = condition.members if isinstance(condition, Composite) else ()
    return [name for member in members for name in _asked(member)]


def _wants_turn(response: Callable[..., Any]) -> bool:
    """A script's function, of whatever kind, takes the context; a handler of whole turns (a model
    client, whatever has a first parameter named turn) takes the turn."""
    try:
        return next(iter(inspect.signature(response).parameters), "turn") == "turn"
    except ValueError:  # built in
        return False
