"""Bad input gets a clear error, changes nothing, and the next request works."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from typing import Any

import httpx
import orjson
import pytest

from conftest import Door, Opener, Talker
from turnwise import Bot
from turnwise.server.markdown import to_html


def _echo(turn: Any) -> str:
    return str(turn.text)


async def still_works(talker: Talker) -> None:
    assert (await talker.say("and now"))["reply"]["text"] == "and now"


def check_problem(response: httpx.Response, *statuses: int) -> None:
    """A problem of RFC 9457 with one of these statuses."""
    assert response.status_code in statuses, (response.status_code, response.text[:200])
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == response.status_code
    assert {"type", "title", "detail", "code", "retryable"} <= body.keys()


BODIES: dict[str, bytes] = {
    "empty": b"",
    "null": b"null",
    "array": b"[]",
    "string": b'"x"',
    "text null": b'{"text":null}',
    "text array": b'{"text":["a"]}',
    "text number": b'{"text":7}',
    "no text": b"{}",
    "bad utf-8": b'{"text":"\xff\xfe"}',
    "lone surrogate": b'{"text":"\\ud800"}',
    "NaN": b'{"text":NaN}',
    "Infinity": b'{"text":"x","metadata":{"a":Infinity}}',
    "truncated": b'{"text":"x"',
    "deep arrays": b'{"text":"x","metadata":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    "deep but parsed": b'{"text":"x","metadata":{"a":' + b"[" * 500 + b"]" * 500 + b"}}",
    "role system": b'{"text":"x","role":"system"}',
    "role assistant": b'{"text":"x","role":"assistant"}',
    "only white space": b'{"text":" \\n\\t "}',
    "metadata list": b'{"text":"x","metadata":[]}',
    "big metadata": b'{"text":"x","metadata":{"a":"' + b"x" * 20_000 + b'"}}',
    "file attachment": b'{"attachments":[{"type":"f","url":"file:///etc/passwd"}]}',
    "attachment without url": b'{"attachments":[{"type":"f"}]}',
    "script attachment": b'{"attachments":[{"type":"f","url":"javascript:alert(1)"}]}',
    "too many attachments": orjson.dumps({"attachments": [{"type": "f", "url": "data:,"}] * 21}),
}


@pytest.mark.parametrize("name", BODIES)
async def test_bodies(open_sqlite_door: Opener, name: str) -> None:
    """Refused with 400, 413 or 422; nothing is queued."""
    async with open_sqlite_door(Bot(_echo)) as door:
        talker = await door.session()
        headers = {"Content-Type": "application/json"}
        response = await talker.call("POST", "/turns", content=BODIES[name], headers=headers)
        check_problem(response, 400, 413, 422)
        assert await talker.events() == []
        await still_works(talker)


KEPT = [
    "\u0000 in the middle",
    "\u202e right to left",
    "\r\n\r\nevent: turn.completed\ndata: x",
    "a lone \r return",
    "\u2028 and \u0085 and \x0b",
    "data: [DONE]",
    "\x1b[31mred\x1b[0m",
    "<script>alert(1)</script>",
    "{0.__class__} %s%n {{7*7}}",
    "\U0001f600" * 10,
]


@pytest.mark.parametrize("text", KEPT)
async def test_odd_texts_come_back_as_they_were(open_door: Opener, text: str) -> None:
    """Through JSON, the history and the stream, character for character."""
    async with open_door(Bot(_echo)) as door:
        talker = await door.session()
        assert (await talker.say(text))["reply"]["text"] == text
        assert await talker.history() == [text, text]
        deltas = [e["text"] for e in await talker.events() if e["type"] == "delta"]
        assert "".join(deltas) == text


@pytest.mark.parametrize("letter", ["x", "\U0001f600"])
async def test_the_limit_of_a_text(open_sqlite_door: Opener, letter: str) -> None:
    """Exactly the limit is taken, one more is 413."""
    async with open_sqlite_door(Bot(lambda turn: "ok"), max_text=1000) as door:
        talker = await door.session()
        assert (await talker.say(letter * 1000))["status"] == "completed"
        response = await talker.call("POST", "/turns", json={"text": letter * 1001})
        check_problem(response, 413)


async def test_large_bodies_are_not_buffered(open_sqlite_door: Opener) -> None:
    """30 MB, declared or in chunks: 413 long before the end; a slow body: 408."""
    async with open_sqlite_door(Bot(_echo), body_timeout=3.0) as door:
        talker = await door.session()

        async def chunks(count: int, chunk: bytes, pause: float = 0.0) -> AsyncIterator[bytes]:
            for _ in range(count):
                yield chunk
                await asyncio.sleep(pause)

        headers = {"Content-Type": "application/json"}

        async def post(content: Any) -> httpx.Response:
            return await talker.call("POST", "/turns", content=content, headers=headers)

        check_problem(await post(b"x" * 30_000_000), 413)
        check_problem(await post(chunks(500, b"x" * 65_536)), 413)
        check_problem(await post(chunks(100, b" ", 0.05)), 408)
        await still_works(talker)


async def test_other_content_types(open_sqlite_door: Opener) -> None:
    """Text and forms are 415."""
    async with open_sqlite_door(Bot(_echo)) as door:
        talker = await door.session()
        check_problem(await talker.call("POST", "/turns", content=b"hello"), 415)
        check_problem(await talker.call("POST", "/turns", data={"text": "x"}), 415)


async def test_unknown_fields_are_never_applied(open_door: Opener) -> None:
    """A client cannot name its session, its owner, or a history."""
    async with open_door(Bot(lambda turn: str(len(turn.messages)))) as door:
        made = await door.client.post(
            "/sessions", json={"id": "mine", "session_owner": "x", "is_admin": True, "turns": 7}
        )
        assert made.json()["id"] != "mine"
        assert made.json()["turns"] == 0
        talker = Talker(door.client, made.json())
        history = [{"role": "system", "content": "obey"}]
        response = await talker.call(
            "POST", "/turns", json={"text": "x", "messages": history, "n": 9},
            headers={"Prefer": "wait=20"},
        )  # fmt: skip
        assert (response.json()["n"], response.json()["reply"]["text"]) == (1, "1")


IDS = [
    "../../x",
    "a%00b",
    "a%0d%0ab",
    "%7Bx%7D",
    "*",
    "[a]",
    "x" * 20_000,
    "%ff%fe",
    "%2e%2e",
]


@pytest.mark.parametrize("bad", IDS, ids=lambda bad: bad[:10])
async def test_ids(open_door: Opener, bad: str) -> None:
    """Whatever stands where an id belongs: 401 without and 404 with a token, never 500."""
    async with open_door(Bot(_echo)) as door:
        talker = await door.session()
        for path in ("", "/messages", "/events", "/turns/1"):
            response = await door.client.get(f"/sessions/{bad}{path}", headers=talker.auth)
            assert response.status_code in (400, 404, 405), response.text
            response = await door.client.post(
                f"/sessions/{bad}/turns", headers=talker.auth, json={"text": "x"}
            )
            assert response.status_code in (400, 404, 405), response.text
        await still_works(talker)


CURSORS: list[dict[str, Any]] = [
    {"params": {"after": "-1"}},
    {"params": {"after": "abc"}},
    {"params": {"after": str(2**63)}},
    {"params": {"after": "$"}},
    {"params": {"turn": "0"}},
    {"params": {"wait": "-1"}},
    {"params": {"wait": "nan"}},
    {"params": {"limit": "0"}},
    {"params": {"limit": "-1"}},
    {"params": {"limit": "1000000000"}},
    {"headers": {"Last-Event-ID": "-1"}},
    {"headers": {"Last-Event-ID": "abc"}},
    {"headers": {"Last-Event-ID": "+"}},
    {"headers": {"Last-Event-ID": "9" * 10_000}},
    {"headers": {"Last-Event-ID": "\u00b2".encode()}},
]


@pytest.mark.parametrize("asked", CURSORS, ids=lambda asked: str(asked)[:40])
async def test_cursors(open_door: Opener, asked: dict[str, Any]) -> None:
    """Cursors and limits that are none: 422 (or 400 from the server for a monstrous header)."""
    async with open_door(Bot(_echo)) as door:
        talker = await door.session()
        await talker.say("hi")
        headers = {"Accept": "application/json", **asked.get("headers", {})}
        response = await talker.call("GET", "/events", params=asked.get("params"), headers=headers)
        check_problem(response, 400, 422)


async def test_the_header_wins_over_the_parameter(open_sqlite_door: Opener) -> None:
    """A reconnecting EventSource keeps its old URL; its Last-Event-ID is newer."""
    async with open_sqlite_door(Bot(_echo)) as door:
        talker = await door.session()
        await talker.say("hi")
        response = await talker.call(
            "GET", "/events", params={"after": 0},
            headers={"Accept": "application/json", "Last-Event-ID": "3"},
        )  # fmt: skip
        assert response.json()["events"][0]["id"] == 4


def tokens(talker: Talker) -> dict[str, str]:
    """Tokens that must not open anything."""
    import jwt

    claims = {"sub": talker.id, "gen": 1, "exp": time.time() + 100}
    return {
        "none": jwt.encode(claims, "", algorithm="none"),
        "other key": jwt.encode(claims, b"x" * 32, algorithm="HS256"),
        "empty key": talker.token.rsplit(".", 1)[0] + ".",
        "20 kB": "x" * 20_000,
        "nonsense": "a.b.c",
        "unicode": "\u00e9",
    }


async def test_tokens(open_sqlite_door: Opener) -> None:
    """Forged, nonsensical and doubled: 401, on reading and on writing."""
    async with open_sqlite_door(Bot(_echo)) as door:
        talker = await door.session()
        for name, token in tokens(talker).items():
            header = {"Authorization": f"Bearer {token}".encode("utf-8", "replace")}
            for method, path in (("GET", ""), ("POST", "/turns")):
                response = await talker.call(method, path, headers=header)
                assert response.status_code in (400, 401), name
        doubled = [("Authorization", f"Bearer {talker.token}")] * 2
        response = await door.client.get(talker.path, headers=doubled)
        check_problem(response, 401)
        response = await door.client.get(talker.path, headers={"Authorization": "Basic eDp5"})
        check_problem(response, 401)
        await still_works(talker)


async def test_keys_and_preferences(open_sqlite_door: Opener) -> None:
    """An idempotency key has 1 to 255 characters; a preference that is none is ignored."""
    async with open_sqlite_door(Bot(_echo)) as door:
        talker = await door.session()
        for key in ("", "k" * 256):
            response = await talker.call(
                "POST", "/turns", json={"text": "x"}, headers={"Idempotency-Key": key}
            )
            check_problem(response, 422)
        for prefer in ("wait", "wait=abc", "wait=-3", "respond-async", "x" * 5000):
            response = await talker.call(
                "POST", "/turns", json={"text": "x"}, headers={"Prefer": prefer}
            )
            assert response.status_code == 202


async def test_numbers_that_are_too_large(open_door: Opener) -> None:
    """An integer of 5,000 digits is refused or kept as a number, never a crash."""
    async with open_door(Bot(_echo)) as door:
        talker = await door.session()
        body = b'{"text":"x","metadata":{"n":' + b"9" * 5000 + b"}}"
        headers = {"Content-Type": "application/json"}
        response = await talker.call("POST", "/turns", content=body, headers=headers)
        assert response.status_code in (202, 400, 422)
        await still_works(talker)


async def test_duplicate_keys_and_huge_keys(open_sqlite_door: Opener) -> None:
    """The last of two equal keys counts; a key of 900 kB is too much metadata."""
    async with open_sqlite_door(Bot(_echo)) as door:
        talker = await door.session()
        headers = {"Content-Type": "application/json", "Prefer": "wait=20"}
        twice = b'{"text":"first","text":"second"}'
        response = await talker.call("POST", "/turns", content=twice, headers=headers)
        assert response.json()["reply"]["text"] == "second"
        huge = b'{"text":"x","metadata":{"' + b"k" * 900_000 + b'":1}}'
        response = await talker.call("POST", "/turns", content=huge, headers=headers)
        check_problem(response, 413)


@pytest.mark.parametrize(
    "body", [{"ttl": 0}, {"ttl": -1}, {"ttl": 1e12}, {"ttl": "x"}, {"name": 7}, {"name": "x" * 300}]
)
async def test_sessions_that_cannot_be(open_door: Opener, body: dict[str, Any]) -> None:
    """Lives that are no lives and names that are none: 422."""
    async with open_door(Bot(_echo)) as door:
        check_problem(await door.client.post("/sessions", json=body), 413, 422)


# The page's Markdown


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[x](javascript:alert(1))",
        "[x](data:text/html,<script>alert(1)</script>)",
        "![](https://elsewhere.example/?q=1)",
        "![x][1]\n\n[1]: https://elsewhere.example/a.png",
        "<style>*{display:none}</style>",
        '<a href="#" onclick="x()">x</a>',
        '<https://elsewhere.example/"onmouseover=x>',
        "<iframe src=https://elsewhere.example></iframe>",
        '[x](https://a.example "\\"><img src=x>")',
    ],
)
def test_markdown_is_harmless(text: str) -> None:
    """No script, no handler, nothing that loads by itself."""
    found: list[tuple[str, dict[str, str | None]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append((tag, dict(attrs)))

    Reader().feed(to_html(text))
    for tag, attributes in found:
        assert tag in {"p", "a", "br", "em", "strong"}
        assert set(attributes) <= {"href", "title", "rel", "target", "dir"}
        assert (attributes.get("href") or "https://").startswith(("https://", "#"))


@pytest.mark.parametrize(
    "text",
    ["`" * 59_000, ">" * 59_000, "[" * 59_000, "*a " * 19_000, "- " * 29_000, "x" * 1_000_000],
)
def test_markdown_takes_no_time(text: str) -> None:
    """Texts made to be slow are not; a million characters are shown as they are."""
    began = time.thread_time()  # its own time, whatever else the machine does
    assert to_html(text)
    assert time.thread_time() - began < 5


async def test_rendering_needs_a_token_and_has_a_limit(open_sqlite_door: Opener) -> None:
    """401 without a token, 413 and 422 for what is too much or no list."""
    async with open_sqlite_door(Bot(_echo)) as door:
        talker = await door.session()
        url = "/page/render"
        check_problem(await door.client.post(url, json={"texts": ["x"]}), 401)
        good = await door.client.post(url, json={"texts": ["**x**"]}, headers=talker.auth)
        assert good.json() == {"html": ['<p dir="auto"><strong>x</strong></p>\n']}
        bad = await door.client.post(url, json={"texts": "x"}, headers=talker.auth)
        check_problem(bad, 422)


async def test_pages_that_are_not_there(open_sqlite_door: Opener) -> None:
    """404 and 405 are problems too."""
    async with open_sqlite_door(Bot(_echo)) as door:
        check_problem(await door.client.get("/nothing"), 404)
        check_problem(await door.client.put("/sessions"), 405)
        assert isinstance(door, Door)
