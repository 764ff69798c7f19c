"""One table of requests: the fast path and the whole way give the same answers."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from turnwise import Bot, Runtime, Turn
from turnwise.channels.fast_path import FastPath
from turnwise.server.app import create_app
from turnwise.settings import Settings

JSON = {"content-type": "application/json"}
WAIT = {**JSON, "prefer": "wait=5"}

REQUESTS: dict[str, tuple[bytes, dict[str, str]]] = {
    "plain": (b'{"text":"hi"}', JSON),
    "waiting": (b'{"text":"hi"}', WAIT),
    "waiting in other words": (b'{"text":"hi"}', {**JSON, "prefer": 'respond-async, wait="5"'}),
    "spaces in JSON": (b' { "text" : "hi" } ', WAIT),
    "two texts": (b'{"text":"a","text":"b"}', WAIT),
    "unicode": ('{"text":"h\u00e9\u2028\U0001f600"}'.encode(), WAIT),
    "escapes": (b'{"text":"h\\u00e9\\n\\u0000"}', WAIT),
    "a lone surrogate": (b'{"text":"\\ud800"}', WAIT),
    "not UTF-8": (b'{"text":"\xff"}', WAIT),
    "metadata": (b'{"text":"hi","metadata":{"a":1}}', WAIT),
    "attachment": (b'{"text":"","attachments":[{"type":"image","url":"https://x/y"}]}', WAIT),
    "a field nobody knows": (b'{"text":"hi","more":1}', WAIT),
    "role": (b'{"text":"hi","role":"user"}', WAIT),
    "another role": (b'{"text":"hi","role":"assistant"}', WAIT),
    "empty text": (b'{"text":""}', WAIT),
    "blank text": (b'{"text":" \\n"}', WAIT),
    "long text": (b'{"text":"%b"}' % (b"x" * 1001), WAIT),
    "as long as allowed": (b'{"text":"%b"}' % (b"x" * 1000), WAIT),
    "number": (b'{"text":1}', WAIT),
    "null": (b'{"text":null}', WAIT),
    "list": (b'["text"]', WAIT),
    "text alone": (b'"text"', WAIT),
    "nothing": (b"", WAIT),
    "no JSON": (b"{text}", WAIT),
    "half JSON": (b'{"text":"hi"', WAIT),
    "too large": (b'{"text":"%b"}' % (b"x" * 20_000), WAIT),
    "no type": (b'{"text":"hi"}', {"prefer": "wait=5"}),
    "charset": (b'{"text":"hi"}', {"content-type": "application/json; charset=utf-8"}),
    "another JSON": (b'{"text":"hi"}', {"content-type": "application/vnd.x+json"}),
    "a form": (b"text=hi", {"content-type": "application/x-www-form-urlencoded"}),
    "key": (b'{"text":"hi"}', {**WAIT, "idempotency-key": "k"}),
    "odd key": (b'{"text":"hi"}', {**WAIT, "idempotency-key": "k \xe9"}),
    "empty key": (b'{"text":"hi"}', {**WAIT, "idempotency-key": ""}),
    "long key": (b'{"text":"hi"}', {**WAIT, "idempotency-key": "k" * 256}),
    "no token": (b'{"text":"hi"}', {**WAIT, "authorization": ""}),
    "another scheme": (b'{"text":"hi"}', {**WAIT, "authorization": "Basic eDp5"}),
    "lower case": (b'{"text":"hi"}', {**WAIT, "authorization": "bearer TOKEN"}),
    "spaces": (b'{"text":"hi"}', {**WAIT, "authorization": "Bearer   TOKEN "}),
    "a wrong token": (b'{"text":"hi"}', {**WAIT, "authorization": "Bearer x.y.z"}),
    "another session's token": (b'{"text":"hi"}', {**WAIT, "authorization": "Bearer OTHER"}),
    "an odd token": (b'{"text":"hi"}', {**WAIT, "authorization": "Bearer \xe9"}),
    "a failing bot": (b'{"text":"fail"}', WAIT),
    "a silent bot": (b'{"text":"nothing"}', WAIT),
}


@pytest.fixture
async def ways(tmp_path: Path) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """The application by the fast path, and by the whole way, on two stores."""

    async def reply(turn: Turn) -> str | None:
        if turn.text == "fail":
            raise ValueError
        return None if turn.text == "nothing" else f"You said {len(turn.text)}"

    clients = []
    runtimes = []
    settings = Settings(_env_file=None, max_text=1000, max_body=10_000)
    for name in ("fast", "whole"):
        runtime = Runtime(Bot(reply), f"sqlite:///{tmp_path / name}.db", settings=settings)
        await runtime.start()
        app = create_app(runtime)
        stack = app.build_middleware_stack()
        inner: Any = stack
        while not isinstance(inner, FastPath):
            inner = inner.app
        transport = httpx.ASGITransport(inner if name == "fast" else inner.app)
        runtimes.append(runtime)
        clients.append(httpx.AsyncClient(transport=transport, base_url="http://test"))
    yield clients[0], clients[1]
    for client in clients:
        await client.aclose()
    for runtime in runtimes:
        await runtime.stop()


async def answer(
    client: httpx.AsyncClient, body: bytes, headers: dict[str, str]
) -> tuple[int, dict[str, str], str]:
    """Status, headers and body, without what is new each time."""
    made = (await client.post("/sessions")).json()
    other = (await client.post("/sessions")).json()
    given = {"authorization": "Bearer TOKEN", **headers}
    given["authorization"] = (
        given["authorization"].replace("TOKEN", made["token"]).replace("OTHER", other["token"])
    )
    pairs = [
        (k.encode(), v.encode("latin-1")) for k, v in given.items() if v or k != "authorization"
    ]
    response = await client.post(f"/sessions/{made['id']}/turns", content=body, headers=pairs)
    text = response.text.replace(made["id"], "S")
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", text)
    text = re.sub(r"20\d\d-[0-9T:.-]+Z", "TIME", text)
    text = re.sub(r'"started_at":(null|"TIME")', '"started_at":X', text)
    found = {k: v.replace(made["id"], "S") for k, v in response.headers.items()}
    found.pop("content-length")
    return response.status_code, found, text


@pytest.mark.parametrize("name", REQUESTS)
async def test_both_ways_answer_the_same(
    ways: tuple[httpx.AsyncClient, httpx.AsyncClient], name: str
) -> None:
    """Status, headers and body, whatever the request."""
    fast, whole = [await answer(way, *REQUESTS[name]) for way in ways]
    assert fast == whole
    if name in ("plain", "waiting"):
        assert fast[0] == (202 if name == "plain" else 200)
        assert '"n":1' in fast[2]
