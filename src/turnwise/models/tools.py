"""Tools: typed Python functions that a language model may call."""

from __future__ import annotations

import functools
import inspect
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_type_hints

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError

from turnwise.conversation import valid_text
from turnwise.errors import ConfigurationError, TurnError
from turnwise.threads import alone
from turnwise.turn import Turn

log = logging.getLogger("turnwise.models")

MAX_RESULT = 64_000
"""Characters of a result that the model sees; what is longer is cut."""
_ARGUMENT = re.compile(r"^\s+\*{0,2}(\w+)(?:\s*\([^)]*\))?:\s*(.+)$")


class Tool:
    """A function that a model may call.

    The model receives its name, the first paragraph of its docstring, and the types of its
    parameters, which an "Args:" section describes. A parameter of type Turn receives the turn. A
    function that is not async runs in a thread. With `approve` it runs only after the person said
    yes.

    With `parameters`, a JSON Schema, `function` receives the properties of the schema as keyword
    arguments and checks them itself: use it for the tools of an MCP server. Raises
    ConfigurationError for what cannot be a tool.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        approve: bool = False,
    ) -> None:
        self.function = function
        self.approve = approve
        plain = _plain_function(function)
        self.name = str(name or getattr(plain, "__name__", "")).removesuffix("__call__")
        self.name = self.name or type(function).__name__
        if not re.fullmatch(r"[\w-]{1,64}", self.name):
            raise ConfigurationError(f"A tool needs a name of its own, not {self.name!r}.")
        self._is_async = inspect.iscoroutinefunction(plain)
        self._turn: str | None = None
        described = inspect.getdoc(plain) or ""
        self._arguments: type[BaseModel] | None = None
        if parameters is None:
            self._arguments = self._model(function, _described(described))
            parameters = self._described()
        if description is None:
            description = " ".join(described.split("\n\n")[0].split())
        self.schema = {
            "type": "function",
            "function": {
                "name": self.name,
                "description": description,
                "parameters": dict(parameters),
            },
        }

    def _model(self, function: Callable[..., Any], described: dict[str, str]) -> type[BaseModel]:
        """The arguments as a pydantic model."""
        try:
            hints = get_type_hints(_plain_function(function), include_extras=True)
        except (NameError, TypeError) as error:
            raise ConfigurationError(
                f"The types of the tool {self.name} are unknown: {error}"
            ) from None
        fields: dict[str, Any] = {}
        for name, parameter in inspect.signature(function).parameters.items():
            hint = hints.get(name, Any)
            if hint is Turn:
                self._turn = name
                continue
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise ConfigurationError(f"The tool {self.name} must name its parameters.")
            default = ... if parameter.default is parameter.empty else parameter.default
            about: dict[str, Any] = {"description": described[name]} if name in described else {}
            fields[name] = (hint, Field(default, **about))
        try:
            return create_model(self.name, __config__=ConfigDict(extra="forbid"), **fields)
        except Exception as error:  # whatever pydantic makes of a type
            raise ConfigurationError(f"The tool {self.name} cannot be described: {error}") from None

    def _described(self) -> dict[str, Any]:
        """The arguments as a JSON Schema."""
        assert self._arguments is not None
        try:
            return _plain(self._arguments.model_json_schema())
        except PydanticUserError as error:
            raise ConfigurationError(f"The tool {self.name} cannot be described: {error}") from None

    def checked(self, arguments: str) -> dict[str, Any]:
        """The arguments of a call. Raises TurnError, whose text the model can act on."""
        if self._arguments is None:
            return _object(arguments)
        try:
            found = self._arguments.model_validate_json(arguments or "{}")
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, one['loc'])) or 'arguments'}: {one['msg']}"
                for one in error.errors(include_url=False, include_input=False)
            )
            raise TurnError(f"Invalid arguments: {wrong}", code="tool_arguments") from None
        return {name: getattr(found, name) for name in type(found).model_fields}

    async def run(self, turn: Turn, arguments: dict[str, Any]) -> Any:
        """The result of a call."""
        if self._turn is not None:
            arguments = {**arguments, self._turn: turn}
        if self._is_async:
            found = await self.function(**arguments)
        else:
            found = await alone(f"turnwise-{self.name[:40]}", self._called, arguments)
        return await found if inspect.isawaitable(found) else found

    def _called(self, arguments: dict[str, Any]) -> Any:
        """Call the function; what would end the thread or the program fails the call."""
        try:
            return self.function(**arguments)
        except (StopIteration, SystemExit, KeyboardInterrupt) as error:
            raise RuntimeError(f"{type(error).__name__}: {error}") from error


def _object(arguments: str) -> dict[str, Any]:
    try:
        found = orjson.loads(arguments or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise TurnError("Invalid arguments: they must be a JSON object.", code="tool_arguments")
    return found


def tools_of(
    tools: Sequence[Callable[..., Any] | Tool], approve: Sequence[Callable[..., Any]]
) -> dict[str, Tool]:
    """Tools by their names. Raises ConfigurationError if two have one name."""
    plain = [tool for tool in tools if tool not in approve]
    made = [tool if isinstance(tool, Tool) else Tool(tool) for tool in plain]
    made += [Tool(function, approve=True) for function in approve]
    found = {tool.name: tool for tool in made}
    if len(found) < len(made):
        raise ConfigurationError("Two tools have the same name.")
    return found


def shown(result: Any) -> str:
    """A result as the model sees it."""
    text = result if isinstance(result, str) else _dumped(result).decode()
    return text if len(text) <= MAX_RESULT else f"{text[:MAX_RESULT]} [cut: {len(text):,} in all]"


def jsonable(value: Any) -> Any:
    """A value as JSON holds it."""
    return orjson.loads(_dumped(value))


def _dumped(value: Any) -> bytes:
    """Any value: what is not JSON is its text, so that no call fails behind what it has done."""
    try:
        return orjson.dumps(value, default=_plainer, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        return orjson.dumps(valid_text(str(value)))


def _plainer(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else str(value)


def _plain_function(function: Callable[..., Any]) -> Any:
    """The function that a partial or a callable object runs."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isroutine(function):
        return function
    return getattr(function, "__call__")  # noqa: B004, B009 the method itself, not whether there is one


def _described(doc: str) -> dict[str, str]:
    """The descriptions of parameters in a docstring's "Args:" section."""
    _, _, section = doc.partition("\nArgs:\n")
    found: dict[str, str] = {}
    for line in section.splitlines():
        if line.strip() and not line[:1].isspace():
            break
        if match := _ARGUMENT.match(line):
            found[match[1]] = match[2].strip()
    return found


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without the titles that pydantic adds: they cost tokens."""
    schema.pop("title", None)
    for part in schema.get("properties", {}).values():
        part.pop("title", None)
    schema.setdefault("properties", {})
    return schema
