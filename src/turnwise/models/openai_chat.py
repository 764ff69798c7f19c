"""OpenAIChat: answers with a chat model of OpenAI or of a compatible server.

It is a reply handler (`Bot(OpenAIChat(model="gpt-4o-mini"))`), or works inside one:
`async for piece in model.stream(turn): yield piece`. When the turn is cancelled the request to
the model is closed. Errors end the turn as failed, with a code that identifies the cause.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Container, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from turnwise.conversation import Message
from turnwise.errors import ConfigurationError, ModelError
from turnwise.limits import check_counts, check_positive
from turnwise.models.address import check_address, checked_key, openai_package, proxies
from turnwise.models.agent import Agent
from turnwise.models.failures import (
    LATE,
    UNREACHABLE,
    body_of,
    broken,
    explained,
    failed,
    learn_pause,
    nothing_said,
)
from turnwise.models.prompt import Count, prompt_of, without_system
from turnwise.models.reading import Answer, documents
from turnwise.models.reasoning import Reasoning
from turnwise.models.structured import parsed_output, response_format
from turnwise.models.tools import Tool, tools_of
from turnwise.models.transcript import Transcript
from turnwise.models.uploads import readable
from turnwise.turn import Turn
from turnwise.urls import masked

if TYPE_CHECKING:
    from openai import AsyncOpenAI

log = logging.getLogger("turnwise.models")

FIRST_PAUSE = 0.5
"""Seconds before the first retry of a request; each further pause is twice as long."""

_END = object()
_NO_SYSTEM = ("system role", "only user and assistant", "does not support 'system'", "'system'")


async def asked(turn: Turn) -> Sequence[Message]:
    """The messages that the model answers; what woke the bot is the last one, and is not kept."""
    messages = turn.messages
    if turn.reason is not None:
        messages = [*messages[:-1], Message(turn.reason, role="user", turn=turn.n)]
    return await readable(turn, messages)


class OpenAIChat:
    """Answers with a chat model behind an OpenAI-compatible server.

    `base_url` and `api_key` default to OPENAI_BASE_URL and OPENAI_API_KEY; a local server needs no
    key. `system` precedes the conversation, of which the last `history` messages are sent, limited
    to `max_prompt` characters (or units of `count`, for example a tokenizer). With `images=False`
    the model gets a note about each image instead of the image.

    `tools` are typed functions that the model may call, sync or async; those in `approve` only
    after the person said yes. Calls are steps of the turn, several run at once; they and their
    results are kept in the session's memory. After `rounds` rounds of calls in a turn the model
    has to answer. With `output`, a pydantic model, the answer is JSON of that form, which
    `metadata["output"]` of the reply's message holds. Reasoning is a step.

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
        tools: Sequence[Callable[..., Any] | Tool] = (),
        approve: Sequence[Callable[..., Any]] = (),
        rounds: int = 8,
        output: type[BaseModel] | None = None,
        timeout: float = 60.0,
        max_retries: int = 2,
        **options: Any,
    ) -> None:
        check_counts(history=history, max_prompt=max_prompt, rounds=rounds)
        check_positive(timeout=timeout)
        self.model = model
        self._system = system
        self._history = history
        self._max_prompt = max_prompt
        self._count = count
        self._images = images
        self._tools = tools_of(tools, approve)
        self._rounds = rounds
        self._output = output
        self._timeout = timeout
        self._max_retries = max_retries
        self._options: dict[str, Any] = {"stream_options": {"include_usage": True}, **options}
        self._takes_system = True
        self._how = {"base_url": base_url, "api_key": checked_key(api_key), "timeout": timeout}
        self._client: AsyncOpenAI | None = self._connected()
        self._loop: asyncio.AbstractEventLoop | None = None

    def _connected(self) -> AsyncOpenAI:
        openai = openai_package()
        try:
            client = self._connect(**self._how, max_retries=0)  # the retries are our own
            _ = client.chat.completions  # imports modules, which would hold up the first turn
            return client
        except ConfigurationError:
            raise
        except openai.OpenAIError as error:
            raise ConfigurationError(str(error)) from error
        except Exception as error:  # whatever the HTTP client makes of a proxy's address
            raise ConfigurationError(
                f"The environment's proxy cannot be used ({proxies()}): {error}"
            ) from error

    def _connect(self, **how: Any) -> AsyncOpenAI:
        check_address(how["base_url"], how["api_key"])
        if how["api_key"] is None and not os.environ.get("OPENAI_API_KEY", "").strip():
            how["api_key"] = "none"  # local servers need no key, but the client does
        client: AsyncOpenAI = openai_package().AsyncOpenAI(**how)
        return client

    def add_tool(self, tool: Tool) -> None:
        """Let the model call one more tool, or another one of this name, from the next request
        on: such as those that an MCP server has when it is connected to."""
        self._tools[tool.name] = tool

    async def __call__(self, turn: Turn) -> AsyncIterator[str | Message]:
        """Answer a turn: yields the pieces of the model's text, and an Ask for each call that needs
        approval; the reply stores its usage."""
        if self._tools:
            async for said in Agent(self, self._tools, turn, self._rounds).answer():
                yield said
        else:
            async for piece in self.stream(turn):
                yield piece

    async def stream(self, conversation: Turn | Sequence[Message]) -> AsyncIterator[str]:
        """The pieces of the model's answer to a turn or to any messages, without tools.

        Raises ModelError if there was no text. With a turn, its usage is added to `turn.usage`,
        and if the text is incomplete `turn.metadata["ended"]` is the reason: `length` (the maximum
        length), `filtered`, `cut` (the connection ended) or `error`.
        """
        turn = conversation if isinstance(conversation, Turn) else None
        messages = await asked(conversation) if isinstance(conversation, Turn) else conversation
        async for piece in self._whole(turn, Answer(), self.prompt(messages)):
            yield piece

    async def request(
        self, turn: Turn, answer: Answer, transcript: Transcript, tools: Mapping[str, Tool]
    ) -> AsyncIterator[str]:
        """One request of an agent: the pieces of the text; `answer` holds what was received."""
        calls, asks = transcript.by_turn(), transcript.asked
        prompt = self.prompt(await asked(turn), calls=calls, asks=asks)
        # Without tools some servers refuse a prompt with calls in it, so they are forbidden.
        schemas = [tool.schema for tool in self._tools.values()]
        more = {"tools": schemas, **({} if tools else {"tool_choice": "none"})}
        async for piece in self._whole(turn, answer, prompt, more):
            yield piece

    async def _whole(
        self,
        turn: Turn | None,
        answer: Answer,
        prompt: list[dict[str, Any]],
        more: Mapping[str, Any] = MappingProxyType({}),
    ) -> AsyncIterator[str]:
        """An answer, in the form that is wanted; a wrong form is asked for once more."""
        if self._output is None:
            async for piece in self._insist(turn, answer, prompt, more):
                yield piece
            return
        wanted = {**more, "response_format": response_format(self._output)}
        for last in (False, True):
            answer.reset()
            async for _ in self._insist(turn, answer, prompt, wanted):
                pass
            if answer.calls:
                return
            try:
                found, text = parsed_output(self._output, answer.text)
                break
            except ModelError as error:
                if last:
                    raise
                wrong = {"role": "user", "content": f"{error.message} Answer again."}
                prompt = [*prompt, {"role": "assistant", "content": answer.text}, wrong]
        if turn is not None:
            turn.metadata["output"] = found
        yield text

    async def _insist(
        self,
        turn: Turn | None,
        answer: Answer,
        prompt: list[dict[str, Any]],
        more: Mapping[str, Any],
    ) -> AsyncIterator[str]:
        """The pieces of an answer; temporary errors are retried as long as nothing was said."""
        until = asyncio.get_running_loop().time() + self._timeout
        for tries_left in range(self._max_retries, -1, -1):
            answer.reset()
            failure = None
            try:
                async with Reasoning(turn, answer) as reasoning:
                    async for piece in self._pieces(prompt, answer, until, more, reasoning):
                        yield piece
                failure = nothing_said(answer)
            except ModelError as error:
                failure = error
            if turn is not None and answer.usage is not None:
                turn.add_usage({"model": answer.model or self.model, **answer.usage})
            if answer.said or (answer.calls and failure is None):
                self._note_end(turn, answer, failure)
                return
            assert failure is not None
            if not await self._may_try_again(failure, tries_left, until):
                where = masked(str(self._here().base_url))
                log.warning("the model %s at %s: %s", self.model, where, failure.code)
                raise failure

    def prompt(
        self,
        messages: Sequence[Message],
        *,
        calls: Mapping[int, Sequence[dict[str, Any]]] = MappingProxyType({}),
        asks: Container[str] = (),
    ) -> list[dict[str, Any]]:
        """The messages as sent to the model: alternating, beginning with the user, within the
        length limit. An attachment that the model cannot read is named in the text. For `calls`
        and `asks` see prompt_of."""
        start = 0 if self._history is None else max(0, len(messages) - self._history)
        prompt = prompt_of(
            messages[start:],
            system=self._system,
            max_prompt=self._max_prompt,
            count=self._count,
            images=self._images,
            calls=calls,
            asks=asks,
        )
        return prompt if self._takes_system else without_system(prompt)

    async def aclose(self) -> None:
        """Close the connections to the model. A bot does this at its end; they can reopen."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    # One request

    async def _pieces(
        self,
        prompt: list[dict[str, Any]],
        answer: Answer,
        until: float,
        more: Mapping[str, Any],
        reasoning: Reasoning,
    ) -> AsyncIterator[str]:
        """The pieces of one attempt. Raises ModelError."""
        loop = asyncio.get_running_loop()
        try:
            async with self._response(prompt, until, more) as response:
                found = documents(response.iter_lines())
                while not answer.done:
                    async with asyncio.timeout_at(until):
                        document = await anext(found, _END)
                    if document is _END:
                        break
                    known = answer.progress
                    piece = answer.hear(document)
                    await reasoning.follow()
                    if piece:
                        yield piece
                    if answer.progress != known:  # keep-alive lines do not count
                        until = loop.time() + self._timeout
                if piece := answer.rest():
                    yield piece
        except ModelError:
            raise
        except TimeoutError as error:
            raise failed(LATE) from error
        except Exception as error:  # the connection broke, whatever the client raises
            raise broken(error) from error

    @asynccontextmanager
    async def _response(
        self, prompt: list[dict[str, Any]], until: float, more: Mapping[str, Any]
    ) -> AsyncIterator[Any]:
        """The server's answer to a request. Parameters that this server does not accept are
        omitted, now and in later requests."""
        openai = openai_package()
        for _ in range(4):
            create: Any = self._here().chat.completions.with_streaming_response.create
            options = {**self._options, **more}
            opening = create(model=self.model, messages=prompt, stream=True, **options)
            try:
                async with asyncio.timeout_at(until):
                    response = await opening.__aenter__()
            except openai.APIStatusError as error:
                refused = explained(error.status_code, body_of(error))
                if self._adapt(prompt, str(refused.__cause__)):
                    prompt = prompt if self._takes_system else without_system(prompt)
                    continue
                learn_pause(refused, error.response.headers)
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
