"""Model clients against a local server that speaks like OpenAI's, through the real client."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from conftest import serving
from turnwise import Attachment, Bot, Message, TurnError
from turnwise.models import AzureOpenAIChat, OpenAIChat
from turnwise.testing import talk


class ModelServer:
    """Streams "echo: <last message>" word by word, or does what the last message says."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.left = asyncio.Event()
        self.app = FastAPI()
        for path in ("/v1/chat/completions", "/openai/deployments/{name}/chat/completions"):
            self.app.add_api_route(path, self.complete, methods=["POST"])

    async def complete(self, request: Request) -> Any:
        body = await request.json()
        self.requests.append(body)
        self.paths.append(str(request.url))
        self.headers.append(dict(request.headers))
        said = body["messages"][-1]["content"]
        if isinstance(said, str) and said.startswith("status "):
            error = {"message": "secret internals", "code": said.partition(":")[2] or None}
            return JSONResponse({"error": error}, int(said[7:10]))
        if said == "old server" and "stream_options" in body:
            return JSONResponse({"error": {"message": "unknown field stream_options"}}, 400)
        return StreamingResponse(self.stream(said, request), media_type="text/event-stream")

    async def stream(self, said: Any, request: Request) -> AsyncIterator[str]:
        try:
            if said == "hang":
                await asyncio.sleep(30)
            for word in f"echo: {said}".split(" "):
                yield self.chunk([{"index": 0, "delta": {"content": word + " "}}])
                if said == "slow":
                    await asyncio.sleep(30)
                if said == "break":
                    raise RuntimeError("connection dies")
            usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
            yield self.chunk([], usage=usage)
            yield "data: [DONE]\n\n"
        finally:
            self.left.set()

    @staticmethod
    def chunk(choices: list[dict[str, Any]], **more: Any) -> str:
        whole = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m-1"}
        return f"data: {json.dumps({**whole, 'choices': choices, **more})}\n\n"


@contextlib.asynccontextmanager
async def model_server() -> AsyncIterator[tuple[ModelServer, str]]:
    model = ModelServer()
    async with serving(model.app) as url:
        yield model, url


Keep = Callable[[OpenAIChat], OpenAIChat]


@pytest.fixture
async def keep() -> AsyncIterator[Keep]:
    """Closes the clients that a test makes."""
    kept: list[OpenAIChat] = []

    def one_more(chat: OpenAIChat) -> OpenAIChat:
        kept.append(chat)
        return chat

    yield one_more
    for chat in kept:
        await chat.aclose()


async def test_a_model_as_a_bot(keep: Keep) -> None:
    """The system's text, then the conversation; streamed; its cost kept on the reply."""
    async with model_server() as (server, url):
        chat = keep(OpenAIChat("m", base_url=f"{url}/v1", system="Be brief.", temperature=0.2))
        async with talk(Bot(chat)) as say:
            reply = await say("hello there")
            assert reply.text == "echo: hello there "
            assert reply.usage == {
                "model": "m-1", "input_tokens": 3, "output_tokens": 4, "total_tokens": 7,
            }  # fmt: skip
            await say("again")
        assert server.requests[1]["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "hello there"},
            {"role": "assistant", "content": "echo: hello there"},
            {"role": "user", "content": "again"},
        ]
        assert server.requests[0]["temperature"] == 0.2
        assert server.requests[0]["stream"] is True


async def test_a_model_inside_a_handler(keep: Keep) -> None:
    """`stream` takes a turn or any messages; `history` bounds what is sent."""
    async with model_server() as (server, url):
        chat = keep(OpenAIChat("m", base_url=f"{url}/v1", history=1))

        async def reply(turn: Any) -> AsyncIterator[str]:
            async for piece in chat.stream(turn.messages):
                yield piece.upper()

        async with talk(Bot(reply)) as say:
            assert (await say("a")).text == "ECHO: A "
            await say("b")
        assert [len(request["messages"]) for request in server.requests] == [1, 1]


async def test_images_go_by_reference(keep: Keep) -> None:
    """An image's URL is a part of the message; nothing is fetched."""
    chat = keep(OpenAIChat("m", base_url="http://nowhere.invalid/v1"))
    picture = Attachment("image/png", "https://nowhere.invalid/x.png")
    prompt = chat.prompt([Message("what is it?", role="user", attachments=[picture])])
    assert prompt == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what is it?"},
                {"type": "image_url", "image_url": {"url": "https://nowhere.invalid/x.png"}},
            ],
        }
    ]


@pytest.mark.parametrize(
    ("said", "code", "retryable"),
    [
        ("status 401", "model_auth", False),
        ("status 404", "model_not_found", False),
        ("status 429", "model_rate_limited", True),
        ("status 400", "model_bad_request", False),
        ("status 400:context_length_exceeded", "model_context_length", False),
        ("status 500", "model_error", True),
        ("hang", "model_timeout", True),
    ],
)
async def test_errors_can_be_read(keep: Keep, said: str, code: str, retryable: bool) -> None:
    """Each fault of the model is a failed turn with its code, and tells nothing internal."""
    async with model_server() as (_, url):
        chat = keep(OpenAIChat("m", base_url=f"{url}/v1", timeout=3.0, max_retries=0))
        async with talk(Bot(chat)) as say:
            with pytest.raises(TurnError) as caught:
                await say(said)
            assert (caught.value.code, caught.value.retryable) == (code, retryable)
            assert "secret" not in caught.value.message
            assert (await say("fine", session="other")).text == "echo: fine "


async def test_a_server_that_is_not_there(keep: Keep) -> None:
    """`model_unreachable`, and one may try again."""
    chat = keep(OpenAIChat("m", base_url="http://127.0.0.1:9/v1", max_retries=0))
    async with talk(Bot(chat)) as say:
        with pytest.raises(TurnError) as caught:
            await say("hi")
        assert caught.value.code == "model_unreachable"


async def test_cancelling_the_turn_closes_the_request(keep: Keep) -> None:
    """The model's server sees the client leave; the partial text is kept."""
    async with model_server() as (server, url):
        chat = keep(OpenAIChat("m", base_url=f"{url}/v1"))
        async with talk(Bot(chat)) as say:
            async for event in say.runtime.stream("s", "slow"):
                if event.type == "delta":
                    await say.runtime.gateway.cancel("s", 1)
            async with asyncio.timeout(5):
                await server.left.wait()
            last = (await say.runtime.messages("s"))[-1]
            assert (last.text, last.partial) == ("echo: ", True)


async def test_servers_that_cannot_say_what_it_costs(keep: Keep) -> None:
    """An older server that knows no stream_options is asked without."""
    async with model_server() as (server, url):
        async with talk(Bot(keep(OpenAIChat("m", base_url=f"{url}/v1")))) as say:
            assert (await say("old server")).text == "echo: old server "
        assert "stream_options" not in server.requests[-1]


async def test_azure(keep: Keep) -> None:
    """The deployment is in the path, the key in its own header."""
    async with model_server() as (server, url):
        azure = AzureOpenAIChat("gpt", endpoint=url, api_version="2024-10-21", api_key="k")
        chat = keep(azure)
        async with talk(Bot(chat)) as say:
            assert (await say("hi")).text == "echo: hi "
        assert "/openai/deployments/gpt/" in server.paths[0]
        assert "api-version=2024-10-21" in server.paths[0]
        assert server.headers[0]["api-key"] == "k"


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the line to install it."""
    import sys

    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ImportError, match=r"pip install 'turnwise\[openai\]'"):
        OpenAIChat("m")
