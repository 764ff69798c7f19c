"""Failures: maps a model server's error to a code for programs and a text for users.

Servers use different statuses and formats: if a chat template refuses a conversation, the status is
400 or 500; if a conversation is too long, 400, 413 or 422; if an account is empty, 402 or 429. So
the text is examined first, then the status. The server's text may quote users' messages; it is
logged if that is enabled, and never sent to the user.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from turnwise.errors import ModelError
from turnwise.models.reading import Answer

Meaning = tuple[str, str, bool]
"""Our code, our text for users, and whether a retry may help."""

QUOTA: Meaning = ("model_quota", "The language model's account has no credit left.", False)
BUSY: Meaning = (
    "model_rate_limited", "The language model is too busy; try again in a moment.", True,
)  # fmt: skip
FILTERED: Meaning = (
    "model_filtered", "The language model's rules do not allow an answer to this.", False,
)  # fmt: skip
TOO_LONG: Meaning = (
    "model_context_length", "The conversation is too long for the language model.", False,
)  # fmt: skip
ATTACHMENT: Meaning = (
    "model_attachment", "The language model cannot read an attachment of this message.", False,
)  # fmt: skip
NOT_READY: Meaning = (
    "model_overloaded", "The language model is not ready; try again in a moment.", True,
)  # fmt: skip
NOT_FOUND: Meaning = ("model_not_found", "The language model was not found.", False)
NOT_ACCEPTED: Meaning = (
    "model_bad_request", "The language model did not accept the conversation.", False,
)  # fmt: skip
AUTH: Meaning = ("model_auth", "The language model refused the server's key.", False)
LATE: Meaning = ("model_timeout", "The language model took too long.", True)
OTHER: Meaning = ("model_error", "The language model ran into an error.", True)

# Texts of servers, in the order in which they are searched: "too many tokens" may concern the
# rate, the account or the length, and only the other words show which.
_WORDS: tuple[tuple[Meaning, tuple[str, ...]], ...] = (
    (QUOTA, (
        "insufficient_quota", "exceeded your current quota", "billing", "credit balance",
        r"insufficient (?:balance|credits|funds)", "requires more credits", "can only afford",
        "prompt tokens limit exceeded",
    )),
    (BUSY, ("throttling", "rate.?limit", "too many requests", "tokens per min")),
    (FILTERED, (
        "content_filter", "content management policy", "responsibleaipolicy", "safety system",
        "moderation", "flagged", "prohibited_content", "data_inspection_failed",
    )),
    (TOO_LONG, (
        "context_length_exceeded", "exceed_context_size", "maximum context length",
        "context (?:size|window|length)", "max_tokens must be at least 1, got -",
        "maximum prompt length", "input token count", "prompt is too long",
        "longer than the model", "too large for model", "reduce the length",
        "tokens to keep from the initial prompt", r"must be <= \d+\. given",
        "token count exceeds", "exceeds the context",
    )),
    (ATTACHMENT, (
        "image", "multimodal", "mmproj", "vision", "downloading",
    )),
    (NOT_READY, (
        "loading model", "model is (?:currently )?loading", "overloaded", "no healthy upstream",
        "at capacity",
    )),
    (NOT_FOUND, (
        "unexpected endpoint", "model_not_found", "no such model",
        "model.{0,60}(?:does not exist|not found)",
    )),
    (NOT_ACCEPTED, (
        "roles must alternate", "unexpected role", "role not supported",
        "only user and assistant", "jinja", "chat template", "must be at the beginning",
        "no user query", "must be non-empty", "expected last role", "extra inputs",
        "unknown (?:name|field)", "unsupported (?:value|parameter)", "failed to deserialize",
        "invalid_request",
    )),
)  # fmt: skip
_STATUSES: dict[int, Meaning] = {
    400: NOT_ACCEPTED,
    401: AUTH,
    402: QUOTA,
    403: AUTH,
    404: NOT_FOUND,
    408: LATE,
    413: TOO_LONG,
    422: NOT_ACCEPTED,
    429: BUSY,
    503: NOT_READY,
    504: LATE,
    529: NOT_READY,
}
_PATTERNS = tuple((meaning, re.compile("|".join(words), re.I)) for meaning, words in _WORDS)


class ServerError(Exception):
    """A model server's own error text; it is the cause of a ModelError."""


def explained(status: int | None, body: Any) -> ModelError:
    """The meaning of an error's status and body (in any format)."""
    words = _words(body)
    if isinstance(body, dict) and status is None:
        status = _status(body)
    meaning = _STATUSES.get(status or 0, OTHER)
    if meaning is not AUTH:  # the text of a refused key may contain anything
        said = (found for found, pattern in _PATTERNS if pattern.search(words))
        meaning = next(said, meaning)
    error = failed(meaning)
    error.__cause__ = ServerError(f"{status or 'in the answer'}: {words[:500]}")
    return error


def failed(meaning: Meaning) -> ModelError:
    """The error that ends a turn with this meaning."""
    code, message, retryable = meaning
    return ModelError(message, code=code, retryable=retryable)


def _words(body: Any) -> str:
    """All texts of a body, flattened: they may be in lists, objects, or JSON within a text."""
    if isinstance(body, bytes):
        body = body.decode("utf-8", "replace")
    if isinstance(body, str):
        return body
    try:
        return json.dumps(body, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(body)


def _status(body: dict[str, Any]) -> int | None:
    for name in ("status_code", "status", "code"):
        value = body.get(name)
        if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()):
            return int(value) if 400 <= int(value) < 600 else None
    return None


UNREACHABLE: Meaning = ("model_unreachable", "The language model cannot be reached.", True)
EMPTY: Meaning = ("model_empty", "The language model gave no answer.", True)


def broken(error: Exception) -> ModelError:
    slow = "timeout" in type(error).__name__.lower()
    return failed(LATE if slow else UNREACHABLE)


def nothing_said(answer: Answer) -> ModelError | None:
    """The meaning of an answer without text."""
    if answer.said or answer.calls:
        return None
    if answer.trouble is not None:
        return explained(None, answer.trouble)
    if answer.ended == "filtered":
        return failed(FILTERED)
    if answer.ended == "length":
        why = "thought" if answer.thought else "was silent"
        return ModelError(
            f"The language model {why} until its answer was as long as it may be.",
            code="model_empty",
            retryable=False,
        )
    if answer.ended == "cut":
        return failed(UNREACHABLE)
    return failed(EMPTY)


def body_of(error: Any) -> Any:
    """An error's body; if the client could not parse it, the raw text."""
    return error.body if error.body is not None else error.response.text


def learn_pause(failure: ModelError, headers: Any) -> None:
    """Store how long the server asks the client to wait."""
    as_number: Callable[[str], float] = float
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            failure.retry_after = max(0.0, as_number(headers[name]) * unit)
            return
        except (KeyError, ValueError):  # a date: then the usual pause
            continue
