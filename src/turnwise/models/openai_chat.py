"""OpenAIChat: answers with a chat model of OpenAI, of Azure, or of a compatible server.

It is a reply handler (`Bot(OpenAIChat(model="gpt-4o-mini"))`), or works inside one:
`async for piece in model.stream(turn): yield piece`. When the turn is cancelled the request to
the model is closed. Errors end the turn as failed, with a code that identifies the cause.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from turnwise.conversation import Message
from turnwise.errors import ConfigurationError, MissingExtra, ModelError
from turnwise.limits import check_counts, check_positive
from turnwise.models.failures import FILTERED, LATE, Meaning, explained, failed
from turnwise.models.prompt import Count, prompt_of, without_system
from turnwise.models.reading import Answer, documents
from turnwise.turn import Turn
from turnwise.urls import masked

if TYPE_CHECKING:
    from openai import AsyncOpenAI

log = logging.getLogger("turnwise.models")

FIRST_PAUSE = 0.5
"""Seconds before the first retry of a request; each further pause is twice as long."""

UNREACHABLE: Meaning = ("model_unreachable", "The language model cannot be reached.", True)
EMPTY: Meaning = ("model_empty", "The language model gave no answer.", True)
_END = object()
_NO_SYSTEM = ("system role", "only user and assistant", "does not support 'system'", "'system'")


class OpenAIChat:
    """Answers with a chat model behind an OpenAI-compatible server.

    `base_url` and `api_key` default to OPENAI_BASE_URL and OPENAI_API_KEY; a local server needs no
    key. `system` precedes the conversation, of which the last `history` messages are sent, limited
    to `max_prompt` characters (or units of `count`, for example a tokenizer). With `images=False`
    the model gets a note about each image instead of the image.

    `timeout`: seconds that the model may be silent, before its first word (all attempts together)
    and between two words. Temporary errors are retried, `max_retries` times. `options` are sent
    with each request (`temperature=0.2`). Raises MissingExtra without the extra: pip install
    'turnwise[openai]'; ConfigurationError if the environment names a proxy or a key that cannot be
    used.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        system: str | None = None,
        history: int | None = None,
        max_prompt: int | None = None,
        count: Count = len,
        images: bool = True,
        timeout: float = 60.0,
        max_retries: int = 2,
        **options: Any,
    ) -> None:
        check_counts(history=history, max_prompt=max_prompt)
        check_positive(timeout=timeout)
        self.model = model
        self._system = system
        self._history = history
        self._max_prompt = max_prompt
        self._count = count
        self._images = images
        self._timeout = timeout
        self._max_retries = max_retries
        self._options: dict[str, Any] = {"stream_options": {"include_usage": True}, **options}
        self._takes_system = True
        self._how = {"base_url": base_url, "api_key": _checked_key(api_key), "timeout": timeout}
        self._client: AsyncOpenAI | None = self._connected()
        self._loop: asyncio.AbstractEventLoop | None = None

    def _connected(self) -> AsyncOpenAI:
        openai = _openai()
        try:
            return self._connect(**self._how, max_retries=0)  # the retries are our own
        except ConfigurationError:
            raise
        except openai.OpenAIError as error:
            raise ConfigurationError(str(error)) from error
        except Exception as error:  # whatever the HTTP client makes of a proxy's address
            raise ConfigurationError(
                f"The environment's proxy cannot be used ({_proxies()}): {error}"
            ) from error

    def _connect(self, **how: Any) -> AsyncOpenAI:
        _check_address(how["base_url"], how["api_key"])
        if how["api_key"] is None and not os.environ.get("OPENAI_API_KEY", "").strip():
            how["api_key"] = "none"  # local servers need no key, but the client does
        client: AsyncOpenAI = _openai().AsyncOpenAI(**how)
        return client

    async def __call__(self, turn: Turn) -> AsyncIterator[str]:
        """Answer a turn: yields the pieces of the model's text; the reply stores its usage."""
        async for piece in self.stream(turn):
            yield piece

    async def stream(self, conversation: Turn | Sequence[Message]) -> AsyncIterator[str]:
        """The pieces of the model's answer to a turn or to any messages.

        Raises ModelError if there was no text. With a turn, `turn.usage` is the usage that the
        model reports, and if the text is incomplete `turn.metadata["ended"]` is the reason:
        `length` (the maximum length), `filtered`, `cut` (the connection ended) or `error`.
        """
        turn = conversation if isinstance(conversation, Turn) else None
        messages = conversation.messages if isinstance(conversation, Turn) else conversation
        until = asyncio.get_running_loop().time() + self._timeout
        for tries_left in range(self._max_retries, -1, -1):
            answer, failure = Answer(), None
            try:
                async for piece in self._pieces(self.prompt(messages), answer, until):
                    yield piece
                failure = _nothing_said(answer)
            except ModelError as error:
                failure = error
            if turn is not None and answer.usage is not None:
                turn.usage = {"model": answer.model or self.model, **answer.usage}
            if answer.said:
                self._note_end(turn, answer, failure)
                return
            assert failure is not None
            if not await self._may_try_again(failure, tries_left, until):
                where = masked(str(self._here().base_url))
                log.warning("the model %s at %s: %s", self.model, where, failure.code)
                raise failure

    def prompt(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """The messages as sent to the model: alternating, beginning with the user, within the
        length limit. An attachment that the model cannot read is named in the text."""
        start = 0 if self._history is None else max(0, len(messages) - self._history)
        prompt = prompt_of(
            messages[start:],
            system=self._system,
            max_prompt=self._max_prompt,
            count=self._count,
            images=self._images,
        )
        return prompt if self._takes_system else without_system(prompt)

    async def aclose(self) -> None:
        """Close the connections to the model. A bot does this at its end; they can reopen."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    # One request

    async def _pieces(
        self, prompt: list[dict[str, Any]], answer: Answer, until: float
    ) -> AsyncIterator[str]:
        """The pieces of one attempt. Raises ModelError."""
        loop = asyncio.get_running_loop()
        try:
            async with self._response(prompt, until) as response:
                found = documents(response.iter_lines())
                while not answer.done:
                    async with asyncio.timeout_at(until):
                        document = await anext(found, _END)
                    if document is _END:
                        return
                    thought = answer.thought
                    if piece := answer.hear(document):
                        yield piece
                    if piece or answer.thought > thought:  # keep-alive lines do not count
                        until = loop.time() + self._timeout
        except ModelError:
            raise
        except TimeoutError as error:
            raise failed(LATE) from error
        except Exception as error:  # the connection broke, whatever the client raises
            raise _broken(error) from error

    @asynccontextmanager
    async def _response(self, prompt: list[dict[str, Any]], until: float) -> AsyncIterator[Any]:
        """The server's answer to a request. Parameters that this server does not accept are
        omitted, now and in later requests."""
        openai = _openai()
        for _ in range(4):
            create: Any = self._here().chat.completions.with_streaming_response.create
            opening = create(model=self.model, messages=prompt, stream=True, **self._options)
            try:
                async with asyncio.timeout_at(until):
                    response = await opening.__aenter__()
            except openai.APIStatusError as error:
                refused = explained(error.status_code, _body(error))
                if self._adapt(prompt, str(refused.__cause__)):
                    prompt = prompt if self._takes_system else without_system(prompt)
                    continue
                _learn_pause(refused, error.response.headers)
                raise refused from refused.__cause__
            try:
                yield response
            finally:
                await opening.__aexit__(None, None, None)
            return
        raise failed(UNREACHABLE)

    def _here(self) -> AsyncOpenAI:
        """The client, created again if it was closed or belongs to another event loop."""
        loop = asyncio.get_running_loop()
        if self._client is None or (self._loop is not None and self._loop is not loop):
            self._client = self._connected()
        self._loop = loop
        return self._client

    def _adapt(self, prompt: list[dict[str, Any]], words: str) -> bool:
        """Whether a parameter that the server rejects can be omitted."""
        words = words.lower()
        if "stream_options" in words and "stream_options" in self._options:
            del self._options["stream_options"]  # an older server, which cannot report usage
        elif "max_completion_tokens" in words and "max_tokens" in self._options:
            self._options["max_completion_tokens"] = self._options.pop("max_tokens")
        elif (
            self._takes_system
            and prompt[0]["role"] == "system"
            and any(known in words for known in _NO_SYSTEM)
        ):
            self._takes_system = False
        else:
            return False
        return True

    # How it ended

    async def _may_try_again(self, failure: ModelError, tries_left: int, until: float) -> bool:
        """Whether to retry after a failure; returns after the pause that the server requested."""
        tried = self._max_retries - tries_left
        pause = failure.retry_after or FIRST_PAUSE * 2**tried
        left = until - asyncio.get_running_loop().time()
        if not (failure.retryable and tries_left and pause < left):
            return False
        await asyncio.sleep(pause)
        return True

    def _note_end(self, turn: Turn | None, answer: Answer, failure: ModelError | None) -> None:
        """Some text was sent: keep it, and mark it if it is incomplete."""
        if answer.trouble is not None:
            failure = explained(None, answer.trouble)
        ended = "error" if answer.trouble is not None else "cut" if failure else answer.ended
        if ended is None:
            return
        log.warning(
            "%s: the answer ended early: %s", self.model, failure.code if failure else ended
        )
        if turn is not None:
            turn.metadata["ended"] = ended


class AzureOpenAIChat(OpenAIChat):
    """The same with a deployment on Azure.

    `model` is the deployment's name; `endpoint` and `api_version` default to
    AZURE_OPENAI_ENDPOINT and OPENAI_API_VERSION, the key to AZURE_OPENAI_API_KEY.
    """

    def __init__(
        self,
        model: str,
        *,
        endpoint: str | None = None,
        api_version: str | None = None,
        **more: Any,
    ) -> None:
        self._azure = {"azure_endpoint": endpoint, "api_version": api_version}
        super().__init__(model, **more)

    def _connect(self, **how: Any) -> AsyncOpenAI:
        azure = {key: value for key, value in self._azure.items() if value is not None}
        how = {key: value for key, value in how.items() if value is not None}
        client: AsyncOpenAI = _openai().AsyncAzureOpenAI(**azure, **how)
        return client


def _openai() -> Any:
    try:
        import openai
    except ImportError:
        raise MissingExtra("OpenAIChat", "openai") from None
    return openai


def _proxies() -> str:
    """The environment's variables that name proxies, without passwords."""
    found = {name: value for name, value in os.environ.items() if name.upper().endswith("_PROXY")}
    return ", ".join(f"{name}={masked(value)}" for name, value in sorted(found.items()) if value)


def _check_address(url: str | None, key: str | None) -> None:
    """Raises ConfigurationError for an address that is not one, and for OpenAI's without a key."""
    url = url or os.environ.get("OPENAI_BASE_URL")
    if url and not url.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"base_url must begin with http:// or https://, not {masked(url)!r}."
        )
    if not url and not (key or os.environ.get("OPENAI_API_KEY", "").strip()):
        raise ConfigurationError(
            "OpenAI needs a key: set OPENAI_API_KEY, or OPENAI_BASE_URL for another server."
        )


def _checked_key(key: str | None) -> str | None:
    """A key that is valid as a header's value. The ConfigurationError omits the key."""
    found = key if key is not None else os.environ.get("OPENAI_API_KEY")
    if found is not None and not found.strip().isascii():
        raise ConfigurationError("The language model's key contains characters that no key has.")
    return found.strip() if found and found != found.strip() else key


def _broken(error: Exception) -> ModelError:
    slow = "timeout" in type(error).__name__.lower()
    return failed(LATE if slow else UNREACHABLE)


def _nothing_said(answer: Answer) -> ModelError | None:
    """The meaning of an answer without text."""
    if answer.said:
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


def _body(error: Any) -> Any:
    """An error's body; if the client could not parse it, the raw text."""
    return error.body if error.body is not None else error.response.text


def _learn_pause(failure: ModelError, headers: Any) -> None:
    """Store how long the server asks the client to wait."""
    as_number: Callable[[str], float] = float
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            failure.retry_after = max(0.0, as_number(headers[name]) * unit)
            return
        except (KeyError, ValueError):  # a date: then the usual pause
            continue
