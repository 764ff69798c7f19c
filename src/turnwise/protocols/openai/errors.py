"""Errors as OpenAI's clients read them. They repeat a request by themselves after 408, 409, 429 and
5xx, unless `x-should-retry` forbids it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import Response

from turnwise.channels.bodies import JSON
from turnwise.channels.problems import as_problem

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def as_error(error: Exception) -> Response:
    """The answer to a request that raised this."""
    problem = as_problem(error)
    found = orjson.loads(problem.body)
    again = found["retryable"] and problem.status_code != 500
    headers = {"x-should-retry": "true" if again else "false"}
    wait = getattr(error, "retry_after", None)
    if wait:
        headers["Retry-After"] = str(math.ceil(wait))
    body = shaped(found["detail"], found["code"], problem.status_code)
    return JSON(orjson.dumps(body), problem.status_code, **headers)


def shaped(message: str, code: str, status: int) -> dict[str, Any]:
    """An error's body."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def of_turn(error: Mapping[str, Any] | None) -> dict[str, Any]:
    """The body for a turn that failed, or was stopped (None)."""
    if error is None:
        return shaped("The turn was cancelled.", "cancelled", 422)
    return shaped(error["message"], error["code"], 500)
