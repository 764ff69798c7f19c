"""The errors that a batcher's callers may get instead of a result."""

from __future__ import annotations

import copy

from turnwise.errors import TurnwiseError


class BatcherClosed(TurnwiseError):
    """The batcher is closed and accepts no more items."""

    code = "batcher_closed"


class BatcherFull(TurnwiseError):
    """The queue is full; try again in `retry_after` seconds, when they should be done."""

    code = "batcher_full"
    retryable = True
    retry_after = 1.0


class BatchFailed(TurnwiseError):
    """The batched function failed, or did not return a result for every item."""

    code = "batch_failed"


class BatchTimeout(BatchFailed):
    """The batched function took too long."""

    code = "batch_timeout"
    retryable = True


class ProcessDied(BatchFailed):
    """The process that computed the batch died."""

    code = "batch_process_died"
    retryable = True


class DeadlinePassed(TurnwiseError):
    """The item's deadline passed before its batch started."""

    code = "deadline_passed"
    retryable = True


class TooCostly(TurnwiseError):
    """The item alone exceeds the batch's budget."""

    code = "too_costly"


def own(error: BaseException, *, shared: bool) -> BaseException:
    """`error` as one caller's exception: `shared` ones are copied for each caller, with the
    original as the cause; an exception that a future cannot hold or would misread is wrapped."""
    if isinstance(error, TurnwiseError) or (isinstance(error, Exception) and not shared):
        if isinstance(error, StopIteration):
            return _wrapped(error)
        if not shared:
            return error
        twin = _twin(error)
        if twin is not None:
            twin.__cause__ = error
            return twin
    return _wrapped(error)


def _twin(error: BaseException) -> BaseException | None:
    try:
        twin = copy.copy(error)
    except Exception:  # some exceptions cannot be copied
        return None
    return twin if type(twin) is type(error) else None


def _wrapped(error: BaseException) -> BatchFailed:
    wrapped = BatchFailed(f"{type(error).__name__}: {error}")
    wrapped.__cause__ = error
    return wrapped
