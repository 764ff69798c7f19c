"""Conditions: what must hold for a transition to be taken.

A built-in condition is evaluated with `check(context)`, at once and without waiting. Any function
`(context) -> bool`, also a coroutine function, is a condition too; the engine requests its result
from its driver. `Any`, `All` and `Not` combine conditions of both kinds.
"""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any as Anything

from turnwise.conversation import Message
from turnwise.errors import ConfigurationError
from turnwise.script.context import Context, Label
from turnwise.script.patterns import Pattern


class Condition(ABC):
    """A condition that needs nothing but the context."""

    @abstractmethod
    def check(self, context: Context) -> bool:
        """Whether it holds."""


class Always(Condition):
    """Always holds: the default condition of a transition."""

    def check(self, context: Context) -> bool:
        return True


class Exact(Condition):
    """The message is this text; or, given a Message, agrees in the fields that are set. With
    `ignore_case` spaces around and between the words, and how letters are composed, do not count.
    """

    def __init__(self, message: str | Message, *, ignore_case: bool = False) -> None:
        self.message = message
        self._ignore_case = ignore_case

    def check(self, context: Context) -> bool:
        if isinstance(self.message, str):
            return self._same(context.text, self.message)
        wanted, said = self.message, context.request
        return (
            (not wanted.text or self._same(said.text, wanted.text))
            and (not wanted.attachments or said.attachments == wanted.attachments)
            and (not wanted.metadata or said.metadata == wanted.metadata)
        )

    def _same(self, said: str, wanted: str) -> bool:
        return _alike(said) == _alike(wanted) if self._ignore_case else said == wanted


def _alike(text: str) -> str:
    """What a person sees: neither case, nor kinds of spaces, nor how a letter is composed."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


class Has(Condition):
    """The message contains this text."""

    def __init__(self, text: str, *, ignore_case: bool = False) -> None:
        self.text = text
        self._ignore_case = ignore_case

    def check(self, context: Context) -> bool:
        if self._ignore_case:
            return self.text.casefold() in context.text.casefold()
        return self.text in context.text


class Regexp(Condition):
    """The pattern matches somewhere in the message; never in a message without text."""

    def __init__(self, pattern: str, *, ignore_case: bool = False) -> None:
        self.pattern = Pattern(pattern, ignore_case=ignore_case)

    def check(self, context: Context) -> bool:
        text = context.text
        return bool(text) and self.pattern.search(text) is not None


class LastLabels(Condition):
    """One of the last `n` nodes visited (the current one is the last) is among these."""

    def __init__(
        self,
        *,
        flows: Iterable[str] = (),
        labels: Iterable[tuple[str, str]] = (),
        n: int = 1,
    ) -> None:
        self.flows = frozenset(flows)
        self.labels = frozenset(Label(*label) for label in labels)
        self.n = n

    def check(self, context: Context) -> bool:
        looked = context.past[-self.n :] if self.n > 0 else ()
        return any(label in self.labels or label.flow in self.flows for label in looked)


class SlotsExtracted(Condition):
    """These slots are filled: all of them, or with `any` at least one."""

    def __init__(self, *names: str, any: bool = False) -> None:
        if not names:
            raise ConfigurationError("SlotsExtracted must name slots.")
        self.names = names
        self._any = any

    def check(self, context: Context) -> bool:
        found = (context.slot(name) is not None for name in self.names)
        return next((True for one in found if one), False) if self._any else all(found)


Asked = Condition | Callable[[Context], Anything]


class Composite:
    """A condition that combines others."""

    def __init__(self, *members: Asked) -> None:
        self.members = members


class Any(Composite):
    """One of the members holds; one that raises does not."""


class All(Composite):
    """All members hold; one that raises does not."""


class Not(Composite):
    """The member does not hold; one that raises does not."""

    def __init__(self, member: Asked | Composite) -> None:
        super().__init__(member)  # type: ignore[arg-type]
