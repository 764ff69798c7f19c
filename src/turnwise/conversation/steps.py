"""Steps: what a bot does while it answers, such as a tool call or a piece of reasoning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import orjson

from turnwise.conversation.messages import Failure

StepKind = Literal["tool", "reasoning", "work"]
StepStatus = Literal["running", "completed", "failed"]
MAX_PART = 64_000
"""Bytes of a step's input, output or text; what is longer is cut, and the step `truncated`."""
INTERRUPTED = Failure("interrupted", "The turn ended before this step.")


@dataclass(slots=True)
class StepRecord:
    """A step as it is kept with its turn. `input` and `output` are JSON, `text` what it said."""

    id: str
    kind: StepKind
    name: str
    status: StepStatus
    input: Any = None
    output: Any = None
    text: str = ""
    error: Failure | None = None
    truncated: bool = False

    def as_dict(self) -> dict[str, Any]:
        """As events and turns show it, without what is empty."""
        body: dict[str, Any] = {
            "id": self.id, "kind": self.kind, "name": self.name, "status": self.status,
        }  # fmt: skip
        if self.input is not None:
            body["input"] = self.input
        if self.output is not None:
            body["output"] = self.output
        if self.text:
            body["text"] = self.text
        if self.error is not None:
            body["error"] = {"code": self.error.code, "message": self.error.message}
        if self.truncated:
            body["truncated"] = True
        return body

    def as_event(self) -> dict[str, Any]:
        """The same without its text, which came as `step.delta`."""
        shown = self.as_dict()
        shown.pop("text", None)
        return shown

    @classmethod
    def of(cls, found: dict[str, Any]) -> StepRecord:
        """The inverse of `as_dict`."""
        error = found.get("error")
        return cls(**{**found, "error": Failure(**error) if error else None})


def cut(value: Any) -> tuple[Any, bool]:
    """A JSON value, and whether it was too long and became the beginning of its JSON.

    Raises TypeError if it is not JSON.
    """
    encoded = orjson.dumps(value)
    if len(encoded) <= MAX_PART:
        return orjson.loads(encoded), False  # its own: the caller may go on changing what it gave
    if isinstance(value, str):
        encoded = value.encode()
    return encoded[:MAX_PART].decode(errors="ignore"), True
