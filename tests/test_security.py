"""Who may do what, on every route there is; limits; and what must be found nowhere."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from conftest import Door, Opener, Process, Talker
from turnwise import Bot, Runtime, Turn
from turnwise.channels.rate_limit import Rate
from turnwise.errors import RateLimited, Unauthorized
from turnwise.server.app import create_app
from turnwise.tokens import Signer

KEY = {"Authorization": "Bearer the-key"}
ROUTES = {
    # a body that may be sent, and what opens the route: everybody, the key, a token, the session's
    "GET /": (None, "all"),
    "GET /docs": (None, "all"),
    "GET /page/app.css": (None, "all"),
    "GET /page/docs.css": (None, "all"),
    "GET /page/app.js": (None, "all"),
    "GET /page/api.js": (None, "all"),
    "GET /page/conversation.js": (None, "all"),
    "GET /page/asks.js": (None, "all"),
    "GET /page/growing.js": (None, "all"),
    "GET /page/tools.js": (None, "all"),
    "GET /page/uploads.js": (None, "all"),
    "GET /page/steps.js": (None, "all"),
    "GET /page/screen.js": (None, "all"),
    "GET /page/icon.svg": (None, "all"),
    "GET /page/logo": (None, "all"),
    "GET /page/brand.css": (None, "all"),
    "GET /page/list.js": (None, "all"),
    "GET /page/texts.js": (None, "all"),
    "GET /page/theme.js": (None, "all"),
    "GET /page/turnwise.js": (None, "all"),
    "GET /turnwise.js": (None, "all"),
    "GET /turnwise.d.ts": (None, "all"),
    "GET /widget.js": (None, "all"),
    "GET /embedded": (None, "all"),
    "GET /page/about": (None, "all"),
    "POST /page/render": ({"texts": ["*x*"]}, "known"),
    "GET /health/live": (None, "all"),
    "GET /health/ready": (None, "all"),
    "GET /metrics": (None, "all"),
    "POST /sessions": ({}, "owners"),
    "GET /sessions": (None, "owners"),
    "GET /sessions/{session_id}": (None, "session"),
    "PATCH /sessions/{session_id}": ({"name": "x"}, "session"),
    "POST /sessions/{session_id}/turns": ({"text": "hi"}, "session"),
    "GET /sessions/{session_id}/turns": (None, "session"),
    "GET /sessions/{session_id}/turns/{n}": (None, "session"),
    "POST /sessions/{session_id}/turns/{n}/cancel": (None, "session"),
    "POST /sessions/{session_id}/turns/{n}/again": (None, "session"),
    "PATCH /sessions/{session_id}/turns/{n}": ({"text": "other"}, "session"),
    "POST /sessions/{session_id}/stop": (None, "session"),
    "POST /sessions/{session_id}/fork": ({}, "session"),
    "PUT /sessions/{session_id}/messages/{message_id}/feedback": ({"value": "up"}, "session"),
    "POST /sessions/{session_id}/files": (b"a red square", "session"),
    "GET /sessions/{session_id}/files/{file_id}": (None, "session"),
    "POST /sessions/{session_id}/wake": ({"reason": "tea"}, "host"),
    "DELETE /sessions/{session_id}/wake/{key:path}": (None, "host"),
    "POST /sessions/{session_id}/owner": ({"owner": "ada"}, "host"),
    "GET /sessions/{session_id}/messages": (None, "session"),
    "GET /sessions/{session_id}/events": (None, "session"),
    "WS /sessions/{session_id}/ws": (None, "session"),
    "POST /sessions/{session_id}/reset": (None, "session"),
    "POST /sessions/{session_id}/token": (None, "session"),
    "DELETE /sessions/{session_id}": (None, "session"),
}
ROUTES |= {  # what is read without a key answers HEAD as well
    route.replace("GET", "HEAD"): (None, "all")
    for route, (_, who) in ROUTES.items()
    if who == "all" and route != "GET /page/about"
}
PRINCIPALS = (
    "none", "other", "expired", "refreshed", "key", "own",
    "owner",  # the key, for the owner of the session
    "stranger",  # the key, for another owner
    "login",  # the owner's login
    "foreign",  # another person's login
)  # fmt: skip
OWNERS = {"key", "owner", "stranger", "login", "foreign"}
ALLOWED = {
    "all": set(PRINCIPALS),
    "owners": OWNERS,
    "known": {"other", "refreshed", "own", *OWNERS},
    "session": {"key", "own", "owner", "login"},
    "host": {"key", "owner"},
}
HIDDEN = {"session": {"other", "stranger", "foreign"}, "host": {"other", "stranger"}}
FORBIDDEN = {"host": {"own", "login", "foreign", "refreshed"}}
LOGIN = "the secret of the login, long enough"
bot = Bot()


@bot.reply
async def _echo(turn: Turn) -> str:
    return turn.text


def test_every_route_has_a_row(tmp_path: Path) -> None:
    """A new route must say whom it lets in; those of the doors do in test_door_security.py."""
    from test_door_security import ROWS

    app = create_app(Runtime(bot, f"sqlite:///{tmp_path / 'x.db'}"))
    found = set()
    left = list(app.routes)
    while left:
        route: Any = left.pop()
        if hasattr(route, "original_router"):  # what a router brought
            left += route.original_router.routes
        elif isinstance(route, APIRoute):
            found |= {f"{method} {route.path}" for method in route.methods or ()}
        elif isinstance(route, APIWebSocketRoute):
            found.add(f"WS {route.path}")
        else:
            assert route.path == FastAPI().openapi_url, route
    assert found == set(ROUTES).union(*ROWS.values())


async def bearer_of(principal: str, talker: Talker, door: Door) -> dict[str, str]:
    """The header that this principal brings; `refreshed` refreshes the session's token away."""
    if principal in ("none", "key"):
        return KEY if principal == "key" else {}
    if principal in ("owner", "stranger"):
        return {**KEY, "X-Turnwise-Owner": "ada" if principal == "owner" else "bob"}
    if principal in ("login", "foreign"):
        claims = {"sub": "ada" if principal == "login" else "bob", "exp": time.time() + 60}
        return {"Authorization": f"Bearer {jwt.encode(claims, LOGIN, algorithm='HS256')}"}
    if principal == "other":
        made = await door.client.post("/sessions", json={}, headers=KEY)
        return {"Authorization": f"Bearer {made.json()['token']}"}
    if principal == "expired":
        claims = jwt.decode(talker.token, options={"verify_signature": False})
        secret = await door.runtime.store.secret()
        old = jwt.encode({**claims, "exp": time.time() - 1}, secret, algorithm="HS256")
        return {"Authorization": f"Bearer {old}"}
    old = talker.token
    if principal == "refreshed":
        talker.token = (await talker.call("POST", "/token")).json()["token"]
    return {"Authorization": f"Bearer {old}"}


async def knock(door: Door, route: str, talker: Talker, headers: dict[str, str]) -> int:
    """The status that the route answers with; a socket's close code, as the status it means."""
    method, path = route.split(" ")
    message = (await talker.call("GET", "/messages")).json().get("messages", [{"id": "x"}])[-1]
    form = {"file": ("a.txt", b"x", "text/plain")}
    file = (await talker.call("POST", "/files", files=form)).json().get("id", "x")
    path = path.replace(":path", "").format(
        session_id=talker.id, n=1, message_id=message["id"], key="tea", file_id=file
    )
    if method == "WS":
        url = door.url.replace("http", "ws") + path
        async with connect(url, additional_headers=headers, proxy=None) as socket:
            if not headers:
                await socket.send(json.dumps({"type": "auth", "token": "x"}))
            with suppress(ConnectionClosed):
                await socket.recv()  # an event, or the error before the close
                await socket.send('{"type": "ping"}')
                while json.loads(await socket.recv())["type"] != "pong":
                    pass
                return 200
            return (socket.close_code or 4000) - 4000
    body = ROUTES[route][0]
    sent: Any = {"json": body}
    if isinstance(body, bytes):
        sent = {"files": {"file": ("a.txt", body, "text/plain")}}
    async with door.client.stream(method, path, headers=headers, **sent) as response:
        return response.status_code


@pytest.mark.parametrize("principal", PRINCIPALS)
async def test_who_gets_in(open_sqlite_door: Opener, principal: str) -> None:
    """Each route for each who may come; who may not learns nothing, not even that it exists."""
    async with open_sqlite_door(bot, api_keys="the-key", jwt_secret=LOGIN) as door:
        for route, (_, whom) in ROUTES.items():
            adas = {**KEY, "X-Turnwise-Owner": "ada"}
            made = await door.client.post("/sessions", json={}, headers=adas)
            talker = Talker(door.client, made.json())
            await talker.say("hello")
            headers = await bearer_of(principal, talker, door)
            status = await knock(door, route, talker, headers)
            if principal in ALLOWED[whom]:
                # The message of a finished turn can no longer be changed.
                assert status < 300 or (route.startswith("PATCH") and status == 409), (
                    route,
                    status,
                )
            elif principal in HIDDEN.get(whom, ()):
                assert status == 404, (route, status)
            elif principal in FORBIDDEN.get(whom, ()):
                assert status == 403, (route, status)
            else:
                assert status == 401, (route, status)


async def test_headers(open_sqlite_door: Opener) -> None:
    """Nothing of a conversation is stored on the way or taken for something else; the page loads
    and runs what is its own, and stands in nobody's frame."""
    async with open_sqlite_door(bot) as door:
        talker = await door.session()
        await talker.say("hi")
        answers = [
            await talker.call("GET"),
            await talker.call("GET", "/messages"),
            await talker.call("GET", "/turns/99"),
            await talker.call("GET", "/events?after=0", headers={"Accept": "application/json"}),
            await door.client.get("/health/ready"),
        ]
        for response in answers:
            assert response.headers["cache-control"] == "no-store"
            assert response.headers["x-content-type-options"] == "nosniff"
        page = (await door.client.get("/")).headers
        policy = page["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert page["x-content-type-options"] == "nosniff"


# Limits


def test_a_rate() -> None:
    """So many a minute, at once or spread out; then each waits its time; others are not touched."""
    now = 100.0
    rate = Rate(60, "too often", clock=lambda: now)
    for _ in range(60):
        rate.take("a")
    with pytest.raises(RateLimited) as refused:
        rate.take("a")
    assert refused.value.retry_after == pytest.approx(1.0)
    rate.take("b")
    now += 1.0
    rate.take("a")
    with pytest.raises(RateLimited):
        rate.take("a")
    now += 1000.0
    for _ in range(60):
        rate.take("a")
    for i in range(25_000):
        rate.take(str(i))
        now += 0.1
    assert len(rate._rested) < 25_000
    Rate(0, "never").take("a")


async def test_sessions_of_one_address(open_sqlite_door: Opener) -> None:
    """Too many: 429 with Retry-After. A key is trusted."""
    async with open_sqlite_door(bot, sessions_per_minute=3) as door:
        for _ in range(3):
            assert (await door.client.post("/sessions")).status_code == 201
        refused = await door.client.post("/sessions")
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert 15 <= int(refused.headers["retry-after"]) <= 20
    async with open_sqlite_door(bot, sessions_per_minute=1, api_keys="the-key") as door:
        for _ in range(5):
            assert (await door.client.post("/sessions", headers=KEY)).status_code == 201


async def test_messages_of_one_session(open_sqlite_door: Opener) -> None:
    """Too many, on whichever door: told when to come back; other sessions are not touched."""
    async with open_sqlite_door(bot, messages_per_minute=3) as door:
        talker, other = await door.session(), await door.session()
        for _ in range(2):
            await talker.say("hi")
        url = f"{door.url.replace('http', 'ws')}{talker.path}/ws?after=100"
        async with connect(url, additional_headers=talker.auth, proxy=None) as socket:
            for _ in range(2):
                await socket.send('{"type": "message", "text": "hi", "key": "k"}')
            frames: list[Any] = []
            while not frames or frames[-1]["type"] != "error":
                frames.append(json.loads(await socket.recv()))
            assert (frames[-1]["code"], frames[-1]["retryable"]) == ("rate_limited", True)
            assert frames[-1]["key"] == "k"
        refused = await talker.call("POST", "/turns", json={"text": "hi"})
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert 1 <= int(refused.headers["retry-after"]) <= 20
        assert (await other.say("hi"))["status"] == "completed"
        assert len(await talker.history()) == 6


# What is logged

CANARY = "kanarienvogel-7f3a"


async def test_the_log_says_nothing(
    open_sqlite_door: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither words nor tokens are in what the program logs, whatever happens."""
    caplog.set_level("DEBUG", logger="turnwise")

    async def fail(turn: Turn) -> str:
        raise ValueError(turn.text)

    async with open_sqlite_door(Bot(fail)) as door:
        talker: Any = await door.session()
        await talker.say(f"my secret is {CANARY}")
        await talker.call("POST", "/turns", content=f'{{"text": "{CANARY}'.encode())
        await talker.call("POST", "/turns", json={"text": [CANARY]})
        await door.client.get(f"/sessions/{CANARY}", headers=talker.auth)
        with pytest.raises(httpx.HTTPStatusError):
            (await talker.call("POST", "/nothing", json={})).raise_for_status()
    mine = [record for record in caplog.records if record.name.startswith("turnwise")]
    assert mine
    for record in mine:
        line = caplog.handler.format(record)
        assert CANARY not in line, line
        assert talker.token not in line


def test_a_token_lives_as_long_as_its_session() -> None:
    """Without a time of its own it opens at any time; with one it ends, however it is used; and
    tokens that were issued with an end keep it."""
    lasting, ending = Signer(b"x" * 32, None), Signer(b"x" * 32, 60.0)
    token, short = lasting.issue("s", 7, now=1000.0), ending.issue("s", 7, now=1000.0)
    assert lasting.open(token, now=1e10) == ("s", 7, None)
    for signer in (lasting, ending):
        assert signer.open(short, now=1059.0).session == "s"
        with pytest.raises(Unauthorized):
            signer.open(short, now=1061.0)


def test_two_secrets_are_active_after_a_rotation() -> None:
    """A process signs with the new one only when all others must know it; what the old one has
    signed is valid until that is retired, and then at once no more, whatever was opened before."""
    old, new = b"o" * 32, b"n" * 32
    here, there, starts_now = (Signer(old, None) for _ in range(3))
    before = here.issue("s", 7, now=1000.0)
    here.learn([new, old], now=1000.0)
    assert there.open(here.issue("s", 7, now=1010.0), now=1010.0).session == "s"
    there.learn([new, old], now=1005.0)
    after = here.issue("s", 8, now=1030.0)
    assert there.open(after, now=1030.0).generation == 8
    assert there.open(before, now=1030.0).generation == 7
    starts_now.learn([new, old], now=1030.0)
    for signer in (here, there, starts_now):
        signer.learn([new], now=1100.0)
        assert signer.open(after, now=1100.0).generation == 8
        with pytest.raises(Unauthorized):
            signer.open(before, now=1100.0)


async def test_rotating_the_secret_of_a_server_that_runs(serve: Callable[..., Process]) -> None:
    """By two commands, without a restart: a token of before works until the second, and one of the
    new secret afterwards too."""
    process = serve("bots:echo")

    def command(*words: str) -> str:
        line = [sys.executable, "-m", "turnwise", "secret", *words, "--store", process.store]
        done = subprocess.run(line, capture_output=True, text=True, cwd=process.folder)
        return done.stdout + done.stderr

    async with process.client() as client:
        talker = await Talker.make(client)

        async def becomes(status: int) -> None:
            async with asyncio.timeout(20):
                while (await talker.call("GET")).status_code != status:
                    await asyncio.sleep(0.2)

        assert "one secret is active" in command("retire").lower()
        assert "turnwise secret retire" in command("rotate")
        assert "retire the old one first" in command("rotate")
        await asyncio.sleep(6)  # until the server has looked
        await becomes(200)
        assert "refused within" in command("retire")
        await becomes(401)
        fresh = await Talker.make(client)
        assert (await fresh.call("GET")).status_code == 200


async def test_a_token_in_use_does_not_end(open_door: Opener) -> None:
    """It ends with its session: use prolongs both, and afterwards it is as if it had never been."""
    async with open_door(bot, session_ttl=3) as door:
        talker = await door.session()
        for _ in range(4):
            await asyncio.sleep(1.0)
            await talker.say("hi")
        refreshed = await talker.call("POST", "/token")
        assert refreshed.status_code == 200
        talker.token = refreshed.json()["token"]
        await asyncio.sleep(3.5)
        assert (await talker.call("GET", "/messages")).status_code == 404
