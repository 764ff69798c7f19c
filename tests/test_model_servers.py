"""What servers that speak like OpenAI's really send: each a row, all through the real client.

Every behaviour is reported in public of one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from conftest import serving
from turnwise import Attachment, Bot, Message, Turn, TurnError
from turnwise.conversation import Failure
from turnwise.errors import ConfigurationError
from turnwise.models import OpenAIChat
from turnwise.models.prompt import prompt_of
from turnwise.script import Node, Script, To
from turnwise.testing import talk


def chunk(**more: Any) -> str:
    return json.dumps({"id": "x", "object": "chat.completion.chunk", "created": 1, **more})


def says(text: Any, **more: Any) -> str:
    """A chunk with some text."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None, **more}
    return chunk(model="m-1", choices=[choice])


def ends(reason: Any = "stop") -> str:
    return chunk(choices=[{"index": 0, "delta": {}, "finish_reason": reason}])


def stream(*data: str, done: bool = True) -> str:
    return "".join(f"data: {one}\n\n" for one in (*data, *(["[DONE]"] if done else [])))


SSE = "text/event-stream"
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


@dataclass
class Case:
    """What a server answers, and what becomes of it: a text (and why it ended), or an error."""

    body: str | bytes = ""
    kind: str = SSE
    status: int = 200
    text: str | None = None
    ended: str | None = None
    error: tuple[str, bool] | None = None
    usage: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)


def error(status: int, body: Any, code: str, retryable: bool = False, kind: str = "") -> Case:
    text = body if isinstance(body, str) else json.dumps(body)
    return Case(text, kind or "application/json", status, error=(code, retryable))


def of(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", **more}}


HELLO = (says("Hel"), says("lo"))
CASES: dict[str, Case] = {
    # Chunks of every shape
    "plain": Case(stream(*HELLO, ends()), text="Hello"),
    "choices null": Case(
        stream(says("Hel"), chunk(choices=None), says("lo"), ends()), text="Hello"
    ),
    "no choices": Case(stream(*HELLO, chunk(usage=USAGE), ends()), text="Hello"),
    "choice without delta": Case(
        stream(says("Hel"), chunk(choices=[{"index": 0, "content_filter_results": {}}]),
               says("lo"), ends()), text="Hello",
    ),
    "delta null": Case(
        stream(*HELLO, chunk(choices=[{"index": 0, "delta": None, "finish_reason": "stop"}])),
        text="Hello",
    ),
    "choices of other things": Case(
        stream(chunk(choices=[None, "x", 1]), *HELLO, ends()), text="Hello"
    ),
    "null, lists and texts for chunks": Case(
        stream("null", "[]", '"ping"', "1", *HELLO, ends()), text="Hello"
    ),
    "a filter's report first": Case(
        stream(chunk(id="", model="", choices=[], prompt_filter_results=[{}]), *HELLO, ends()),
        text="Hello",
    ),
    "a filter's report behind the end": Case(
        stream(*HELLO, ends(), chunk(choices=[{"index": 0, "finish_reason": None}])), text="Hello"
    ),
    "the last text beside its end": Case(
        stream(says("Hel"), says("lo", finish_reason="stop")), text="Hello"
    ),
    "an empty end on every chunk": Case(
        stream(says("Hel", finish_reason=""), says("lo", finish_reason="")), text="Hello"
    ),
    "content as parts": Case(
        stream(says([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                     {"type": "text", "text": "Hello"}]), ends()), text="Hello",
    ),
    "a refusal": Case(
        stream(chunk(choices=[{"index": 0, "delta": {"content": None, "refusal": "No."}}]), ends()),
        text="No.",
    ),
    "other choices": Case(
        stream(says("Hello"), chunk(choices=[{"index": 1, "delta": {"content": "X"}}]), ends()),
        text="Hello",
    ),
    "reasoning beside": Case(
        stream(chunk(choices=[{"index": 0, "delta": {"reasoning_content": "hm"}}]), *HELLO, ends()),
        text="Hello",
    ),
    "usage without sense": Case(
        stream(*HELLO, chunk(choices=[], usage={"prompt_tokens": None, "completion_tokens": -1})),
        text="Hello",
    ),
    "usage on each chunk": Case(
        stream(chunk(choices=[], usage={"prompt_tokens": 3, "total_tokens": 4}), *HELLO, ends(),
               chunk(choices=[], model="m-1", usage=USAGE)),
        text="Hello",
        usage={"model": "m-1", "input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
    ),
    "usage is a text": Case(stream(*HELLO, chunk(choices=[], usage="12"), ends()), text="Hello"),
    # Frames of every shape
    "comments": Case(": OPENROUTER PROCESSING\n\n" + stream(*HELLO, ends()), text="Hello"),
    "a comment as data": Case(stream(": PROCESSING", *HELLO, ends()), text="Hello"),
    "bare data lines": Case(stream("", says("Hel"), "", says("lo"), ends()), text="Hello"),
    "retry, id and event lines": Case(
        "retry: 3000\n\nid: 1\n\nevent: message\n" + stream(*HELLO, ends()), text="Hello"
    ),
    "windows lines": Case(stream(*HELLO, ends()).replace("\n", "\r\n"), text="Hello"),
    "no empty lines": Case(stream(*HELLO, ends()).replace("\n\n", "\n"), text="Hello"),
    "a mark of byte order": Case("\ufeff" + stream(*HELLO, ends()), text="Hello"),
    "two documents in one event": Case(stream(says("Hel") + says("lo"), ends()), text="Hello"),
    "lower case done": Case(stream(*HELLO, ends(), "[done]", done=False), text="Hello"),
    "two ends": Case(stream(*HELLO, ends()) + stream(says("X")), text="Hello"),
    "bytes that are not UTF-8": Case(
        stream(*HELLO, ends()).encode().replace(b"lo", b"l\xff"), text="Hell\ufffd"
    ),
    "one document though a stream was asked for": Case(
        json.dumps({"model": "m-1", "usage": USAGE, "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"content": "Hello"}}]}),
        "application/json", text="Hello",
        usage={"model": "m-1", "input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
    ),
    "a document a line": Case(f"{says('Hel')}\n{says('lo')}\n{ends()}\n", "application/x-ndjson",
                              text="Hello"),
    # How it ended
    "the longest answer allowed": Case(
        stream(*HELLO, ends("length")), text="Hello", ended="length"
    ),
    "the window is full": Case(
        stream(*HELLO, ends("model_context_window_exceeded")), text="Hello", ended="length"
    ),
    "filtered in the middle": Case(
        stream(*HELLO, ends("content_filter")), text="Hello", ended="filtered"
    ),
    "a stream that just ends": Case(stream(*HELLO, done=False), text="Hello", ended="cut"),
    "done without a reason": Case(stream(*HELLO), text="Hello"),
    "a reason of its own": Case(stream(*HELLO, ends("endturn")), text="Hello"),
    "an error behind some text": Case(
        stream(*HELLO, json.dumps({"error": {"code": 502, "message": "gone"}})),
        text="Hello", ended="error",
    ),
    "an error in a choice": Case(
        stream(*HELLO, chunk(choices=[{"index": 0, "delta": {}, "error": {"code": 502},
                                       "finish_reason": "error"}])), text="Hello", ended="error",
    ),
    # No text at all
    "nothing": Case(stream(ends()), error=("model_empty", True)),
    "an empty body": Case("", error=("model_unreachable", True)),
    "filtered before a word": Case(stream(ends("content_filter")), error=("model_filtered", False)),
    "thought to the end": Case(
        stream(chunk(choices=[{"index": 0, "delta": {"reasoning": "hm"}}]), ends("length")),
        error=("model_empty", False),
    ),
    "a proxy's page": Case(
        "<html>502 Bad Gateway</html>", "text/html", error=("model_error", True)
    ),
    "no v1 in the address": error(
        200, {"error": "Unexpected endpoint or method. (POST /chat/completions)"}, "model_not_found"
    ),
    "an error in a good stream": Case(
        stream(json.dumps({"error": {"message": "Rate limit reached", "code": 429}})),
        error=("model_rate_limited", True),
    ),
    "a flat error in a good stream": Case(
        stream(json.dumps({"object": "error", "message": "boom", "code": 500})),
        error=("model_error", True),
    ),
    "an error event": Case(
        'event: error\ndata: {"code": 400, "details": "roles must alternate"}\n\n' + stream(),
        error=("model_bad_request", False),
    ),
    "an error line": Case(
        'error: {"code":400,"message":"the request exceeds the available context size"}\n\n',
        error=("model_context_length", False),
    ),
    "an error as a word": Case(stream(json.dumps({"error": "boom"})), error=("model_error", True)),
    # Errors: what they mean
    "quota": error(429, of("You exceeded your current quota, please check your plan and billing "
                           "details", code="insufficient_quota"), "model_quota"),
    "payment": error(402, of("Insufficient Balance"), "model_quota"),
    "credits": error(402, of("This request requires more credits, or fewer max_tokens."),
                     "model_quota"),
    "a limit of money that sounds like length": error(
        403 + 1, of("Prompt tokens limit exceeded: 230799 > 91442."), "model_quota"
    ),
    "rate": error(429, of("Rate limit reached for requests"), "model_rate_limited", True),
    "throttled": error(400, of("ThrottlingException: Too many tokens, please wait"),
                       "model_rate_limited", True),
    "question filtered": error(400, of("The response was filtered due to the prompt triggering "
                                       "Azure OpenAI's content management policy", type=None,
                                       code="content_filter"), "model_filtered"),
    "length, OpenAI": error(400, of("This model's maximum context length is 8192 tokens.",
                                    code="context_length_exceeded"), "model_context_length"),
    "length, vLLM": error(400, {"object": "error", "code": 400, "message":
                                "This model's maximum context length is 6048 tokens. However, you "
                                "requested 6616 tokens"}, "model_context_length"),
    "length, llama.cpp": error(400, {"error": {
        "code": 400, "type": "exceed_context_size_error", "n_ctx": 8192,
        "message": "the request exceeds the available context size"}}, "model_context_length"),
    "length, llama.cpp with 500": error(500, {"error": {
        "code": 500, "type": "server_error",
        "message": "the request exceeds the available context size"}}, "model_context_length"),
    "length, Ollama": error(400, of("input length exceeds the context length"),
                            "model_context_length"),
    "length, SGLang": error(400, {"object": "error", "message": "The input (61709 tokens) is "
                                  "longer than the model's context length"},
                            "model_context_length"),
    "length, Gemini in a list": error(400, [{"error": {"code": 400, "message": "The input token "
                                      "count (1196265) exceeds the maximum"}}],
                                      "model_context_length"),
    "length without a word": error(413, "", "model_context_length"),
    "roles": error(400, {"object": "error", "message": "Conversation roles must alternate "
                         "user/assistant"}, "model_bad_request"),
    "roles with 500": error(500, of("Jinja Exception: Conversation roles must alternate"),
                            "model_bad_request"),
    "validation with an object for a message": error(
        422, {"object": "error", "message": {"detail": [{"type": "extra_forbidden",
              "msg": "Extra inputs are not permitted"}]}}, "model_bad_request"),
    "image that cannot be fetched": error(400, of("Timeout while downloading x.jpg.",
                                                  code="invalid_image_url"), "model_attachment"),
    "image for a text model": error(500, of("image input is not supported - hint: mmproj"),
                                    "model_attachment"),
    "image with 404": error(404, of("No endpoints found that support image input"),
                            "model_attachment"),
    "loading": error(503, {"error": {"code": 503, "message": "Loading model"}},
                     "model_overloaded", True),
    "overloaded": error(529, of("Overloaded"), "model_overloaded", True),
    "key": error(401, of("Incorrect API key provided"), "model_auth"),
    "no model": error(404, of("The model `x` does not exist", code="model_not_found"),
                      "model_not_found"),
    "timeout": error(504, "upstream request timeout", "model_timeout", True, "text/plain"),
    "error as a text": error(500, {"error": "boom"}, "model_error", True),
    "a page with 502": error(502, "<html>bad gateway</html>", "model_error", True, "text/html"),
}  # fmt: skip


class Odd:
    """A server that answers each question as its case says."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.app = FastAPI()
        self.app.add_api_route("/v1/chat/completions", self.complete, methods=["POST"])
        self.answers: list[Callable[[dict[str, Any]], Response]] = []

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        if self.answers:
            return self.answers.pop(0)(body)
        case = CASES.get(body["messages"][-1]["content"], CASES["plain"])
        return Response(case.body, case.status, media_type=case.kind, headers=case.headers)


@contextlib.asynccontextmanager
async def odd() -> AsyncIterator[tuple[Odd, str]]:
    server = Odd()
    async with serving(server.app) as url:
        yield server, f"{url}/v1"


async def ask(url: str, *questions: str, **how: Any) -> list[Any]:
    """The message of each reply, or its error, in one conversation; and the bot is closed."""
    found: list[Any] = []
    how = {"max_retries": 0, "timeout": 5.0, **how}
    async with talk(Bot(OpenAIChat("m", base_url=url, **how))) as say:
        for question in questions:
            try:
                found.append(await say(question))
            except TurnError as failed:
                found.append(failed)
    return found


@pytest.mark.parametrize("name", CASES)
async def test_what_servers_send(name: str) -> None:
    """What was said is kept, why it ended is told, and an error has the code that helps; none of
    it is repeated to the person in the server's words, and the next question is answered."""
    case = CASES[name]
    async with odd() as (_, url):
        found, after = await ask(url, name, "and now?")
    if case.error is not None:
        assert isinstance(found, TurnError), found
        assert (found.code, found.retryable) == case.error
        assert "boom" not in found.message
    else:
        assert not isinstance(found, TurnError), (found.code, found.message)
        assert found.text == case.text
        assert found.messages[0].metadata.get("ended") == case.ended
        if case.usage is not None:
            assert found.usage == case.usage
    assert not isinstance(after, TurnError)
    assert after.text == "Hello"


async def test_there_are_enough_of_them() -> None:
    """The table is not for show."""
    assert len(CASES) >= 60


# What is sent


def said(role: Any, text: str, error: str | None = None, **more: Any) -> Message:
    failure = Failure(error, "no", False) if error else None
    return Message(text, role=role, error=failure, **more)


def brief(prompt: list[dict[str, Any]]) -> str:
    return " ".join(f"{m['role'][0]}:{m['content']!r}" for m in prompt)


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([("user", "a")], "u:'a'"),
        ([("assistant", "A"), ("user", "b")], "u:'b'"),
        ([("user", "a"), ("user", "b")], r"u:'a\n\nb'"),
        ([("user", "a"), ("assistant", ""), ("user", "b")], r"u:'a\n\nb'"),
        ([("user", "a"), ("assistant", " \n"), ("user", "b")], r"u:'a\n\nb'"),
        ([("user", "a"), ("assistant", "A \n"), ("user", "b")], "u:'a' a:'A' u:'b'"),
        ([("user", "a"), ("assistant", "A"), ("assistant", "B"), ("user", "c")],
         r"u:'a' a:'A\n\nB' u:'c'"),
        ([("user", "a"), ("system", "be kind"), ("user", "b")], r"s:'be kind' u:'a\n\nb'"),
        ([("user", "a"), ("tool", "x"), ("user", "b")], r"u:'a\n\nb'"),
        ([("user", "bad", "model_filtered"), ("user", "b")], "u:'b'"),
        ([("user", "bad", "model_bad_request"), ("user", "b")], "u:'b'"),
        ([("user", "a", "model_timeout"), ("user", "b")], r"u:'a\n\nb'"),
        ([("user", "a"), ("assistant", "A"), ("user", "bad", "model_attachment"), ("user", "b")],
         "u:'a' a:'A' u:'b'"),
        ([("user", "")], "u:''"),
    ],
)  # fmt: skip
def test_prompts_always_alternate(messages: list[Any], expected: str) -> None:
    """They begin with the person, hold no empty answer, and nothing that was refused before."""
    assert brief(prompt_of([said(*one) for one in messages])) == expected


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (1000, "s:'SYS' u:'aaaa' a:'BBBB' u:'cccc' a:'DDDD' u:'eeee'"),
        (16, "s:'SYS' u:'cccc' a:'DDDD' u:'eeee'"),
        (11, "s:'SYS' u:'eeee'"),
        (0, "s:'SYS' u:'eeee'"),
    ],
)
def test_prompts_are_trimmed(limit: int, expected: str) -> None:
    """By characters, or by whatever counts; the oldest go first, the question never."""
    texts = [("user", "aaaa"), ("assistant", "BBBB"), ("user", "cccc"), ("assistant", "DDDD")]
    messages = [said(*one) for one in (*texts, ("user", "eeee"))]
    assert brief(prompt_of(messages, system="SYS", max_prompt=limit)) == expected
    halves = prompt_of(
        messages, system="SYS", max_prompt=limit // 2, count=lambda text: len(text) // 2
    )
    assert halves[-1]["content"] == "eeee"


def test_what_a_model_cannot_read_is_named() -> None:
    """Attachments that cannot be sent are told to the model, so that it can say so."""
    pdf = Attachment("application/pdf", "https://x/r.pdf", name="report.pdf")
    photo = Attachment("image/png", "https://x/p.png")
    chat = Attachment("image/jpeg", "telegram:4711", name="photo")
    (sent,) = prompt_of([said("user", "look", attachments=[pdf, photo, chat])])
    kinds = [part["type"] for part in sent["content"]]
    assert kinds == ["text", "text", "image_url", "text"]
    assert "report.pdf" in sent["content"][1]["text"]
    (told,) = prompt_of([said("user", "", attachments=[photo])], images=False)
    assert "image/png" in told["content"]


async def test_a_conversation_after_failures() -> None:
    """With all defaults, failed and empty turns never break what follows, for any number of
    turns: what is sent always alternates."""
    async with odd() as (server, url):
        questions = ["nothing", "question filtered", "a stream that just ends"] * 12
        await ask(url, *questions, "last")
    for request in server.requests:
        roles = [message["role"] for message in request["messages"]]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        assert all(message["content"].strip() for message in request["messages"])


# How servers are asked


async def test_the_timeout_that_was_asked_for() -> None:
    """A silent server costs the time that was said, all tries together; so does one that keeps
    its line warm without saying anything, and one that stops in the middle."""

    async def warm() -> AsyncIterator[str]:
        for _ in range(200):
            yield ": keep-alive\n\n"
            await asyncio.sleep(0.05)

    async def stops() -> AsyncIterator[str]:
        yield stream(says("Hello"), done=False)
        await asyncio.sleep(10)

    async with odd() as (server, url):
        for silent, text in ((warm, None), (stops, "Hello")):
            server.answers = [lambda _, s=silent: StreamingResponse(s(), media_type=SSE)] * 3  # type: ignore[misc]
            began = time.monotonic()
            (found,) = await ask(url, "hi", timeout=1.0, max_retries=2)
            assert 0.9 < time.monotonic() - began < 2.5
            if text is None:
                assert (found.code, found.retryable) == ("model_timeout", True)
            else:
                assert (found.text, found.messages[0].metadata) == (text, {"ended": "cut"})


async def test_what_may_pass_is_tried_again() -> None:
    """After the pause that the server asks for; what cannot pass is asked once."""
    busy = Case(json.dumps(of("Rate limit")), "application/json", 429)

    def answer(case: Case, **headers: str) -> Callable[[Any], Response]:
        return lambda _: Response(case.body, case.status, media_type=case.kind, headers=headers)

    async with odd() as (server, url):
        server.answers = [answer(busy, **{"retry-after-ms": "300"}), answer(CASES["plain"])]
        began = time.monotonic()
        (found,) = await ask(url, "hi", max_retries=2)
        assert found.text == "Hello"
        assert time.monotonic() - began > 0.3
        assert len(server.requests) == 2
        (found,) = await ask(url, "quota", max_retries=2)
        assert found.code == "model_quota"
        assert len(server.requests) == 3
        server.answers = [answer(busy, **{"retry-after": "100"})]
        (found,) = await ask(url, "hi", max_retries=2)
        assert (found.code, len(server.requests)) == ("model_rate_limited", 4)


@pytest.mark.parametrize(
    ("refusal", "options", "gone"),
    [
        (of('json: unknown field "stream_options"'), {}, "stream_options"),
        (of("Extra inputs are not permitted: stream_options.include_usage"), {}, "stream_options"),
        (of("'max_tokens' is not supported. Use 'max_completion_tokens' instead."),
         {"max_tokens": 9}, "max_tokens"),
        (of("System role not supported"), {"system": "Be brief."}, "system"),
        (of("Only user and assistant roles are supported!"), {"system": "Be brief."}, "system"),
    ],
)  # fmt: skip
async def test_what_a_server_does_not_take_is_left_out(
    refusal: Any, options: dict[str, Any], gone: str
) -> None:
    """Once, and from then on: the next question is asked right at once."""

    async with odd() as (server, url):
        server.answers = [
            lambda _: Response(json.dumps(refusal), 400, media_type="application/json")
        ]
        first, second = await ask(url, "hi", "again", **options)
    assert (first.text, second.text) == ("Hello", "Hello")
    assert len(server.requests) == 3
    for request in server.requests[1:]:
        if gone == "system":
            assert {message["role"] for message in request["messages"]} <= {"user", "assistant"}
            assert request["messages"][0]["content"].startswith("Be brief.")
        else:
            assert gone not in request


async def test_the_bot_closes_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """When it ends, alone or as a script's response; used again, it connects again."""
    closed: list[OpenAIChat] = []
    close = OpenAIChat.aclose

    async def noted(self: OpenAIChat) -> None:
        closed.append(self)
        await close(self)

    monkeypatch.setattr(OpenAIChat, "aclose", noted)
    async with odd() as (_, url):
        chat = OpenAIChat("m", base_url=url)
        for _ in range(2):
            async with talk(Bot(chat)) as say:
                assert (await say("hi")).text == "Hello"
        flows = {"f": {"s": Node(transitions=[To("m")]), "m": Node(chat)}}
        async with talk(Bot(Script(flows, start=("f", "s")))) as say:
            assert (await say("hi")).text == "Hello"
    assert closed == [chat, chat, chat]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALL_PROXY", "socks4://user:hunter2@127.0.0.1:1"),
        ("HTTPS_PROXY", "gopher://user:hunter2@127.0.0.1:1"),
        ("HTTPS_PROXY", "::bad::"),
        ("OPENAI_API_KEY", "sk-\N{EM DASH}key"),
    ],
)
def test_an_environment_that_cannot_work(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    """A proxy or a key that no request can be sent with is an error in words, at once, without a
    password."""
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as caught:
        OpenAIChat("m", base_url="http://127.0.0.1:9/v1")
    assert "hunter2" not in caught.value.message
    assert "key" in caught.value.message or variable in caught.value.message


async def test_a_key_with_a_line_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file has it: it is sent without."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x\n")
    async with odd() as (_, url):
        (found,) = await ask(url, "hi")
    assert found.text == "Hello"


async def test_a_handler_can_mark_its_text() -> None:
    """`turn.metadata` is kept on the streamed message."""

    async def reply(turn: Turn) -> AsyncIterator[str]:
        turn.metadata["sources"] = ["a"]
        yield "text"

    async with talk(reply) as say:
        assert (await say("hi")).messages[0].metadata == {"sources": ["a"]}
