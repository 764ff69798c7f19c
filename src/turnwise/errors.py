"""Every error Turnwise raises: whose fault it is, whether to try again, and its HTTP status.

    TurnwiseError
    ├── Rejected                  the caller's request cannot be carried out
    │   ├── Invalid               400/422: the request is not valid
    │   │   ├── KeyReused         422: an idempotency key was reused with another body
    │   │   └── TooLarge          413: over a size limit
    │   ├── Unauthorized          401: the token is missing, wrong or expired
    │   ├── Forbidden             403: this caller may not do that
    │   ├── NotFound              404: no such session or turn (or one of another owner)
    │   ├── AskClosed             409: what is answered does not wait for an answer
    │   ├── Superseded            409: the turn was taken back, or cannot be
    │   ├── MovedOn               409: other turns came behind the one that is continued
    │   ├── TooFarBack            409: the session's state before this turn was removed
    │   ├── NotQueued             409: the turn no longer waits
    │   ├── Busy                  409: an earlier message is still being answered
    │   ├── NoFileStore           501: the server keeps no files
    │   ├── OwnerSet              409: the session has an owner, which never changes
    │   ├── QueueFull             429: the session's mailbox is full
    │   └── RateLimited           429: too many requests
    ├── StoreUnavailable          503: the store cannot be reached; nothing was acknowledged
    │   └── PerhapsKept           503: it is unknown whether the store has stored the message
    ├── StreamEnded               503: a stream of events ended before its turn
    ├── ReplyTimeout              504: the reply was not ready in time; the turn continues
    ├── Damaged                   500: the stored data cannot be read
    ├── ClaimLost                 a worker wrote without holding the claim; nothing was changed
    ├── TurnError                 502: ends a turn as failed, with a code for programs
    │   ├── Refusal               422: the bot declines; the user sees its text
    │   ├── MemoryFull            the session's memory cannot hold more
    │   ├── BadOutput             a model's answer does not have the shape that was asked for
    │   └── ModelError            a language model could not answer
    ├── ConfigurationError        a setting or a store URL is wrong
    └── MissingExtra              an optional dependency is not installed

The message of an error defaults to its class's docstring.
"""

from __future__ import annotations

from typing import ClassVar


class TurnwiseError(Exception):
    """Something went wrong in Turnwise."""

    code: str = "error"
    status: ClassVar[int] = 500
    retryable: bool = False

    def __init__(self, message: str | None = None) -> None:
        self.message = message or " ".join((type(self).__doc__ or "").split("\n\n")[0].split())
        super().__init__(self.message)


class Rejected(TurnwiseError):
    """The request cannot be carried out."""

    code = "rejected"
    status = 400


class Invalid(Rejected):
    """The request is not valid."""

    code = "invalid"
    status = 422


class KeyReused(Invalid):
    """This idempotency key was used before with another message."""

    code = "key_reused"


class TooLarge(Invalid):
    """The request is larger than allowed."""

    code = "too_large"
    status = 413


class Unauthorized(Rejected):
    """A valid token for this session is needed."""

    code = "unauthorized"
    status = 401


class Forbidden(Rejected):
    """This is not allowed."""

    code = "forbidden"
    status = 403


class NotFound(Rejected):
    """The session or the turn does not exist."""

    code = "not_found"
    status = 404


class AskClosed(Rejected):
    """This question does not wait for an answer: it was answered, or a later message closed it."""

    code = "ask_closed"
    status = 409


class Superseded(Rejected):
    """This turn cannot be taken back: it was taken back before, it waits, or it does not exist."""

    code = "superseded"
    status = 409


class MovedOn(Rejected):
    """Other turns have come behind the one that was to be continued."""

    code = "moved_on"
    status = 409


class TooFarBack(Rejected):
    """The session's state before this turn was removed, so nothing was changed."""

    code = "too_far_back"
    status = 409


class NotQueued(Rejected):
    """This turn no longer waits: its message cannot be changed."""

    code = "not_queued"
    status = 409


class Busy(Rejected):
    """An earlier message is still being answered."""

    code = "busy"
    status = 409
    retryable = True


class NoFileStore(Rejected):
    """This server keeps no files: set TURNWISE_FILES."""

    code = "no_file_store"
    status = 501


class OwnerSet(Rejected):
    """The session has an owner, and that never changes."""

    code = "owner_set"
    status = 409


class QueueFull(Rejected):
    """Too many messages are waiting in this session; try again when some are answered."""

    code = "queue_full"
    status = 429
    retryable = True

    def __init__(self, message: str | None = None, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimited(Rejected):
    """Too many requests; try again later."""

    code = "rate_limited"
    status = 429
    retryable = True

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StoreUnavailable(TurnwiseError):
    """The store cannot be reached; nothing was acknowledged. Try again."""

    code = "store_unavailable"
    status = 503
    retryable = True
    retry_after = 1.0
    perhaps_done = False
    """Whether the store may have carried out the request: its answer was lost."""


class PerhapsKept(StoreUnavailable):
    """The store did not answer in time: the message may have been stored. Repeat it only with the
    same Idempotency-Key, or check the session's messages first."""

    code = "perhaps_kept"
    perhaps_done = True

    def __init__(self, *, retryable: bool) -> None:
        super().__init__()
        self.retryable = retryable


class StreamEnded(TurnwiseError):
    """The stream ended before the turn. The turn continues: follow it again."""

    code = "stream_ended"
    status = 503
    retryable = True
    retry_after = 1.0


class ReplyTimeout(TurnwiseError, TimeoutError):
    """The reply was not ready in time; the turn continues."""

    code = "reply_timeout"
    status = 504
    retryable = True


class Damaged(TurnwiseError):
    """The stored data is damaged and cannot be read."""

    code = "damaged"


class ClaimLost(TurnwiseError):
    """The claim on this session is no longer held; nothing was changed."""

    code = "claim_lost"
    status = 409


class TurnError(TurnwiseError):
    """The turn failed.

    When a handler or a service raises it, the turn ends as failed with this `code`, this message
    (users see it) and this `retryable`: whether another attempt may help.
    """

    code = "failed"
    status = 502

    def __init__(
        self, message: str | None = None, *, code: str | None = None, retryable: bool | None = None
    ) -> None:
        # The message may be any object, such as an exception: convert it to valid text.
        text = None if message is None else str(message).encode("utf-8", "replace").decode()
        super().__init__(text)
        self.code = str(code or type(self).code)
        self.retryable = type(self).retryable if retryable is None else bool(retryable)


class Refusal(TurnError):
    """The bot declines to answer."""

    code = "refused"
    status = 422


class BadOutput(TurnError):
    """The handler's reply, event or state cannot be stored."""

    code = "bad_reply"


class MemoryFull(TurnError):
    """The session's memory cannot hold more."""

    code = "memory_full"


class ModelError(TurnError):
    """The language model could not answer."""

    code = "model_error"
    retry_after: float | None = None
    """Seconds that the model's server asks the client to wait, if it states them."""


def turn_error(code: str, message: str, retryable: bool) -> TurnError:
    """The error of a failed turn, as its handler raised it."""
    kind = Refusal if code == Refusal.code else TurnError
    return kind(message, code=code, retryable=retryable)


class ConfigurationError(TurnwiseError):
    """A setting is wrong."""

    code = "configuration"


class MissingExtra(TurnwiseError, ImportError):
    """An optional dependency is not installed."""

    code = "missing_extra"

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an extra: pip install 'turnwise[{extra}]'")
