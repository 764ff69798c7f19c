"""Doors for other people's clients: requests that are repeated, odd, or about another's chat."""

from __future__ import annotations

import asyncio
import json
import time
from random import Random
from typing import Any

import httpx
import jwt
import pytest

import bots
from conftest import Door, Opener, serving
from test_protocols import ADA, BOB, GIVEN, KEY, asks, datas, run_in, user
from turnwise import Ask, Bot, Runtime, Settings, Turn
from turnwise.conversation.events import Event
from turnwise.conversation.streamed_text import StreamedText
from turnwise.protocols.langgraph.ids import checkpoint_id, run_id
from turnwise.protocols.openai.ids import response_id
from turnwise.server.app import create_app

LOGIN = "a secret that is long enough for HS256"
AGAIN = {"x-stainless-retry-count": "1"}


async def posted(door: Door, path: str, body: Any, headers: Any = ADA) -> Any:
    return (await door.client.post(path, json=body, headers=headers)).json()


async def turns_of(door: Door, name: str, owner: str = "ada") -> list[str]:
    session = door.runtime.session_id(name, owner)
    found, _ = await door.runtime.gateway.turns(session)
    return [f"{one.message.text if one.message else ''} {one.status}" for one in found]


async def test_an_id_of_ours_is_never_a_name(open_sqlite_door: Opener) -> None:
    """Who calls a chat of the own like the id of another's session gets nothing of that session:
    neither its turns by their ids, nor its runs."""
    async with open_sqlite_door(bots.clients, **GIVEN) as door:
        await posted(door, "/openai/v1/responses", {"conversation": "secret", "input": "mine"})
        theirs = door.runtime.session_id("secret", "ada")
        for path, body in asks("x", theirs).values():
            assert (await door.client.post(path, json=body, headers=BOB)).status_code == 200
        response = f"/openai/v1/responses/{response_id(theirs, 1)}"
        run = f"1.{theirs}".encode().hex()
        for method, path in (
            ("GET", response), ("GET", f"{response}?stream=true"), ("POST", f"{response}/cancel"),
            ("GET", f"{response}/input_items"), ("DELETE", response),
            ("GET", f"/ai-sdk/chat/{run}/stream?startIndex=0"),
        ):  # fmt: skip
            answer = await door.client.request(method, path, headers=BOB)
            assert answer.status_code == 404, (method, path)
        body = {"previous_response_id": response_id(theirs, 1), "input": "x"}
        refused = await door.client.post("/openai/v1/responses", json=body, headers=BOB)
        assert refused.status_code == 404
        assert await turns_of(door, "secret") == ["mine completed"]


@pytest.mark.parametrize("how", ["rollback", "checkpoint"])
async def test_a_run_that_takes_back_is_sent_twice(open_sqlite_door: Opener, how: str) -> None:
    """It is one turn: what it takes back was found by what was there, and is found no more."""
    async with open_sqlite_door(bots.clients, **GIVEN) as door:
        path = "/langgraph/threads/t/runs"
        first = {"input": {"messages": [{"type": "human", "content": "count 3", "id": "m1"}]}}
        more = {"if_not_exists": "create"}
        await posted(door, f"{path}/wait", {**first, **more})
        session = door.runtime.session_id("t", "ada")
        second = {"input": {"messages": [{"type": "human", "content": "count 30", "id": "m2"}]}}
        if how == "rollback":
            await posted(door, path, {**second, "multitask_strategy": "enqueue"})
            given: dict[str, Any] = {"multitask_strategy": "rollback"}
        else:
            given = {"checkpoint_id": checkpoint_id(session, 0)}
        third = {"input": {"messages": [{"type": "human", "content": "hello", "id": "m3"}]}}
        runs = [(await posted(door, path, {**third, **given}))["run_id"] for _ in range(3)]
        assert len(set(runs)) == 1
        other = {"input": {"messages": [{"type": "human", "content": "other", "id": "m4"}]}}
        assert (await posted(door, path, other))["run_id"] != runs[0]


async def test_repeats_without_a_key(open_door: Opener) -> None:
    """The package sends a request once more, with its count in a header: whatever the request, and
    whoever sends it, there is one turn; two requests of the same words are two."""
    async with open_door(bots.clients, **GIVEN) as door:
        first = await posted(door, "/openai/v1/responses", {"conversation": "c", "input": "one"})
        await posted(door, "/openai/v1/responses", {"conversation": "c", "input": "two"})
        said = [{"role": "user", "content": "hello"}]
        named = {"X-Conversation-Id": "d"}
        requests: list[tuple[str, Any, Any]] = [
            ("responses", {"input": "alone"}, ADA),
            ("responses", {"input": "alone", "store": False}, ADA),
            ("responses", {"input": "alone"}, KEY),
            ("responses", {"previous_response_id": first["id"], "input": "fork"}, ADA),
            ("responses", {"conversation": "e", "input": "named"}, ADA),
            ("chat/completions", {"messages": said}, ADA),
            ("chat/completions", {"messages": said}, {**ADA, **named}),
        ]
        for path, body, headers in requests:
            before = await posted(door, f"/openai/v1/{path}", body, headers)
            again = await posted(door, f"/openai/v1/{path}", body, {**headers, **AGAIN})
            assert again["id"] == before["id"], (path, body)
            other = await posted(door, f"/openai/v1/{path}", body, headers)
            assert other["id"] != before["id"], (path, body)


@pytest.mark.parametrize("name", ["openai", "ai-sdk", "ag-ui", "langgraph"])
async def test_repeats_while_the_first_is_on_its_way(open_door: Opener, name: str) -> None:
    """Clients whose line was cut early ask again while their first request is worked on: at
    whatever moment that comes, it is the same turn, and no request is refused."""
    random = Random(name)
    async with open_door(bots.clients, **GIVEN) as door:
        path, body = asks("before", "chat", "m0")[name]
        await door.client.post(path, json=body, headers=ADA)
        for n in range(1, 9):
            path, body = asks(f"text {n}", "chat", f"m{n}")[name]
            headers = {**ADA, "Idempotency-Key": f"k{n}"} if name == "openai" else ADA
            posts = []
            for _ in range(12):
                post = door.client.post(path, json=body, headers=headers)
                posts.append(asyncio.ensure_future(post))
                for _ in range(random.randrange(40)):
                    await asyncio.sleep(0)
            assert {one.status_code for one in await asyncio.gather(*posts)} == {200}
        assert len(await turns_of(door, "chat")) == 9


async def test_an_answer_is_no_repeat_of_another(open_sqlite_door: Opener) -> None:
    """Two answers have no text; a repeated request with the second gets the second's turn."""

    async def reply(turn: Turn) -> Any:
        if turn.answers:
            return Ask(f"B after {turn.answers[0].value}?", choices=["yes", "no"])
        return Ask("A?", choices=["yes", "no"])

    async with open_sqlite_door(Bot(reply), **GIVEN) as door:
        path = "/openai/v1/responses"
        found = await posted(door, path, {"conversation": "c", "input": "go"})
        for value in ("yes", "no"):
            call = found["output"][-1]["call_id"]
            result = {"type": "function_call_output", "call_id": call, "output": value}
            body = {"conversation": "c", "input": [result]}
            found = await posted(door, path, body, {**ADA, **AGAIN})
            assert found["output"][0]["content"][0]["text"] == f"B after {value}?"


async def test_what_refuses_a_stream_does_so_before_the_message(open_sqlite_door: Opener) -> None:
    """A client that is asked to send again has left nothing behind."""
    async with open_sqlite_door(bots.clients, **GIVEN, max_streams=1) as door:
        path, body = asks("hi", "chat")["openai"]
        long = {"conversation": "busy", "input": "count 50", "stream": True}
        async with door.client.stream("POST", path, json=long, headers=ADA) as stream:
            pieces = stream.aiter_bytes()
            await anext(pieces)
            for name, (path, body) in asks("hi", "chat").items():
                answer = await door.client.post(path, json=body, headers=ADA)
                assert answer.status_code == 429, name
        await door.runtime.stop_turns("busy", owner="ada")
        assert len((await door.runtime.sessions("ada")).sessions) == 1


async def test_a_stop_by_leaving(open_sqlite_door: Opener) -> None:
    """LangGraph's page stops a run by leaving it, also if it says something else at once."""
    async with open_sqlite_door(bots.clients, **GIVEN) as door:
        path, body = asks("count 100", "chat")["langgraph"]
        body = {**body, "on_disconnect": "cancel", "stream_mode": "messages-tuple"}
        async with door.client.stream("POST", path, json=body, headers=ADA) as stream:
            pieces = stream.aiter_bytes()
            for _ in range(3):
                await anext(pieces)
        path, body = asks("next", "chat", "m2")["langgraph"]
        answer = await door.client.post(path, json=body, headers=ADA)
        assert answer.status_code == 200
        assert await turns_of(door, "chat") == ["count 100 cancelled", "next completed"]


@pytest.mark.parametrize("name", ["openai", "ai-sdk", "ag-ui", "langgraph"])
async def test_a_turn_that_is_handed_over(sqlite_url: str, name: str) -> None:
    """A process that stops gives its turn back, and the attempt does not count: the next one says
    everything again, and no client shows it twice."""
    settings = Settings(_env_file=None, grace=0.0, **GIVEN)
    async with Runtime(bots.clients, sqlite_url, settings=settings) as first:
        second = Runtime(bots.clients, sqlite_url, settings=settings)
        async with (
            serving(create_app(second), lifespan="on") as url,
            httpx.AsyncClient(base_url=url, timeout=30) as client,
        ):
            await first.ask("chat", "hello", owner="ada")
            session = first.session_id("chat", "ada")
            submitted = await first.gateway.submit(session, "count 12", owner="ada")
            n = submitted.turn.n
            match name:
                case "openai":
                    path = f"/openai/v1/responses/{response_id(session, n)}?stream=true"
                    request = client.build_request("GET", path, headers=ADA)
                case "ai-sdk":
                    path = "/ai-sdk/chat/chat/stream"
                    headers = {**ADA, "x-ai-sdk-version": "7"}
                    request = client.build_request("GET", path, headers=headers)
                case "ag-ui":
                    body = run_in("chat", "r")
                    request = client.build_request("POST", "/ag-ui", json=body, headers=ADA)
                case _:
                    path = f"/langgraph/threads/chat/runs/{run_id(session, n)}/stream"
                    path += "?stream_mode=values&stream_mode=messages-tuple"
                    request = client.build_request("GET", path, headers=ADA)
            response = await client.send(request, stream=True)
            text = ""
            stopping: asyncio.Task[None] | None = None
            async for piece in response.aiter_text():
                text += piece
                if stopping is None and '"2 "' in text:
                    stopping = asyncio.ensure_future(first.stop())
            assert stopping is not None
            await stopping
            events = datas(text)
            whole = "".join(f"{i} " for i in range(12))
            if name == "openai":
                (item,) = events[-1]["response"]["output"]
                assert item["content"][0]["text"] == whole
            elif name == "ag-ui":
                snapshots = [one for one in events if one["type"] == "MESSAGES_SNAPSHOT"]
                assert all(len(one["messages"]) == 3 for one in snapshots)
            elif name == "langgraph":
                values = [one for one in events if isinstance(one, dict) and "messages" in one]
                assert values[-1]["messages"][-1]["content"] == whole
            else:
                assert {"type": "reset-step"} in events


async def test_text_that_is_said_again_is_heard_once() -> None:
    """Also when the attempt does not count, because the turn was handed over."""
    told, heard = StreamedText(), ""
    for body in (
        {"type": "turn.started", "attempt": 1}, {"type": "delta", "text": "one ", "index": 0},
        {"type": "turn.started", "attempt": 1}, {"type": "delta", "text": "one ", "index": 0},
        {"type": "delta", "text": "two", "index": 0},
    ):  # fmt: skip
        tail = json.dumps({name: one for name, one in body.items() if name != "type"})[1:]
        heard += told.hear(Event(1, str(body["type"]), 1, tail.encode()))
    assert heard == "one two"


@pytest.mark.parametrize("name", ["openai", "ai-sdk", "ag-ui", "langgraph"])
async def test_a_resume_behind_what_is_left(open_sqlite_door: Opener, name: str) -> None:
    """When the log is gone there are fewer chunks than a cursor has counted; the end comes all the
    same, and a merged turn ends as the one that answered it."""
    async with open_sqlite_door(bots.clients, **GIVEN, retention=0.0, when_busy="merge") as door:
        path, body = asks("count 6", "chat")[name]
        live = asyncio.ensure_future(door.client.post(path, json=body, headers=ADA))
        while not (await door.runtime.sessions("ada")).sessions:
            await asyncio.sleep(0.01)
        sent = []
        for i, word in enumerate(("a", "b"), 2):
            path, body = asks(word, "chat", f"m{i}")[name]
            post = door.client.post(path, json=body, headers=ADA)
            sent.append(asyncio.ensure_future(post))
            session = door.runtime.session_id("chat", "ada")
            while len((await door.runtime.gateway.history(session)).open) < i:
                await asyncio.sleep(0.01)
        first, _, merged = await asyncio.gather(live, *sent)
        await asyncio.sleep(0.01)
        await door.runtime.store.sweep(retention=0.0)
        for n, answer in ((1, first), (3, merged)):
            match name:
                case "openai":
                    path = f"/openai/v1/responses/{response_id(session, n)}?stream=true"
                    path += "&starting_after=15"
                    again = await door.client.get(path, headers=ADA)
                case "ai-sdk":
                    run = answer.headers["x-workflow-run-id"]
                    path = f"/ai-sdk/chat/{run}/stream?startIndex=15"
                    again = await door.client.get(path, headers=ADA)
                case "ag-ui":
                    body = run_in("chat", "run-m1" if n == 1 else "run-m3")
                    again = await door.client.post("/ag-ui", json=body, headers=ADA)
                case _:
                    path = f"/langgraph{answer.headers['location']}"
                    again = await door.client.get(path, headers={**ADA, "Last-Event-ID": "15"})
            assert again.status_code == 200
            last = datas(again.text)[-1]
            if name == "openai":
                assert last["type"] == "response.completed"
                assert last["response"]["output"]
            elif name == "ai-sdk":
                assert (last["type"], last["finishReason"]) == ("finish", "stop")
            elif name == "ag-ui":
                assert last["type"] == "RUN_FINISHED"
            else:
                assert last is None


async def test_a_withdrawn_message_keeps_its_note(open_door: Opener) -> None:
    """It comes back under the client's id, and can be sent once more."""
    async with open_door(bots.clients, **GIVEN) as door:
        path, body = asks("count 30", "chat")["ai-sdk"]
        running = asyncio.ensure_future(door.client.post(path, json=body, headers=ADA))
        session = door.runtime.session_id("chat", "ada")
        while not (await door.runtime.sessions("ada")).sessions:
            await asyncio.sleep(0.01)
        path, body = asks("later", "chat", "m2")["ai-sdk"]
        waiting = asyncio.ensure_future(door.client.post(path, json=body, headers=ADA))
        while len((await door.runtime.gateway.history(session)).open) < 2:
            await asyncio.sleep(0.01)
        await door.runtime.gateway.cancel(session, 2)
        assert '"abort"' in (await waiting).text
        loaded = (await door.client.get("/ai-sdk/chat/chat/messages", headers=ADA)).json()
        assert [one["id"] for one in loaded if one["role"] == "user"] == ["m1", "m2"]
        await door.runtime.gateway.cancel(session, 1)
        await running
        again = await door.client.post(path, json=body, headers=ADA)
        assert "1: later" in again.text


async def test_a_page_whose_first_message_was_lost(open_sqlite_door: Opener) -> None:
    """It regenerates what the server has never had."""
    async with open_sqlite_door(bots.clients, **GIVEN) as door:
        body = {"id": "c", "messages": [user("hi")], "trigger": "regenerate-message"}
        answer = await door.client.post("/ai-sdk/chat", json=body, headers=ADA)
        assert "1: hi" in answer.text


@pytest.mark.parametrize("version", ["5", "6"])
async def test_an_early_page_gets_no_approval(open_sqlite_door: Opener, version: str) -> None:
    """AI SDK 5 does not know them, and one chunk that it does not know fails its whole message."""
    async with open_sqlite_door(bots.clients, **GIVEN) as door:
        path, body = asks("ask", "chat")["ai-sdk"]
        headers = {**ADA, "x-ai-sdk-version": version}
        answer = await door.client.post(path, json=body, headers=headers)
        assert ("tool-approval-request" in answer.text) == (version == "6")


async def test_new_sessions_are_counted_at_every_door(open_sqlite_door: Opener) -> None:
    """Those that are made by naming them too."""
    given: dict[str, Any] = {"jwt_secret": LOGIN, "sessions_per_minute": 2}
    async with open_sqlite_door(bots.clients, **given) as door:
        token = jwt.encode({"sub": "ada", "exp": time.time() + 60}, LOGIN, algorithm="HS256")
        headers = {"Authorization": f"Bearer {token}"}
        statuses = []
        for i in range(4):
            for path, body in (
                ("/openai/v1/responses", {"conversation": f"c{i}", "input": "hi"}),
                ("/pages/n8n", {"sessionId": f"n{i}", "chatInput": "hi"}),
            ):
                answer = await door.client.post(path, json=body, headers=headers)
                statuses.append(answer.status_code)
        assert statuses == [200, 200] + [429] * 6
        chats = (await door.client.get("/ai-sdk/chats", headers=headers)).json()["chats"]
        assert {one["id"] for one in chats} == {"c0", "n0"}


ODD: list[Any] = [
    None,
    5,
    "x",
    [],
    {},
    [None],
    [5],
    ["x"],
    [{}],
    {"role": {}},
    [[]],
    "\ud800",
    True,
]
PATHS = [
    ("/openai/v1/responses", "input"), ("/openai/v1/responses", "metadata"),
    ("/openai/v1/responses", "conversation"), ("/openai/v1/chat/completions", "messages"),
    ("/openai/v1/conversations", "items"), ("/ai-sdk/chat", "messages"), ("/ai-sdk/chat", "id"),
    ("/ag-ui", "messages"), ("/ag-ui", "resume"), ("/ag-ui", "tools"),
    ("/langgraph/threads", "thread_id"), ("/langgraph/threads/t/runs/wait", "input"),
    ("/langgraph/threads/t/runs/wait", "checkpoint"), ("/langgraph/threads/t/state", "values"),
    ("/langgraph/threads/t/runs/wait", "command"), ("/langgraph/threads/t/history", "before"),
    ("/pages/n8n", "sessionId"), ("/pages/deep-chat", "messages"),
]  # fmt: skip


async def test_odd_bodies_are_refused(open_sqlite_door: Opener) -> None:
    """Whatever is in a field that clients fill: an answer below 500, in the door's own form."""
    async with open_sqlite_door(bots.clients, **GIVEN) as door:
        await door.client.post("/langgraph/threads", json={"thread_id": "t"}, headers=ADA)
        parts: list[Any] = [{"type": kind, kind: "x"} for kind in ("file", "input_audio", "image")]
        parts += [{"type": "image", "source": 5}, {"type": {}}, {"type": "image_url"}]
        odd = [*ODD, *([{"role": "user", "content": [part], "id": 7}] for part in parts)]
        odd += [{"messages": one} for one in odd] + [{"configurable": {}}, {"checkpoint_id": None}]
        for path, name in PATHS:
            for value in odd:
                body = {"threadId": "t", "runId": "r", "id": "c", "input": "hi", name: value}
                content = json.dumps(body).encode("utf-8", "surrogatepass")
                headers = {**ADA, "Content-Type": "application/json"}
                answer = await door.client.post(path, content=content, headers=headers)
                assert answer.status_code < 500, (path, name, value, answer.text)


async def test_odd_numbers_are_refused(open_sqlite_door: Opener) -> None:
    """In queries and headers: not even digits are numbers always."""
    async with open_sqlite_door(bots.clients, **GIVEN) as door:
        made = await posted(door, "/openai/v1/responses", {"conversation": "t", "input": "hi"})
        thread = door.runtime.session_id("t", "ada")
        for odd in ("²", "9" * 5000, "-", "x", "", "1e9", "-5"):
            for path in (
                f"/openai/v1/responses/{made['id']}?stream=true&starting_after={odd}",
                f"/openai/v1/conversations/{thread}/items?limit={odd}",
                f"/langgraph/threads/t/runs?limit={odd}&offset={odd}",
                f"/langgraph/threads/t/history?limit={odd}",
                f"/ai-sdk/chat/{f'1.{thread}'.encode().hex()}/stream?startIndex={odd}",
            ):
                answer = await door.client.get(path, headers=ADA)
                assert answer.status_code < 500, path
        for name in ("x-stainless-retry-count", "x-ai-sdk-version"):
            for path, body in asks("hi", "t", "m9").values():
                headers = {**ADA, name: "x"}
                answer = await door.client.post(path, json=body, headers=headers)
                assert answer.status_code < 500, (name, path)
