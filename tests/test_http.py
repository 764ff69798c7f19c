"""The HTTP door, through a real server and a real client: each call of the contract."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from httpx_sse import aconnect_sse

import turnwise
from conftest import Opener, Talker
from turnwise import Bot, Runtime, Turn


async def _slow(turn: Turn) -> AsyncIterator[str]:
    """Says each letter of the message, a moment apart."""
    for letter in turn.text:
        yield letter
        await asyncio.sleep(0.02)


def _echo(turn: Turn) -> str:
    return f"re {turn.text}"


def holding(**limits: Any) -> tuple[asyncio.Event, Bot]:
    """A bot that answers with the message, once the event is set."""
    held = asyncio.Event()

    async def reply(turn: Turn) -> str:
        await held.wait()
        return turn.text

    return held, Bot(reply, **limits)


# Sessions


async def test_the_life_of_a_session(open_door: Opener) -> None:
    """Made, read, changed, refreshed, reset, deleted."""
    async with open_door(Bot(_echo)) as door:
        response = await door.client.post(
            "/sessions", json={"name": "n", "metadata": {"a": 1}, "ttl": 100}
        )
        made = response.json()
        assert response.status_code == 201
        assert response.headers["location"] == f"/sessions/{made['id']}"
        assert len(made["id"]) >= 22
        assert (made["name"], made["metadata"], made["ttl"]) == ("n", {"a": 1}, 100)
        talker = Talker(door.client, made)

        changed = (await talker.call("PATCH", json={"name": "new"})).json()
        assert (changed["name"], changed["metadata"]) == ("new", {"a": 1})

        await talker.say("hi")
        session = (await talker.call("GET")).json()
        assert (session["status"], session["turns"], session["messages"]) == ("idle", 1, 2)
        assert "token" not in session

        old = talker.token
        talker.token = (await talker.call("POST", "/token")).json()["token"]
        assert (await talker.call("GET")).status_code == 200
        refused = await talker.call("GET", headers={"Authorization": f"Bearer {old}"})
        assert refused.status_code == 401

        assert (await talker.call("POST", "/reset")).json()["messages"] == 0
        assert await talker.history() == []

        assert (await talker.call("DELETE")).status_code == 204
        assert (await talker.call("GET")).status_code == 404


async def test_a_session_without_a_body(open_door: Opener) -> None:
    """An empty POST makes a session with the defaults."""
    async with open_door(Bot(_echo)) as door:
        assert (await door.client.post("/sessions")).status_code == 201


# Turns


async def test_a_turn_is_accepted_at_once(open_door: Opener) -> None:
    """202 with the turn and where it is, also when the session is busy."""
    held, bot = holding()
    async with open_door(bot) as door:
        talker = await door.session()
        for n in (1, 2, 3):
            response = await talker.call("POST", "/turns", json={"text": "abc"})
            assert response.status_code == 202
            assert response.headers["location"] == f"{talker.path}/turns/{n}"
            assert response.json()["n"] == n
            assert response.json().get("position") == (None if n == 1 else n - 1)
        held.set()
        last = (await talker.call("GET", "/turns/3", headers={"Prefer": "wait=20"})).json()
        assert last["status"] == "completed"
        assert await talker.history() == ["abc"] * 6


async def test_waiting_for_the_reply(open_door: Opener) -> None:
    """200 with the finished turn, or 202 when the time was not enough."""
    async with open_door(Bot(_slow)) as door:
        talker = await door.session()
        response = await talker.call(
            "POST", "/turns", json={"text": "abc"}, headers={"Prefer": "respond-async, wait=20"}
        )
        assert response.status_code == 200
        turn = response.json()
        assert (turn["status"], turn["attempt"], turn["reply"]["text"]) == ("completed", 1, "abc")
        assert turn["message"]["text"] == "abc"
        assert turn["queued_at"] <= turn["started_at"] <= turn["finished_at"]
        response = await talker.call(
            "POST", "/turns", json={"text": "x" * 100}, headers={"Prefer": "wait=0"}
        )
        assert response.status_code == 202
        assert response.json()["status"] == "running"


async def test_attachments_and_metadata_are_kept(open_door: Opener) -> None:
    """By reference: the server fetches nothing."""
    async with open_door(Bot(lambda turn: turn.message.attachments[0].url)) as door:
        talker = await door.session()
        picture = {"type": "image/png", "url": "https://nowhere.invalid/x.png", "size": 3}
        response = await talker.call(
            "POST",
            "/turns",
            json={"attachments": [picture], "metadata": {"from": "test"}},
            headers={"Prefer": "wait=20"},
        )
        turn = response.json()
        assert turn["reply"]["text"] == picture["url"]
        assert turn["message"]["attachments"] == [picture]
        assert turn["message"]["metadata"] == {"from": "test"}


async def test_streaming_the_turn(open_door: Opener) -> None:
    """With Accept: text/event-stream, the turn's events until its last one."""
    async with open_door(Bot(_slow)) as door:
        talker = await door.session()
        async with aconnect_sse(
            door.client, "POST", f"{talker.path}/turns", json={"text": "hello"},
            headers={**talker.auth, "Accept": "text/event-stream"},
        ) as source:  # fmt: skip
            assert source.response.headers["cache-control"] == "no-store"
            assert source.response.headers["x-accel-buffering"] == "no"
            assert source.response.headers["location"] == f"{talker.path}/turns/1"
            found = [event async for event in source.aiter_sse()]
        assert [event.event for event in found][-2:] == ["message", "turn.completed"]
        cursors = [event.id for event in found]
        assert [int(cursor.partition("-")[0]) for cursor in cursors] == list(
            range(1, len(found) + 1)
        )
        text = "".join(event.json()["text"] for event in found if event.event == "delta")
        assert text == "hello"


async def test_the_same_key_is_one_turn(open_door: Opener) -> None:
    """Fifty requests at once with one key, and one later; another body is 422."""
    async with open_door(Bot(_echo)) as door:
        talker = await door.session()
        key = {"Idempotency-Key": "k"}
        turns = await asyncio.gather(*(talker.say("hi", 20, **key) for _ in range(50)))
        assert {(turn["n"], turn["reply"]["text"]) for turn in turns} == {(1, "re hi")}
        assert (await talker.say("hi", None, **key))["status"] == "completed"
        response = await talker.call("POST", "/turns", json={"text": "other"}, headers=key)
        assert (response.status_code, response.json()["code"]) == (422, "key_reused")
        assert await talker.history() == ["hi", "re hi"]


async def test_cancelling(open_door: Opener) -> None:
    """A running turn is stopped and keeps its partial text; a queued one is withdrawn."""
    async with open_door(Bot(_slow)) as door:
        talker = await door.session()
        await talker.say("x" * 500, None)
        await talker.say("queued", None)
        withdrawn = (await talker.call("POST", "/turns/2/cancel")).json()
        assert withdrawn["status"] == "cancelled"
        assert "reply" not in withdrawn
        await talker.events(2, wait=5)
        stopped = (await talker.call("POST", "/turns/1/cancel")).json()
        assert stopped["status"] == "cancelled"
        assert stopped["reply"]["messages"][0]["partial"] is True
        assert (await talker.call("POST", "/turns/1/cancel")).json() == stopped
        assert (await talker.call("POST", "/turns/9/cancel")).status_code == 404
        assert (await talker.say("abc"))["reply"]["text"] == "abc"


async def test_a_failed_turn(open_door: Opener) -> None:
    """200 with status failed and an error that can be read."""

    async def fail(turn: Turn) -> str:
        raise turnwise.TurnError("The kitchen is closed.", code="closed", retryable=True)

    async with open_door(Bot(fail)) as door:
        turn = await (await door.session()).say("hi")
        assert turn["status"] == "failed"
        assert turn["error"] == {
            "code": "closed", "message": "The kitchen is closed.", "retryable": True,
        }  # fmt: skip


async def test_a_full_mailbox(open_door: Opener) -> None:
    """429 with Retry-After, and nothing is lost of what was accepted."""
    held, bot = holding(queue_limit=3)
    async with open_door(bot) as door:
        talker = await door.session()
        for _ in range(3):
            await talker.say("abcdef", None)
        response = await talker.call("POST", "/turns", json={"text": "more"})
        assert (response.status_code, response.json()["code"]) == (429, "queue_full")
        assert int(response.headers["retry-after"]) >= 1
        assert response.json()["retryable"] is True
        held.set()
        await talker.call("GET", "/turns/3", headers={"Prefer": "wait=20"})
        assert len(await talker.history()) == 6


async def test_lists_of_turns_and_messages(open_door: Opener) -> None:
    """Pages with has_more; `open` holds what is not finished; by status."""
    async with open_door(Bot(_echo)) as door:
        talker = await door.session()
        for i in range(5):
            await talker.say(f"m{i}")
        page = (await talker.call("GET", "/turns", params={"limit": 2})).json()
        assert ([turn["n"] for turn in page["turns"]], page["has_more"]) == ([4, 5], True)
        page = (await talker.call("GET", "/turns", params={"status": "failed"})).json()
        assert page == {"turns": [], "has_more": False}
        page = (await talker.call("GET", "/messages", params={"before": 5, "limit": 3})).json()
        assert [m["text"] for m in page["messages"]] == ["re m0", "m1", "re m1"]
        assert (page["has_more"], page["open"], number(page["cursor"])) == (True, [], 35)


def number(cursor: str) -> int:
    """The number of the event that a cursor names."""
    assert re.fullmatch(r"\d+(-\w+)?", cursor)
    return int(cursor.partition("-")[0])


# Events


async def test_resuming_after_every_event(open_door: Opener) -> None:
    """For every k: read k events, leave, come back with k as the cursor: exactly the rest."""
    async with open_door(Bot(_slow)) as door:
        talker = await door.session()
        await talker.say("abcdef")
        whole = await talker.events()
        assert [event["id"] for event in whole] == list(range(1, len(whole) + 1))
        for k in range(len(whole) + 1):
            headers = {**talker.auth, "Last-Event-ID": str(k)}
            rest: list[dict[str, Any]] = []
            async with aconnect_sse(
                door.client, "GET", f"{talker.path}/events?turn=1&after=0", headers=headers
            ) as source:
                rest += [event.json() async for event in source.aiter_sse()]
            assert rest == whole[k:]


async def test_following_live_from_the_history(open_door: Opener) -> None:
    """messages, then events after its cursor: the running answer is whole, nothing comes twice."""
    async with open_door(Bot(_slow)) as door:
        talker = await door.session()
        await talker.say("done")
        await talker.say("abcdefghij" * 5, None)
        await talker.events(7, wait=5)
        page = (await talker.call("GET", "/messages")).json()
        assert [turn["n"] for turn in page["open"]] == [2]
        found: list[dict[str, Any]] = []
        cursor = page["cursor"]
        while not found or found[-1]["type"] != "turn.completed":
            fresh = await talker.events(cursor, wait=5)
            found += fresh
            cursor = fresh[-1]["id"]
        assert "".join(e["text"] for e in found if e["type"] == "delta") == "abcdefghij" * 5
        seen = [m["id"] for m in page["messages"]]
        seen += [e["message"]["id"] for e in found if e["type"] == "message"]
        assert len(seen) == len(set(seen)) == 3


async def test_long_polling(open_door: Opener) -> None:
    """A page at a time with `next`; an empty page after the wait."""
    async with open_door(Bot(_echo)) as door:
        talker = await door.session()
        await talker.say("hi")
        accept = {"Accept": "application/json"}
        params: dict[str, int] = {"after": 0, "limit": 2}
        first = (await talker.call("GET", "/events", params=params, headers=accept)).json()
        assert ([event["id"] for event in first["events"]], number(first["next"])) == (
            [1, 2],
            2,
        )
        params = {"after": 7, "wait": 0}
        none = (await talker.call("GET", "/events", params=params, headers=accept)).json()
        assert (none["events"], number(none["next"])) == ([], 7)
        waiting = asyncio.create_task(talker.events(7, wait=10))
        await talker.say("again", None)
        assert (await waiting)[0]["id"] == 8


async def test_a_page_while_the_process_stops(open_door: Opener) -> None:
    """An empty page would say that there is nothing: it is 503, and another process knows."""
    async with open_door(Bot(_echo)) as door:
        talker = await door.session()
        await talker.say("hi")
        door.runtime.retire()
        page = await talker.call("GET", "/events?after=0", headers={"Accept": "application/json"})
        assert page.status_code == 503
        assert "retry-after" in page.headers


async def test_a_cursor_that_cannot_be_continued(open_door: Opener) -> None:
    """Ahead of the log or no longer kept: one gap that says where it goes on, then the rest."""
    async with open_door(Bot(_echo)) as door:
        talker = await door.session()
        await talker.say("hi")
        ahead = await talker.events(99)
        assert [(e["type"], e["id"], e["after"], e["resume_at"]) for e in ahead] == [
            ("gap", 7, 99, 7)
        ]
        await talker.call("POST", "/reset")
        behind = await talker.events(1)
        assert [(e["type"], e["id"]) for e in behind] == [("gap", 7)]
        assert [e["type"] for e in await talker.events(7)] == ["session.reset"]


async def test_a_reader_hears_of_reset_and_of_the_end(open_door: Opener) -> None:
    """A reset is an event; a deleted session ends the stream."""
    async with open_door(Bot(_echo)) as door:
        talker = await door.session()
        types = []
        async with aconnect_sse(
            door.client, "GET", f"{talker.path}/events", headers=talker.auth
        ) as source:
            await talker.call("POST", "/reset")
            async for event in source.aiter_sse():
                types.append(event.event)
                if event.event == "session.reset":
                    await talker.call("DELETE")
        assert types == ["session.reset"]


async def test_too_many_streams(open_door: Opener) -> None:
    """Beyond the limit: 429 with Retry-After; a stream that ends makes room."""
    async with open_door(Bot(_echo), max_streams=1) as door:
        talker = await door.session()
        url = f"{talker.path}/events"
        async with aconnect_sse(door.client, "GET", url, headers=talker.auth) as source:
            assert source.response.status_code == 200
            refused = await talker.call("GET", "/events")
            assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
            assert "retry-after" in refused.headers
        async with asyncio.timeout(10):
            while door.runtime.gateway.hub.count:
                await asyncio.sleep(0.01)
        assert (await talker.say("hi"))["status"] == "completed"


async def test_a_reader_that_does_not_read(open_door: Opener) -> None:
    """It is dropped after the time for sending, also when only the end of the stream is left;
    others go on, and it can resume."""

    async def flood(turn: Turn) -> AsyncIterator[str]:
        for _ in range(80):
            yield "x" * 100_000
            await asyncio.sleep(0.001)

    async with open_door(Bot(flood, max_reply=10_000_000), send_timeout=1) as door:
        talker = await door.session()
        await talker.say("go", 60)
        url = httpx.URL(door.url)
        head = f"GET {talker.path}/events HTTP/1.1\r\nHost: x\r\n"
        with socket.socket() as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(stalled, (url.host, url.port))
            auth = f"Authorization: Bearer {talker.token}\r\n\r\n"
            await loop.sock_sendall(stalled, (head + auth).encode())
            await loop.sock_recv(stalled, 100)
            assert door.runtime.gateway.hub.count == 1
            async with asyncio.timeout(10):
                while door.runtime.gateway.hub.count:
                    await asyncio.sleep(0.05)
            assert (await talker.events())[-1]["type"] == "turn.completed"


# Tokens and keys


async def test_who_may(open_door: Opener) -> None:
    """No token 401, another session's 404 as if it were not there, an API key everything."""
    async with open_door(Bot(_echo), api_keys="key-one, key-two") as door:
        assert (await door.client.post("/sessions", json={})).status_code == 401
        key = {"Authorization": "Bearer key-two"}
        made = await door.client.post("/sessions", json={}, headers=key)
        mine = Talker(door.client, made.json())
        other = Talker(door.client, (await door.client.post("/sessions", headers=key)).json())
        assert (await door.client.get(mine.path)).status_code == 401
        foreign = await mine.call("GET", headers=other.auth)
        absent = await door.client.get("/sessions/nobody", headers=other.auth)
        assert foreign.status_code == absent.status_code == 404
        assert foreign.content == absent.content
        assert (await mine.call("GET", headers=key)).status_code == 200
        wrong = {"Authorization": "Bearer key-three"}
        assert (await mine.call("GET", headers=wrong)).status_code == 401


async def test_expired_tokens(open_door: Opener) -> None:
    """A token has a time; when it ends, so do the streams that it opened."""
    async with open_door(Bot(_echo), token_ttl=3) as door:
        talker = await door.session()
        async with aconnect_sse(
            door.client, "GET", f"{talker.path}/events", headers=talker.auth
        ) as source:
            async with asyncio.timeout(10):
                assert [event async for event in source.aiter_sse()] == []
        assert (await talker.call("GET")).status_code == 401


async def test_a_refreshed_token_ends_the_old_ones_streams(open_door: Opener) -> None:
    """Whoever holds the old token sees no more."""
    async with open_door(Bot(_echo)) as door:
        talker = await door.session()
        async with aconnect_sse(
            door.client, "GET", f"{talker.path}/events", headers=talker.auth
        ) as source:
            await talker.call("POST", "/token")
            async with asyncio.timeout(10):
                assert [event async for event in source.aiter_sse()] == []


async def test_the_host_decides(open_door: Opener) -> None:
    """`router(runtime, authorize=...)` under a prefix: the host's word instead of tokens."""

    async def authorize(connection: Any, session_id: str | None) -> bool:
        return bool(connection.headers.get("x-user") == "ada")

    def app(runtime: Runtime) -> FastAPI:
        host = FastAPI(lifespan=runtime.lifespan)
        host.include_router(turnwise.router(runtime, authorize=authorize), prefix="/ai")
        return host

    async with open_door(Bot(_echo), app=app) as door:
        ada = {"x-user": "ada"}
        assert (await door.client.post("/ai/sessions")).status_code == 401
        made = await door.client.post("/ai/sessions", headers=ada)
        assert made.headers["location"] == f"/ai/sessions/{made.json()['id']}"
        turns = f"{made.headers['location']}/turns"
        said = await door.client.post(
            turns, json={"text": "hi"}, headers={**ada, "Prefer": "wait=20"}
        )
        assert said.json()["reply"]["text"] == "re hi"
        assert said.headers["location"] == f"{turns}/1"
        refused = await door.client.post(turns, json={"text": "hi"})
        assert refused.status_code == 404


async def test_the_hosts_dependencies_guard_every_route(open_door: Opener) -> None:
    """A dependency that the host puts on the router is asked on the busiest route as well."""
    from fastapi import Depends, HTTPException

    def nobody() -> None:
        raise HTTPException(403)

    def app(runtime: Runtime) -> FastAPI:
        host = FastAPI(lifespan=runtime.lifespan)
        routes = turnwise.router(runtime, authorize=lambda *_: True)
        host.include_router(routes, dependencies=[Depends(nobody)])
        return host

    async with open_door(Bot(_echo), app=app) as door:
        for path in ("/sessions", "/sessions/x/turns", "/sessions/x/reset"):
            response = await door.client.post(path, json={"text": "hi"})
            assert response.status_code == 403


# Health, metrics, faults


async def test_health_and_metrics(open_door: Opener) -> None:
    """Live, ready, and numbers of what happened."""
    async with open_door(Bot(_echo)) as door:
        await (await door.session()).say("hi")
        assert (await door.client.get("/health/live")).json() == {"status": "ok"}
        assert (await door.client.get("/health/ready")).json() == {"status": "ok"}
        text = (await door.client.get("/metrics")).text
        assert 'turnwise_turns_total{outcome="completed"}' in text
        for name in ("queue_wait", "turn", "first_delta"):
            assert f"turnwise_{name}_seconds_count" in text
        assert "turnwise_store_batch_size_sum" in text
        assert "turnwise_open_streams" in text


async def test_a_locked_store(open_sqlite_door: Opener) -> None:
    """Another process holds the write lock: 503 with Retry-After within 2 s, then it heals."""
    import apsw

    async with open_sqlite_door(Bot(_echo)) as door:
        talker = await door.session()
        await talker.say("before")
        other = apsw.Connection(str(door.runtime.store.path))  # type: ignore[attr-defined]
        other.execute("BEGIN IMMEDIATE")
        try:
            async with asyncio.timeout(5):
                response = await talker.call("POST", "/turns", json={"text": "hi"})
            assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
            assert "retry-after" in response.headers
            assert (await door.client.get("/health/ready")).status_code == 503
            assert (await door.client.get("/health/live")).status_code == 200
            assert await talker.history() == ["before", "re before"]
        finally:
            other.execute("ROLLBACK")
            other.close()
        assert (await talker.say("after"))["status"] == "completed"
        assert await talker.history() == ["before", "re before", "after", "re after"]


async def test_a_client_that_leaves_changes_nothing(open_door: Opener) -> None:
    """A waiting request that is dropped: its turn is answered all the same."""
    held, bot = holding()
    async with open_door(bot) as door:
        talker = await door.session()
        waiting = asyncio.create_task(
            talker.call("POST", "/turns", json={"text": "abcdefgh"}, headers={"Prefer": "wait=20"})
        )
        while not (await talker.call("GET", "/turns")).json()["turns"]:
            await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        held.set()
        turn = (await talker.call("GET", "/turns/1", headers={"Prefer": "wait=20"})).json()
        assert turn["reply"]["text"] == "abcdefgh"


async def test_an_id_with_a_slash(open_sqlite_door: Opener) -> None:
    """It is what a program may call a session; over HTTP the slash is escaped, as in any address.
    It is not another session's path."""
    held, bot = holding()
    held.set()
    async with open_sqlite_door(bot, api_keys="the-key") as door:
        key = {"Authorization": "Bearer the-key"}
        await door.runtime.ask("ada/1", "hello", timeout=20)
        for id in ("ada%2F1", "ada%2f1"):
            found = await door.client.get(f"/sessions/{id}/messages", headers=key)
            assert found.json()["messages"][0]["text"] == "hello"
        assert (await door.client.get("/sessions/ada%2F1", headers=key)).json()["id"] == "ada/1"
        said = await door.client.post(
            "/sessions/ada%2F1/turns", json={"text": "again"}, headers={**key, "Prefer": "wait=20"}
        )
        assert said.json()["n"] == 2
        where = await door.client.get(said.headers["location"], headers=key)
        assert where.json()["message"]["text"] == "again"
        for path in ("/sessions/ada/1", "/sessions/ada%252F1", "/sessions%2Fada/messages"):
            assert (await door.client.get(path, headers=key)).status_code == 404
