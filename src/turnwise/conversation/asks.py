"""Asks: what a message asks for, and the answers to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from turnwise.errors import Invalid
from turnwise.identity import bits

AskKind = Literal["question", "form", "tool"]
MAX_CHOICES = 50
"""Choices of one ask, at most."""
MAX_CHOICE = 200
"""Characters of a choice, at most."""


class Answer(NamedTuple):
    """The answer to one ask: its id, and the value that was given."""

    ask: str
    value: Any


@dataclass(slots=True)
class Asked:
    """What a message asks for.

    kind: a "question" (with `choices`, or any text), a "form", or a "tool" that the client runs;
    `name` is the tool's or the form's. `data` is JSON for the client, such as the form's fields.
    The `id` is random, so no other attempt's question can take this one's answer.
    """

    id: str
    kind: AskKind = "question"
    choices: list[str] | None = None
    name: str | None = None
    data: Any = None

    def as_dict(self) -> dict[str, Any]:
        whole = {
            "id": self.id, "kind": self.kind, "choices": self.choices, "name": self.name,
            "data": self.data,
        }  # fmt: skip
        return {key: value for key, value in whole.items() if value is not None}

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Asked:
        """The inverse of `as_dict`."""
        return cls(**found)

    def offering(self, choices: Sequence[str] | None) -> Asked:
        """This, with `choices`. Raises TypeError, ValueError for what cannot be asked."""
        if self.kind not in get_args(AskKind):
            raise ValueError(f"An ask's kind is one of {get_args(AskKind)}, not {self.kind!r}.")
        if choices is None:
            return self
        if isinstance(choices, str) or not all(isinstance(choice, str) for choice in choices):
            raise TypeError("An ask's choices are a list of texts.")
        if not 1 <= len(choices) <= MAX_CHOICES or len(set(choices)) < len(choices):
            raise ValueError(f"An ask has 1 to {MAX_CHOICES} different choices.")
        if not all(0 < len(choice.strip()) <= MAX_CHOICE for choice in choices):
            raise ValueError(f"A choice has 1 to {MAX_CHOICE} characters.")
        self.choices = list(choices)
        return self

    def check(self, value: Any) -> None:
        """Raises Invalid if `value` is not an answer to this."""
        if self.choices is not None and value not in self.choices:
            raise Invalid(f"The answer must be one of {', '.join(map(repr, self.choices))}.")
        if self.kind == "form" and not isinstance(value, dict):
            raise Invalid("The answer to a form is a JSON object.")

    def typed(self, text: str) -> str | None:
        """The choice that a typed text stands for: itself, or else its number from 1; or None."""
        text = text.strip()
        choices = self.choices or []
        for meant in (choices, [choice.casefold() for choice in choices]):
            if text in meant:
                return choices[meant.index(text)]
            text = text.casefold()
        numbers = [str(number) for number, _ in enumerate(choices, 1)]
        return choices[numbers.index(text)] if text in numbers else None


def new_ask_id() -> str:
    """96 random bits."""
    return f"ask_{bits(96):024x}"
