"""OpenAIChat: answers with a chat model of OpenAI's, of Azure's, or of a server that speaks alike.

It is a reply handler (`Bot(OpenAIChat(model="gpt-4o-mini"))`), or works inside one:
`async for piece in model.stream(turn): yield piece`. When the turn is cancelled the request to
the model is closed. Errors end the turn as failed, with a code that says what to do.
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
from turnwise.models.failures import FILTERED, LATE, Meaning, explained, failed
from turnwise.models.prompt import Count, prompt_of, without_system
from turnwise.models.reading import Answer, documents
from turnwise.turn import Turn
from turnwise.urls import masked

if TYPE_CHECKING:
    from openai import AsyncOpenAI

log = logging.getLogger("turnwise.models")

FIRST_PAUSE = 0.5
"""Seconds before the first repetition of a request; each further pause is twice as long."""

UNREACHABLE: Meaning = ("model_unreachable", "The language model cannot be reached.", True)
EMPTY: Meaning = ("model_empty", "The language model gave no answer.", True)
_END = object()
_NO_SYSTEM = ("system role", "only user and assistant", "does not support 'system'", "'system'")


class OpenAIChat:
    """Answers with a chat model behind an OpenAI-compatible server.

    `base_url` and `api_key` default to OPENAI_BASE_URL and OPENAI_API_KEY; a local server needs no
    key. `system` is put before the conversation, of which the last `history` messages are sent,
    and no more than `max_prompt` characters (or what `count`, for example a tokenizer, makes of a
    text). With `images=False` the model is told of images instead of being sent them.

    `timeout` is the seconds for which the model may be silent: before its first word, all tries
    included, and between two words. Errors that may pass are tried again, `max_retries` times.
    `options` go with each request (`temperature=0.2`). Raises MissingExtra without the extra:
    pip install 'turnwise[openai]'; ConfigurationError where the environment names a proxy or a key
    that cannot be used.
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
        _openai()  # first: it may be missing
        try:
            return self._connect(**self._how, max_retries=0)  # we try again ourselves
        except (ImportError, ValueError) as error:
            raise ConfigurationError(
                f"The environment's proxy cannot be used ({_proxies()}): {error}"
            ) from error

    def _connect(self, **how: Any) -> AsyncOpenAI:
        if how["api_key"] is None and not os.environ.get("OPENAI_API_KEY", "").strip():
            how["api_key"] = "none"  # servers of one's own ask for no key, the client does
        client: AsyncOpenAI = _openai().AsyncOpenAI(**how)
        return client

    async def __call__(self, turn: Turn) -> AsyncIterator[str]:
        """Answer a turn: the pieces of the model's text, its usage kept on the reply."""
        async for piece in self.stream(turn):
            yield piece

    async def stream(self, conversation: Turn | Sequence[Message]) -> AsyncIterator[str]:
        """The pieces of the model's answer to a turn or to any messages.

        Raises ModelError if nothing was said. With a turn, `turn.usage` is what the model says it
        cost, and where the text is not whole `turn.metadata["ended"]` says why: `length` (the
        longest answer allowed), `filtered`, `cut` (the connection ended) or `error`.
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
                raise failure

    def prompt(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """The messages as the model is sent them: alternating, beginning with the person, no
        longer than allowed. What the model cannot read of a message is named in it."""
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
        """Close the connections to the model. A bot that ends does this; they open again."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    # One request

    async def _pieces(
        self, prompt: list[dict[str, Any]], answer: Answer, until: float
    ) -> AsyncIterator[str]:
        """The pieces of one try. Raises ModelError."""
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
                    if piece or answer.thought > thought:  # an idle line says nothing
                        until = loop.time() + self._timeout
        except ModelError:
            raise
        except TimeoutError as error:
            raise failed(LATE) from error
        except Exception as error:  # the line broke, whatever the client makes of it
            raise _broken(error) from error

    @asynccontextmanager
    async def _response(self, prompt: list[dict[str, Any]], until: float) -> AsyncIterator[Any]:
        """The server's answer to a request. What this server does not take is left out, once and
        from then on."""
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
        """The client, made anew where it was closed or belongs to another event loop."""
        loop = asyncio.get_running_loop()
        if self._client is None or (self._loop is not None and self._loop is not loop):
            self._client = self._connected()
        self._loop = loop
        return self._client

    def _adapt(self, prompt: list[dict[str, Any]], words: str) -> bool:
        """Whether something can be left out that the server's words complain of."""
        words = words.lower()
        if "stream_options" in words and "stream_options" in self._options:
            del self._options["stream_options"]  # an older server, which cannot say what it cost
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
        """Whether a failure may pass; returns after the pause that the server asked for."""
        tried = self._max_retries - tries_left
        pause = failure.retry_after or FIRST_PAUSE * 2**tried
        left = until - asyncio.get_running_loop().time()
        if not (failure.retryable and tries_left and pause < left):
            return False
        await asyncio.sleep(pause)
        return True

    def _note_end(self, turn: Turn | None, answer: Answer, failure: ModelError | None) -> None:
        """Some text was said: it stays, with a mark where it is not whole."""
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


def _checked_key(key: str | None) -> str | None:
    """A key as it can be a header's value. Raises ConfigurationError, without the key."""
    found = key if key is not None else os.environ.get("OPENAI_API_KEY")
    if found is not None and not found.strip().isascii():
        raise ConfigurationError("The language model's key holds characters that no key has.")
    return found.strip() if found and found != found.strip() else key


def _broken(error: Exception) -> ModelError:
    slow = "timeout" in type(error).__name__.lower()
    return failed(LATE if slow else UNREACHABLE)


def _nothing_said(answer: Answer) -> ModelError | None:
    """What it means that an answer came and there is no text in it."""
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
    """An error's body; where the client could not read it, the text as it came."""
    return error.body if error.body is not None else error.response.text


def _learn_pause(failure: ModelError, headers: Any) -> None:
    """Remember how long the server asks to wait."""
    as_number: Callable[[str], float] = float
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            failure.retry_after = max(0.0, as_number(headers[name]) * unit)
            return
        except (KeyError, ValueError):  # a date: then the usual pause
            continue
