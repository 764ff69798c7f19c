"""Structured: an answer in the form of a pydantic model."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError

from turnwise.errors import ModelError


def response_format(output: type[BaseModel]) -> dict[str, Any]:
    """How the form is asked for."""
    schema = {"name": output.__name__, "schema": output.model_json_schema()}
    return {"type": "json_schema", "json_schema": schema}


def parsed_output(output: type[BaseModel], text: str) -> tuple[dict[str, Any], str]:
    """The answer as JSON of that form, and its text; a model may put it into a fence of code.

    Raises ModelError (`model_output`), which says what is wrong.
    """
    text = text.strip()
    if text.startswith("```"):
        text = text.partition("\n")[2].rpartition("```")[0]
    try:
        found: dict[str, Any] = output.model_validate_json(text).model_dump(mode="json")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the answer"
        raise ModelError(
            f"The answer has not the form that was asked for: {where}: {first['msg']}.",
            code="model_output",
        ) from None
    return found, text.strip()
