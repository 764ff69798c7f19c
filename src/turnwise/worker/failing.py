"""Failing: what people see of an exception that ended a turn, and what the log says of it."""

from __future__ import annotations

import logging
import traceback
from typing import Any

from turnwise.errors import BadOutput, Refusal, TurnError, TurnwiseError

log = logging.getLogger("turnwise.worker")

FAILED = {
    "code": "handler_error",
    "message": "The bot ran into an error while answering.",
    "retryable": True,
}
TIMED_OUT = {
    "code": "timeout",
    "message": "The bot took too long to answer.",
    "retryable": True,
}


def explained(error: BaseException | None, where: tuple[str, int], debug: bool) -> dict[str, Any]:
    """The error that users see: a TurnError's message; other errors reveal no details.

    `where` are the session, as logs name it, and the turn.
    """
    if isinstance(error, TurnError):
        level = logging.INFO if isinstance(error, Refusal) else logging.WARNING
        shown = debug or isinstance(error, BadOutput)  # whose text quotes no message
        why = f": {error.__cause__ or error.message}" if shown else ""
        log.log(level, "session %s turn %d failed: %s%s", *where, error.code, why)
        body = {"code": error.code, "message": error.message}
        return {**body, "retryable": error.retryable}
    log.error("session %s turn %d: the handler failed: %s", *where, _trace(error, debug))
    return FAILED


def _trace(error: BaseException | None, debug: bool) -> str:
    """Where an exception came from. Its text may quote a message, so it is omitted unless `debug`
    is set; the texts of our own errors quote no messages."""
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    path = "".join(f"\n    {f.filename}:{f.lineno} in {f.name}" for f in frames)
    words = " (--debug, or TURNWISE_DEBUG=1, logs its message)"
    if debug or isinstance(error, TurnwiseError):
        words = f": {error}"
    return f"{type(error).__name__}{words}{path}"
