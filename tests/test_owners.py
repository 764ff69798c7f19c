"""Whose conversation it is: keys with an owner's header, logins, the host's rule, and Python."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fastapi import FastAPI
from starlette.requests import HTTPConnection
from websockets.asyncio.client import connect

import turnwise
from conftest import Door, Opener
from turnwise import Bot, Message, Runtime, Turn
from turnwise.errors import ConfigurationError, NotFound, OwnerSet
from turnwise.settings import Settings

KEY = {"Authorization": "Bearer the-key"}
SECRET = "the secret of the login, which is long enough for every algorithm of them all"
ADA, BOB = {**KEY, "X-Turnwise-Owner": "ada"}, {**KEY, "X-Turnwise-Owner": "bob"}
echo = Bot(lambda turn: turn.text)


def login(sub: Any, secret: Any = SECRET, algorithm: str = "HS256", **more: Any) -> dict[str, str]:
    headers = {"kid": more.pop("kid")} if "kid" in more else None
    claims = {"sub": sub, "exp": time.time() + 60, **more}
    token = jwt.encode(claims, secret, algorithm=algorithm, headers=headers)
    return {"Authorization": f"Bearer {token}"}


async def names(door: Door, headers: dict[str, str], **params: Any) -> list[str]:
    response = await door.client.get("/sessions", headers=headers, params=params)
    assert response.status_code == 200, response.text
    return [session["name"] for session in response.json()["sessions"]]


async def make(door: Door, headers: dict[str, str], **body: Any) -> dict[str, Any]:
    response = await door.client.post("/sessions", json=body, headers=headers)
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


async def test_a_key_acts_for_an_owner(open_door: Opener) -> None:
    """With the header it has the owner's sessions and no others; without, all of them."""
    async with open_door(echo, api_keys="the-key") as door:
        for i in range(3):
            await make(door, ADA, name=f"a{i}")
        mine = await make(door, BOB, name="b")
        assert mine["owner"] == "bob"
        assert await names(door, ADA) == ["a2", "a1", "a0"]
        assert await names(door, BOB) == ["b"]
        assert sorted(await names(door, KEY)) == ["a0", "a1", "a2", "b"]
        path = f"/sessions/{mine['id']}"
        missing = await door.client.get("/sessions/nothing", headers=ADA)
        foreign = await door.client.get(path, headers=ADA)
        assert (foreign.status_code, foreign.json()) == (404, missing.json())
        posted = await door.client.post(f"{path}/turns", json={"text": "hi"}, headers=ADA)
        assert (posted.status_code, posted.json()) == (404, missing.json())
        assert (await door.client.get(path, headers=KEY)).status_code == 200
        assert (await door.client.get("/sessions")).status_code == 401
        own = {"Authorization": f"Bearer {mine['token']}"}
        assert (await door.client.get("/sessions", headers=own)).status_code == 401


async def test_the_list_goes_by_pages_and_names(open_door: Opener) -> None:
    """The last used first; `next` continues, `q` looks in names, and what is deleted is gone."""
    async with open_door(echo, api_keys="the-key") as door:
        made = [await make(door, ADA, name=f"Trip {i}") for i in range(7)]
        await door.client.post(f"/sessions/{made[2]['id']}/turns", json={"text": "hi"}, headers=ADA)
        await door.client.delete(f"/sessions/{made[5]['id']}", headers=ADA)
        found: list[str] = []
        params: dict[str, Any] = {"limit": 2}
        while True:
            page = (await door.client.get("/sessions", headers=ADA, params=params)).json()
            found += [session["name"] for session in page["sessions"]]
            if not page["has_more"]:
                break
            params["before"] = page["next"]
        assert found == [f"Trip {i}" for i in (2, 6, 4, 3, 1, 0)]
        assert await names(door, ADA, q="trip 3") == ["Trip 3"]
        wrong = await door.client.get("/sessions", headers=ADA, params={"before": "nonsense"})
        assert wrong.status_code == 422


async def test_a_login_owns_what_it_creates(open_sqlite_door: Opener) -> None:
    """The `sub` of a JWT is the owner; no token is needed or given, on any door."""
    async with open_sqlite_door(echo, jwt_secret=SECRET) as door:
        made = await make(door, login("ada"), name="mine")
        assert (made["owner"], "token" in made) == ("ada", False)
        path = f"/sessions/{made['id']}"
        for headers, status in ((login("ada"), 200), (login("bob"), 404), ({}, 401)):
            assert (await door.client.get(path, headers=headers)).status_code == status
        turns = f"{path}/turns"
        waiting = {**login("ada"), "Prefer": "wait=20"}
        for _ in range(2):  # the second one is known at once
            posted = await door.client.post(turns, json={"text": "hi"}, headers=waiting)
            assert posted.json()["reply"]["text"] == "hi"
        url = f"{door.url.replace('http', 'ws')}{path}/ws?after=0"
        async with connect(url, additional_headers=login("ada"), proxy=None) as socket:
            assert json.loads(await socket.recv())["type"] == "turn.queued"
        assert await names(door, login("ada")) == ["mine"]
        assert await names(door, login("bob")) == []
        assert (await door.client.post("/sessions")).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        login("ada", "another secret, which is long enough"),
        login("ada", exp=time.time() - 60),
        login(""),
        login("x" * 201),
        login(7),
        {"Authorization": "Bearer " + jwt.encode({"sub": "ada"}, "", algorithm="none")},
        login("ada", SECRET, "HS512"),
        {"Authorization": "Bearer nonsense"},
        {"Authorization": f"Bearer {'x' * 10_000}"},
    ],
    ids=["secret", "expired", "empty", "long", "number", "none", "algorithm", "text", "large"],
)
async def test_what_is_no_login(open_sqlite_door: Opener, headers: dict[str, str]) -> None:
    """A wrong signature, algorithm, time or subject opens nothing."""
    async with open_sqlite_door(echo, jwt_secret=SECRET) as door:
        assert (await door.client.post("/sessions", headers=headers)).status_code == 401
        assert (await door.client.get("/sessions", headers=headers)).status_code == 401
        assert (await door.client.get("/sessions/x", headers=headers)).status_code == 401


async def test_issuer_and_audience_are_checked(open_sqlite_door: Opener) -> None:
    """Where they are set, a token must have them."""
    given = {"jwt_secret": SECRET, "jwt_issuer": "https://login", "jwt_audience": "chat"}
    async with open_sqlite_door(echo, **given) as door:
        good = login("ada", iss="https://login", aud="chat")
        assert (await door.client.post("/sessions", headers=good)).status_code == 201
        for bad in ({"iss": "https://login"}, {"aud": "chat"}, {"iss": "x", "aud": "chat"}):
            headers = login("ada", **bad)
            assert (await door.client.post("/sessions", headers=headers)).status_code == 401


class Keys:
    """A login's server: its keys, and how often they were read."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] = []
        self.reads = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.reads += 1
                body = json.dumps({"keys": outer.keys}).encode()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/jwks.json"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def add(self, kid: str, key: Any, algorithm: str) -> None:
        kinds: dict[str, Any] = {
            "RS256": jwt.algorithms.RSAAlgorithm,
            "ES256": jwt.algorithms.ECAlgorithm,
        }
        public: Any = kinds[algorithm].to_jwk(key.public_key(), as_dict=True)
        self.keys.append({**public, "kid": kid, "alg": algorithm})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def keys() -> Iterator[Keys]:
    made = Keys()
    yield made
    made.close()


async def test_a_login_that_publishes_its_keys(open_sqlite_door: Opener, keys: Keys) -> None:
    """RS256 and ES256 by a JWKS; a public key is never taken for a secret, and a key that nobody
    knows does not make us ask for every request."""
    first = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    second = ec.generate_private_key(ec.SECP256R1())
    keys.add("one", first, "RS256")
    keys.add("two", second, "ES256")
    about = {"iss": "https://login", "aud": "chat"}
    given = {
        "jwt_jwks_url": keys.url, "jwt_issuer": "https://login", "jwt_audience": "chat",
    }  # fmt: skip
    async with open_sqlite_door(echo, **given) as door:
        for key, algorithm, kid in ((first, "RS256", "one"), (second, "ES256", "two")):
            headers = login("ada", key, algorithm, kid=kid, **about)
            made = await door.client.post("/sessions", headers=headers)
            assert (made.status_code, made.json()["owner"]) == (201, "ada")
        for bad in (
            login("ada", SECRET, "HS256", kid="one", **about),
            login("ada", second, "ES256", kid="one", **about),
            login("ada", first, "RS256", kid="three", **about),
            login("ada", first, "RS256", **about),
        ):
            assert (await door.client.post("/sessions", headers=bad)).status_code == 401
        assert keys.reads == 1


async def test_a_login_that_is_away(open_sqlite_door: Opener) -> None:
    """Its keys cannot be read: 503, to be tried again, and no word of where they are."""
    given = {"jwt_issuer": "https://login", "jwt_audience": "chat"}
    url = "http://127.0.0.1:9/jwks.json"
    key = ec.generate_private_key(ec.SECP256R1())
    async with open_sqlite_door(echo, jwt_jwks_url=url, **given) as door:
        refused = await door.client.post("/sessions", headers=login("ada", key, "ES256", kid="x"))
        assert (refused.status_code, refused.json()["retryable"]) == (503, True)
        assert "127.0.0.1" not in refused.text


@pytest.mark.parametrize(
    "given",
    [
        {"jwt_secret": "x", "jwt_jwks_url": "https://login/jwks.json"},
        {"jwt_jwks_url": "https://login/jwks.json"},
        {"jwt_jwks_url": "https://login/jwks.json", "jwt_issuer": "https://login"},
    ],
)
def test_a_login_that_is_set_wrong(given: dict[str, Any]) -> None:
    """Both kinds at once, or a JWKS without issuer and audience, are errors at the start."""
    runtime = Runtime(echo, "memory:", settings=Settings(_env_file=None, **given))
    with pytest.raises(ConfigurationError):
        turnwise.router(runtime)


async def test_the_host_says_who_it_is(open_sqlite_door: Opener) -> None:
    """`authorize` returns an owner: the owner's sessions and a list of them. One who is only
    trusted lists nothing, for that may be anybody."""

    def authorize(connection: HTTPConnection, session_id: str | None) -> bool | str:
        user = connection.headers.get("x-user")
        return user if user else connection.headers.get("x-backend") == "yes"

    def app(runtime: Runtime) -> FastAPI:
        made = FastAPI(lifespan=runtime.lifespan)
        made.include_router(turnwise.router(runtime, authorize=authorize))
        return made

    async with open_sqlite_door(echo, app=app) as door:
        ada, bob = {"X-User": "ada"}, {"X-User": "bob"}
        made = await make(door, ada, name="mine")
        assert (made["owner"], "token" in made) == ("ada", False)
        path = f"/sessions/{made['id']}"
        assert (await door.client.get(path, headers=ada)).status_code == 200
        assert (await door.client.get(path, headers=bob)).status_code == 404
        assert (await door.client.get(path, headers={"X-Backend": "yes"})).status_code == 200
        assert (await door.client.get(path)).status_code == 404
        assert await names(door, ada) == ["mine"]
        assert (await door.client.get("/sessions", headers={"X-Backend": "yes"})).status_code == 401
        assert (await door.client.get("/sessions")).status_code == 401


async def test_one_who_is_only_trusted_is_no_host(open_sqlite_door: Opener) -> None:
    """`authorize` that allows a session gives nothing that only API keys may do; and what is
    neither a bool nor a text is an error, and opens nothing."""
    verdict: Any = True

    def app(runtime: Runtime) -> FastAPI:
        made = FastAPI(lifespan=runtime.lifespan)
        made.include_router(turnwise.router(runtime, authorize=lambda c, s: verdict))
        return made

    async with open_sqlite_door(echo, app=app) as door:
        made = await make(door, {}, name="mine")
        path = f"/sessions/{made['id']}"
        calls: list[tuple[str, str, dict[str, Any]]] = [
            ("PATCH", path, {"private": {"plan": "pro"}}),
            ("POST", f"{path}/wake", {"reason": "x"}),
            ("POST", f"{path}/owner", {"owner": "mallory"}),
            ("POST", "/sessions", {"private": {"plan": "pro"}}),
        ]
        for method, where, body in calls:
            response = await door.client.request(method, where, json=body)
            assert response.status_code == 403, where
        verdict = 42
        assert (await door.client.get(path)).status_code == 500
        verdict = None
        assert (await door.client.get(path)).status_code == 404


async def test_a_strangers_requests_count_nothing(open_sqlite_door: Opener) -> None:
    """Whoever knocks at another's session neither uses up its limit nor learns that it was."""
    async with open_sqlite_door(echo, jwt_secret=SECRET, messages_per_minute=2) as door:
        made = await make(door, login("ada"))
        turns = f"/sessions/{made['id']}/turns"
        for _ in range(2):
            await door.client.post(turns, json={"text": "hi"}, headers=login("ada"))
        for _ in range(4):
            response = await door.client.post(turns, json={"text": "hi"}, headers=login("bob"))
            assert response.status_code == 404
        response = await door.client.post(turns, json={"text": "hi"}, headers=login("ada"))
        assert response.status_code == 429


async def test_what_a_client_writes_is_never_what_the_host_wrote(open_sqlite_door: Opener) -> None:
    """A token changes metadata and name; private, owner and a long life are the host's."""
    seen: list[tuple[Any, Any, Any]] = []

    async def reply(turn: Turn) -> str:
        seen.append((turn.session.metadata, turn.session.private, turn.session.owner))
        return "ok"

    async with open_sqlite_door(Bot(reply), api_keys="the-key", session_ttl=1000.0) as door:
        made = await make(door, ADA, private={"plan": "free"}, ttl=5000.0)
        assert (made["private"], made["ttl"]) == ({"plan": "free"}, 5000.0)
        path, own = f"/sessions/{made['id']}", {"Authorization": f"Bearer {made['token']}"}
        changes = {"metadata": {"plan": "enterprise"}, "ttl": 1e6, "name": "Mine"}
        changed = await door.client.patch(path, json=changes, headers=own)
        assert (changed.json()["ttl"], "private" in changed.json()) == (1000.0, False)
        for body in ({"private": {"plan": "pro"}},):
            refused = await door.client.patch(path, json=body, headers=own)
            assert refused.status_code == 403
        await door.client.post(
            f"{path}/turns", json={"text": "hi"}, headers={**own, "Prefer": "wait=20"}
        )
        assert seen == [({"plan": "enterprise"}, {"plan": "free"}, "ada")]
        assert "private" not in (await door.client.get(path, headers=own)).json()
        assert (await door.client.get(path, headers=KEY)).json()["private"] == {"plan": "free"}


async def test_a_guest_who_logs_in(open_sqlite_door: Opener) -> None:
    """A guest's session is given to the owner, once; the guest's token goes on opening it."""
    async with open_sqlite_door(echo, api_keys="the-key", guests=True) as door:
        made = await make(door, {}, name="guest")
        path = f"/sessions/{made['id']}"
        adopted = await door.client.post(f"{path}/owner", json={"owner": "ada"}, headers=KEY)
        assert adopted.json()["owner"] == "ada"
        again = await door.client.post(f"{path}/owner", json={"owner": "bob"}, headers=KEY)
        assert (again.status_code, again.json()["code"]) == (409, "owner_set")
        foreign = await door.client.post(f"{path}/owner", json={"owner": "bob"}, headers=BOB)
        assert foreign.status_code == 404
        assert await names(door, ADA) == ["guest"]
        own = {"Authorization": f"Bearer {made['token']}"}
        assert (await door.client.get(path, headers=own)).status_code == 200


async def test_a_session_is_created_once_for_a_key(open_door: Opener) -> None:
    """The same Idempotency-Key gives the same caller the same session, and another one another."""
    async with open_door(echo, api_keys="the-key,other-key") as door:
        other = {"Authorization": "Bearer other-key"}
        made = [
            (await door.client.post("/sessions", headers={**who, "Idempotency-Key": "k"})).json()
            for who in (ADA, ADA, BOB, KEY, KEY, other)
        ]
        ids = [one["id"] for one in made]
        assert ids[0] == ids[1]
        assert ids[3] == ids[4]
        assert len(set(ids)) == 4
    async with open_door(echo) as door:  # without anybody to whom the key could belong
        strangers = [
            (await door.client.post("/sessions", headers={"Idempotency-Key": "k"})).json()["id"]
            for _ in range(2)
        ]
        assert len(set(strangers)) == 2


async def test_names_in_an_owners_space(store_url: str) -> None:
    """Two owners may call their sessions the same; each has its own, and Python reads both."""
    async with Runtime(echo, store_url) as runtime:
        for owner in ("ada", "bob"):
            reply = await runtime.ask("main", f"I am {owner}", owner=owner, timeout=20)
            assert reply.turn == 1
        messages = await runtime.messages("main", owner="ada")
        assert [message.text for message in messages] == ["I am ada", "I am ada"]
        page = await runtime.sessions("ada")
        assert [session.id for session in page.sessions] == [runtime.session_id("main", "ada")]
        async with runtime.session("main", owner="bob") as held:
            held.state["n"] = 1
        with pytest.raises(NotFound):
            await runtime.turn("other", 1, owner="ada")
        guest = await runtime.create(name="guest")
        await runtime.adopt(guest.id, "ada")
        with pytest.raises(OwnerSet):
            await runtime.adopt(guest.id, "bob")
        assert len((await runtime.sessions("ada")).sessions) == 2


async def test_owners_of_any_spelling(open_sqlite_door: Opener) -> None:
    """An owner is any text of 1 to 200 characters, in UTF-8; nothing else is one."""
    async with open_sqlite_door(echo, api_keys="the-key") as door:
        for owner in ("Zoë", "漢字", "a b", "x" * 200):
            headers: Any = {**KEY, "X-Turnwise-Owner": owner.encode()}
            made = await door.client.post("/sessions", headers=headers)
            assert made.json()["owner"] == owner
        for bad in (b"", b"x" * 201, b"\xff\xfe"):
            headers = {**KEY, "X-Turnwise-Owner": bad}
            refused = await door.client.post("/sessions", headers=headers)
            assert refused.status_code == 422, bad
        twice = [("Authorization", "Bearer the-key"), *[("X-Turnwise-Owner", "a")] * 2]
        assert (await door.client.post("/sessions", headers=twice)).status_code == 422


async def test_a_session_that_begins_with_a_history(open_sqlite_door: Opener) -> None:
    """Keys and Python give it; who has a token does not. A turn that stands alone is in no list."""
    seen: list[list[str]] = []

    async def reply(turn: Turn) -> str:
        seen.append([message.text for message in turn.messages])
        return "ok"

    given = [
        {"role": "user", "text": "Where is my parcel?"},
        {"role": "assistant", "text": "Lyon."},
    ]
    async with open_sqlite_door(Bot(reply), api_keys="the-key", guests=True) as door:
        made = await make(door, ADA, messages=given)
        waiting = {**ADA, "Prefer": "wait=20"}
        path = f"/sessions/{made['id']}"
        await door.client.post(f"{path}/turns", json={"text": "And now?"}, headers=waiting)
        assert seen == [["Where is my parcel?", "Lyon.", "And now?"]]
        refused = await door.client.post("/sessions", json={"messages": given})
        assert refused.status_code == 403
        alone = await door.runtime.ask(
            None, "Sum it up", history=[Message("a", role="user"), Message("b")], timeout=20
        )
        assert alone.text == "ok"
        assert seen[-1] == ["a", "b", "Sum it up"]
        owned = await door.runtime.ask(
            None, "Again", history=[Message("a", role="user")], owner="ada", timeout=20
        )
        assert owned.text == "ok"
        assert seen[-1] == ["a", "Again"]
        assert len((await door.client.get("/sessions", headers=KEY)).json()["sessions"]) == 1


async def test_a_token_lives_as_its_session_does(open_sqlite_door: Opener) -> None:
    """Use renews both; a token is of no use behind its session's end."""
    async with open_sqlite_door(echo, session_ttl=2.0) as door:
        talker = await door.session()
        for _ in range(4):
            await asyncio.sleep(0.7)
            assert (await talker.say("hi"))["status"] == "completed"
        await asyncio.sleep(2.2)
        assert (await talker.call("GET")).status_code == 404
