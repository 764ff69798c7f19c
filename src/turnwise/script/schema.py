"""The schema of a script's file, as models; of which the JSON Schema for editors is made."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


def norwegian(given: Any) -> Any:
    """The tags of languages, of which YAML reads `no` as false."""
    if isinstance(given, dict):
        return {"no" if tag is False else tag: said for tag, said in given.items()}
    if isinstance(given, list):
        return ["no" if tag is False else tag for tag in given]
    return given


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _OneOf(_Strict):
    """A mapping with exactly one key."""

    @model_validator(mode="after")
    def _one(self) -> _OneOf:
        if len(self.model_fields_set) != 1:
            names = ", ".join(f.alias or n for n, f in type(self).model_fields.items())
            raise ValueError(f"exactly one of: {names}")
        return self


class LastLabelsIn(_Strict):
    flows: list[str] = []
    labels: list[str] = Field([], description="flow/node")
    n: int = 1


class ConditionIn(_OneOf):
    """When a transition is taken."""

    exact: str | None = None
    has: str | None = None
    regexp: str | None = None
    any: list[ConditionIn] | None = None
    all: list[ConditionIn] | None = None
    not_: ConditionIn | None = Field(None, alias="not")
    last_labels: LastLabelsIn | None = None
    slots: list[str] | None = Field(None, description="all of these are filled")
    any_slot: list[str] | None = Field(None, description="one of these is filled")
    speaks: list[str] | None = Field(None, description="the conversation's language is one of them")
    call: str | None = Field(None, description="a registered function")

    _norwegian = field_validator("speaks", mode="before")(norwegian)


class JumpIn(_OneOf):
    """A destination that depends on the conversation."""

    history: int | None = Field(None, description="-1 is the current node, -2 the one before")
    forward: Literal["stop", "loop"] | None = None
    backward: Literal["stop", "loop"] | None = None
    call: str | None = Field(None, description="a registered function")


class TransitionIn(_Strict):
    to: str | JumpIn = Field(
        description="node, flow/node, @current, @previous, @start, @fallback, @forward, @backward"
    )
    when: ConditionIn | None = None
    ignore_case: bool = Field(False, description="for exact, has and regexp")
    priority: float | bool | None = None


class MessageIn(_Strict):
    text: str = ""
    attachments: list[dict[str, Any]] = []
    metadata: dict[str, Any] = {}


class ResponseIn(_OneOf):
    """A response that is not a plain text."""

    choice: list[str] | None = None
    message: MessageIn | None = None
    languages: dict[str, str | ResponseIn] | None = Field(
        None, description="by the languages' tags; the first is used where none suits"
    )
    call: str | None = Field(None, description="a registered function, or a model")

    _norwegian = field_validator("languages", mode="before")(norwegian)


class BeforeIn(_OneOf):
    """A function or extraction that runs before a transition or a response."""

    extract: list[str] | None = None
    call: str | None = Field(None, description="a registered function")
    together: list[str] | None = Field(None, description="registered functions, at the same time")


class NodeIn(_Strict):
    response: str | ResponseIn | None = Field(None, description="{slot} stands for a slot's value")
    transitions: list[TransitionIn] = []
    pre_transition: dict[str, BeforeIn] = {}
    pre_response: dict[str, BeforeIn] = {}
    misc: dict[str, Any] = {}
    pass_through: bool = False


class SlotIn(_OneOf):
    """A value extracted from a text: by a pattern (its first group, if it has one), by a function,
    or a group of several slots."""

    regexp: str | None = None
    call: str | None = Field(None, description="a registered function")
    group: dict[str, SlotIn] | None = None


class ScriptIn(_Strict):
    """A script as a file."""

    start: str = Field(description="flow/node")
    fallback: str | None = Field(None, description="flow/node; default: start")
    priority: float = 1.0
    timeout: Annotated[float, Field(gt=0, description="seconds")] = 10.0
    error_reply: str | dict[str, str] | None = Field(None, description="or by languages")
    slots: dict[str, SlotIn] = {}
    flows: dict[str, dict[str, NodeIn | None]]
    global_: NodeIn | None = Field(None, alias="global")

    _norwegian = field_validator("error_reply", mode="before")(norwegian)


def schema() -> dict[str, Any]:
    """The JSON Schema of a script's file."""
    return ScriptIn.model_json_schema(by_alias=True)
