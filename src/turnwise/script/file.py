"""Scripts as YAML files: their schema, and their conversion to flows.

A file contains data only: for code it names a function that the program registered, never a module.
Errors are reported with file, line, flow and node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from turnwise.conversation import Attachment, Message
from turnwise.errors import ConfigurationError
from turnwise.script import conditions, flow, slots
from turnwise.script.languages import Localized, Speaks
from turnwise.script.schema import (
    BeforeIn,
    ConditionIn,
    JumpIn,
    NodeIn,
    ResponseIn,
    ScriptIn,
    SlotIn,
    TransitionIn,
)

LARGEST, DEEPEST = 100_000, 100
"""Elements that the aliases of a short file make of it, and levels of elements within elements."""

Functions = Mapping[str, Callable[..., Any]]


class File:
    """A parsed file, with the line numbers of its elements."""

    def __init__(self, path: Path, functions: Functions) -> None:
        self.path = path
        self._functions = functions
        try:
            text = path.read_text(encoding="utf-8")
            self._length = len(text)
            self._root = yaml.compose(text, Loader=yaml.SafeLoader)
            self._check(self._root, {}, ())
            data = yaml.safe_load(text)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{path}: {error}") from None
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ConfigurationError(f"{path}:{line}: {error.problem}") from None
        except RecursionError:
            raise ConfigurationError(f"{path}: more than {DEEPEST} levels") from None
        except yaml.reader.ReaderError as error:
            line = text[: error.position].count("\n") + 1
            words = f"the character U+{error.character:04X} is not allowed in YAML"
            raise ConfigurationError(f"{path}:{line}: {words}") from None
        try:
            self.script = ScriptIn.model_validate(data, by_alias=True)
        except ValidationError as error:
            wrong = error.errors()[0]
            where = tuple(part for part in wrong["loc"])
            raise self.wrong(where, str(wrong["msg"])) from None

    def _check(self, node: Any, sizes: dict[int, int], above: tuple[int, ...]) -> int:
        """How many elements a node stands for, with all that its aliases repeat. Raises
        ConfigurationError: YAML keeps the last of two keys with one name, and says nothing."""
        if id(node) in above:
            raise self._at(node, "an alias stands for what it is in")
        if id(node) in sizes or not isinstance(node, yaml.CollectionNode):
            return sizes.get(id(node), 1)
        above = (*above, id(node))
        members = node.value
        if isinstance(node, yaml.MappingNode):
            members = [value for _, value in node.value]
            self._refuse_doubles([key for key, _ in node.value])
        if len(above) > DEEPEST:
            raise self._at(node, f"more than {DEEPEST} levels")
        sizes[id(node)] = size = 1 + sum(self._check(one, sizes, above) for one in members)
        if size > max(LARGEST, self._length):  # by itself an element has at least a character
            raise self._at(node, f"aliases make more than {LARGEST:,} elements of it")
        return size

    def _refuse_doubles(self, keys: list[Any]) -> None:
        lines: dict[str, int] = {}
        for key in keys:
            name = str(key.value)
            if name in lines and name != "<<":
                raise self._at(key, f"{name!r} is there already, in line {lines[name]}")
            lines[name] = key.start_mark.line + 1

    def _at(self, node: Any, words: str) -> ConfigurationError:
        return ConfigurationError(f"{self.path}:{node.start_mark.line + 1}: {words}")

    def line(self, where: tuple[Any, ...]) -> int:
        """The line of the element at this path, or of the nearest enclosing one."""
        node, line = self._root, 1
        for part in where:
            found = _child(node, part)
            if found is None:
                continue  # a name of the schema that is not in the file
            key, node = found
            line = key.start_mark.line + 1
        return line

    def wrong(self, where: tuple[Any, ...], words: str) -> ConfigurationError:
        """An error with file, line, flow and node."""
        place = [f"{self.path}:{self.line(where)}"]
        rest = where
        if where[:1] == ("flows",) and len(where) >= 3:
            place.append(f"{where[1]}/{where[2]}")
            rest = where[3:]
        named = ".".join(str(part) for part in rest if _is_name(part))
        words = words.removeprefix("Value error, ")
        return ConfigurationError(": ".join([*place, *([named] if named else []), words]))

    def located(self, warning: str) -> str:
        """A warning about a node, with file and line."""
        name, _, node = warning.partition(":")[0].partition("/")
        return f"{self.path}:{self.line(('flows', name, node))}: {warning}"

    # Conversion

    def build(self) -> dict[str, Any]:
        """The arguments of the Script. Raises ConfigurationError."""
        given = self.script
        flows: dict[str, Any] = {}
        for name, nodes in given.flows.items():
            flows[name] = {
                node: self._node(one or NodeIn(), ("flows", name, node))
                for node, one in nodes.items()
            }
            for node in nodes:
                self._check_targets(name, node)
        if given.global_ is not None:
            self._check_ways(given.global_, "", ("global",))
            flows[flow.GLOBAL] = self._node(given.global_, ("global",))
        built: dict[str, Any] = {
            "flows": flows,
            "start": self._label(given.start, ("start",)),
            "fallback": given.fallback and self._label(given.fallback, ("fallback",)),
            "priority": given.priority,
            "timeout": given.timeout,
            "slots": {n: self._slot(s, ("slots", n)) for n, s in given.slots.items()},
        }
        words = given.error_reply
        if words is not None:
            self._not_empty(words, ("error_reply",))
            built["error_reply"] = words if isinstance(words, str) else Localized(words)
        return built

    def _check_targets(self, name: str, node: str) -> None:
        """Report unknown destinations with their line, before Dialog does without."""
        self._check_ways(self.script.flows[name][node], name, ("flows", name, node))

    def _check_ways(self, one: NodeIn | None, name: str, place: tuple[Any, ...]) -> None:
        for i, transition in enumerate(one.transitions if one else ()):
            if isinstance(transition.to, str) and not transition.to.startswith("@"):
                to_flow, _, to_node = transition.to.rpartition("/")
                nodes = self.script.flows.get(to_flow or name, {})
                if to_node not in nodes or to_node == flow.LOCAL:
                    where = (*place, "transitions", i, "to")
                    raise self.wrong(where, f"there is no node {transition.to!r} to go to")

    def _label(self, text: str, where: tuple[Any, ...]) -> tuple[str, str]:
        name, _, node = text.rpartition("/")
        if node not in self.script.flows.get(name, {}):
            raise self.wrong(where, f"there is no node {text!r}; name it flow/node")
        return name, node

    def _function(self, name: str, where: tuple[Any, ...]) -> Callable[..., Any]:
        if name not in self._functions:
            known = ", ".join(sorted(self._functions)) or "none"
            raise self.wrong(where, f"no function {name!r} is registered (there are: {known})")
        return self._functions[name]

    def _node(self, node: NodeIn, where: tuple[Any, ...]) -> flow.Node:
        return flow.Node(
            response=self._response(node.response, (*where, "response")),
            transitions=[
                self._transition(one, (*where, "transitions", i))
                for i, one in enumerate(node.transitions)
            ],
            pre_transition=self._before(node.pre_transition, (*where, "pre_transition")),
            pre_response=self._before(node.pre_response, (*where, "pre_response")),
            misc=node.misc,
            pass_through=node.pass_through,
        )

    def _response(self, given: str | ResponseIn | None, where: tuple[Any, ...]) -> flow.Response:
        if given is None:
            return None
        if isinstance(given, str):
            return _text(given)
        if given.choice is not None:
            if not given.choice:
                raise self.wrong((*where, "choice"), "a choice needs at least one response")
            return flow.Choice([_text(one) for one in given.choice])
        if given.languages is not None:
            self._not_empty(given.languages, (*where, "languages"))
            return Localized(
                {
                    tag: self._response(one, (*where, "languages", tag))
                    for tag, one in given.languages.items()
                }
            )
        if given.message is not None:
            message = given.message
            try:
                attachments = [Attachment(**one) for one in message.attachments]
            except TypeError as error:
                raise self.wrong((*where, "message"), str(error)) from None
            made = Message(message.text, attachments=attachments, metadata=message.metadata)
            return flow.Template(message.text, made) if "{" in message.text else made
        return self._function(given.call or "", (*where, "call"))

    def _before(
        self, given: Mapping[str, BeforeIn], where: tuple[Any, ...]
    ) -> dict[str, flow.Before]:
        built: dict[str, flow.Before] = {}
        for name, one in given.items():
            here = (*where, name)
            if one.extract is not None:
                if not one.extract:
                    raise self.wrong((*here, "extract"), "it must name the slots to look for")
                for slot in one.extract:
                    if not self._is_slot(slot):
                        known = ", ".join(self.script.slots) or "none"
                        words = f"there is no slot {slot!r} to extract (there are: {known})"
                        raise self.wrong((*here, "extract"), words)
                built[name] = slots.Extract(*one.extract)
            elif one.together is not None:
                self._not_empty(one.together, (*here, "together"))
                built[name] = flow.Together(*(self._function(f, here) for f in one.together))
            else:
                built[name] = self._function(one.call or "", here)
        return built

    def _is_slot(self, path: str) -> bool:
        within: Mapping[str, SlotIn] = self.script.slots
        found = None
        for name in path.split("."):
            found = within.get(name)
            within = (found.group or {}) if found else {}
        return found is not None

    def _not_empty(self, given: Sized, where: tuple[Any, ...]) -> None:
        if not given:
            raise self.wrong(where, "it is empty")

    def _slot(self, given: SlotIn, where: tuple[Any, ...]) -> slots.Slot:
        if given.regexp is not None:
            try:
                slot = slots.RegexpSlot(given.regexp, ignore_case=True)
            except ConfigurationError as error:
                raise self.wrong((*where, "regexp"), error.message) from None
            first = 1 if slot.pattern.groups else 0
            return slots.RegexpSlot(given.regexp, group=first, ignore_case=True)
        if given.group is not None:
            return slots.Group(
                {n: self._slot(s, (*where, "group", n)) for n, s in given.group.items()}
            )
        return slots.FunctionSlot(self._function(given.call or "", (*where, "call")))

    def _transition(self, given: TransitionIn, where: tuple[Any, ...]) -> flow.To:
        when: Any = conditions.Always()
        if given.when is not None:
            when = self._condition(given.when, given.ignore_case, (*where, "when"))
        return flow.To(self._destination(given.to, (*where, "to")), when, given.priority)

    def _destination(self, given: str | JumpIn, where: tuple[Any, ...]) -> flow.Destination:
        words: dict[str, flow.Destination] = {
            "@current": flow.Current(),
            "@previous": flow.Previous(),
            "@start": flow.Start(),
            "@fallback": flow.Fallback(),
            "@forward": flow.Forward(),
            "@backward": flow.Backward(),
        }
        if isinstance(given, str):
            if given.startswith("@") and given not in words:
                raise self.wrong(where, f"{given!r} is none of {', '.join(words)}")
            name, slash, node = given.rpartition("/")
            return words.get(given) or ((name, node) if slash else given)
        if given.history is not None:
            return flow.FromHistory(given.history)
        if given.forward is not None:
            return flow.Forward(loop=given.forward == "loop")
        if given.backward is not None:
            return flow.Backward(loop=given.backward == "loop")
        return self._function(given.call or "", (*where, "call"))

    def _condition(self, given: ConditionIn, ignore: bool, where: tuple[Any, ...]) -> Any:
        if given.exact is not None:
            return conditions.Exact(given.exact, ignore_case=ignore)
        if given.has is not None:
            return conditions.Has(given.has, ignore_case=ignore)
        if given.regexp is not None:
            try:
                return conditions.Regexp(given.regexp, ignore_case=ignore)
            except ConfigurationError as error:
                raise self.wrong((*where, "regexp"), error.message) from None
        for name in ("any", "all", "slots", "any_slot", "speaks"):
            if (members_of := getattr(given, name)) is not None:
                self._not_empty(members_of, (*where, name))
        if given.any is not None:
            members = [self._condition(c, ignore, (*where, "any")) for c in given.any]
            return conditions.Any(*members)
        if given.all is not None:
            members = [self._condition(c, ignore, (*where, "all")) for c in given.all]
            return conditions.All(*members)
        if given.not_ is not None:
            return conditions.Not(self._condition(given.not_, ignore, (*where, "not")))
        if given.last_labels is not None:
            last = given.last_labels
            self._not_empty([*last.flows, *last.labels], (*where, "last_labels"))
            for name in last.flows:
                if name not in self.script.flows:
                    raise self.wrong((*where, "last_labels"), f"there is no flow {name!r}")
            labels = [self._label(one, (*where, "last_labels")) for one in last.labels]
            return conditions.LastLabels(flows=last.flows, labels=labels, n=last.n)
        if given.slots is not None:
            return conditions.SlotsExtracted(*given.slots)
        if given.speaks is not None:
            return Speaks(*given.speaks)
        if given.any_slot is not None:
            return conditions.SlotsExtracted(*given.any_slot, any=True)
        return self._function(given.call or "", (*where, "call"))


def _text(given: str) -> str | flow.Template:
    return flow.Template(given) if "{" in given else given


def _is_name(part: Any) -> bool:
    """Whether a part of a path is in the file, and not only a name of the schema."""
    return not (
        isinstance(part, str) and (part.endswith("In") or part in ("str", "function-after"))
    )


def _child(node: Any, part: Any) -> tuple[Any, Any] | None:
    """The key and the value at `part` of a YAML mapping or sequence."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return key, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None
