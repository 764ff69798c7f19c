"""Calls: a model's wish to have a tool run."""

from __future__ import annotations

from typing import Any, NamedTuple


class Call(NamedTuple):
    """A tool call of the model; `arguments` is the JSON that it wrote."""

    id: str
    name: str
    arguments: str

    def as_dict(self) -> dict[str, Any]:
        """As the model's server reads it."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}
