"""Clients of language models: OpenAI, Azure OpenAI, and every server that speaks like them.

A client is a reply handler (`Bot(OpenAIChat(model="gpt-4o-mini"))`), or works inside one:
`async for piece in model.stream(turn): yield piece`. When the turn is cancelled the request to
the model is closed. Errors end the turn as failed with a code that says what to do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from turnwise.conversation import Message
from turnwise.errors import MissingExtra, ModelError
from turnwise.turn import Turn

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_CODES = {
    400: ("model_bad_request", "The language model did not accept the conversation.", False),
    401: ("model_auth", "The language model refused the server's key.", False),
    403: ("model_auth", "The language model refused the server's key.", False),
    404: ("model_not_found", "The language model was not found.", False),
    413: ("model_bad_request", "The conversation is too long for the language model.", False),
    429: ("model_rate_limited", "The language model is too busy; try again in a moment.", True),
}


class OpenAIChat:
    """Answers with a chat model behind an OpenAI-compatible server.

    `base_url` and `api_key` default to OPENAI_BASE_URL and OPENAI_API_KEY; a local server needs no
    key. `system` is put before the conversation, of which the last `history` messages are sent.
    `timeout` is seconds without a sign of the model; `options` go with each request
    (`temperature=0.2`). Needs the extra: pip install 'turnwise[openai]'.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        system: str | None = None,
        history: int | None = None,
        timeout: float = 60.0,
        max_retries: int = 2,
        **options: Any,
    ) -> None:
        self.model = model
        self._system = system
        self._history = history
        self._options = options
        self._client = self._connect(
            base_url=base_url, api_key=api_key, timeout=timeout, max_retries=max_retries
        )

    def _connect(self, **how: Any) -> AsyncOpenAI:
        openai = _openai()
        import os

        if how["api_key"] is None and "OPENAI_API_KEY" not in os.environ:
            how["api_key"] = "none"  # servers of one's own ask for no key, the client does
        client: AsyncOpenAI = openai.AsyncOpenAI(**how)
        return client

    async def __call__(self, turn: Turn) -> AsyncIterator[str]:
        """Answer a turn: the pieces of the model's text, its usage kept on the reply."""
        async for piece in self.stream(turn):
            yield piece

    async def stream(self, conversation: Turn | Sequence[Message]) -> AsyncIterator[str]:
        """The pieces of the model's answer to a turn or to any messages.

        Raises ModelError. With a turn, `turn.usage` is what the model says it cost.
        """
        turn = conversation if isinstance(conversation, Turn) else None
        messages = conversation.messages if isinstance(conversation, Turn) else conversation
        openai = _openai()
        try:
            async with await self._request(self.prompt(messages)) as chunks:
                async for chunk in chunks:
                    if chunk.usage is not None and turn is not None:
                        turn.usage = {"model": chunk.model, **_counts(chunk.usage)}
                    for choice in chunk.choices:
                        if choice.delta.content:
                            yield choice.delta.content
        except openai.OpenAIError as error:
            raise _model_error(error) from error

    async def aclose(self) -> None:
        """Close the connections to the model."""
        await self._client.close()

    def prompt(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """The messages as the model gets them: the system's first, images by reference."""
        start = 0 if self._history is None else max(0, len(messages) - self._history)
        prompt = [_as_prompt(message) for message in messages[start:]]
        return [{"role": "system", "content": self._system}, *prompt] if self._system else prompt

    async def _request(self, prompt: list[dict[str, Any]]) -> Any:
        openai = _openai()
        options: dict[str, Any] = {"stream_options": {"include_usage": True}, **self._options}
        create: Any = self._client.chat.completions.create
        try:
            return await create(model=self.model, messages=prompt, stream=True, **options)
        except openai.BadRequestError as error:
            if "stream_options" not in str(error) or "stream_options" not in options:
                raise
            del options["stream_options"]  # an older server, which cannot say what it cost
            return await create(model=self.model, messages=prompt, stream=True, **options)


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


def _as_prompt(message: Message) -> dict[str, Any]:
    images = [a for a in message.attachments if a.type.startswith("image")]
    if not images or message.role != "user":
        return {"role": message.role, "content": message.text}
    parts: list[dict[str, Any]] = [{"type": "text", "text": message.text}] if message.text else []
    parts += [{"type": "image_url", "image_url": {"url": image.url}} for image in images]
    return {"role": message.role, "content": parts}


def _counts(usage: Any) -> dict[str, int]:
    return {
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


def _model_error(error: Exception) -> ModelError:
    """What a person can read, and a code for programs; the server's own words stay in the log."""
    openai = _openai()
    if isinstance(error, openai.APITimeoutError):
        return ModelError("The language model took too long.", code="model_timeout", retryable=True)
    if isinstance(error, openai.APIConnectionError):
        return ModelError(
            "The language model cannot be reached.", code="model_unreachable", retryable=True
        )
    if getattr(error, "code", None) == "context_length_exceeded":
        return ModelError(
            "The conversation is too long for the language model.", code="model_context_length"
        )
    status = getattr(error, "status_code", None)
    code, message, retryable = _CODES.get(
        status or 0, ("model_error", "The language model ran into an error.", True)
    )
    return ModelError(message, code=code, retryable=retryable)
