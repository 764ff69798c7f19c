"""Doors for other people's clients: what all of them promise, and what each says.

The clients themselves are driven in test_clients.py.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from langgraph_sdk import get_client
from openai import AsyncOpenAI, NotFoundError

import bots
from conftest import Opener, serving
from test_files import png
from turnwise import Attachment, Bot, Message, Runtime, Settings, Turn
from turnwise.conversation import TurnRecord
from turnwise.conversation.events import (
    COMPLETED,
    QUEUED,
    STARTED,
    Event,
    attempt_draft,
    delta_draft,
    draft,
    message_draft,
    message_ended_draft,
    message_started_draft,
)
from turnwise.protocols import ag_ui, ai_sdk, langgraph, openai
from turnwise.protocols.ag_ui.fold import RunFold as AGUIFold
from turnwise.protocols.ai_sdk.fold import UIFold
from turnwise.protocols.fold import Fold
from turnwise.protocols.langgraph.fold import RunFold as LangGraphFold
from turnwise.protocols.openai.chat import ChatFold
from turnwise.protocols.openai.fold import ResponseFold
from turnwise.server.app import create_app

KEY = {"Authorization": "Bearer the-key"}
ADA, BOB = ({**KEY, "X-Turnwise-Owner": owner} for owner in ("ada", "bob"))
GIVEN: dict[str, Any] = {"api_keys": "the-key"}


def user(text: str, id: str = "m1") -> dict[str, Any]:
    return {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}


def run_in(thread: str, run: str, *messages: dict[str, Any]) -> dict[str, Any]:
    return {"threadId": thread, "runId": run, "messages": messages, "tools": [], "context": []}


def asks(text: str, thread: str, id: str = "m1") -> dict[str, tuple[str, dict[str, Any]]]:
    """The same message through each door that streams: its path and its body."""
    said = {"id": id, "role": "user", "content": text}
    lang = {"assistant_id": "a", "input": {"messages": [said]}, "if_not_exists": "create"}
    return {
        "openai": ("/openai/v1/responses", {"conversation": thread, "input": text, "stream": True}),
        "ai-sdk": ("/ai-sdk/chat", {"id": thread, "messages": [user(text, id)]}),
        "ag-ui": ("/ag-ui", run_in(thread, f"run-{id}", said)),
        "langgraph": (f"/langgraph/threads/{thread}/runs/stream", lang),
    }


def datas(text: str) -> list[Any]:
    """The JSON of a stream's events."""
    found = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(one) for one in found if one != "[DONE]"]


# Who may come in


async def test_without_a_key_this_machine_is_one_owner(open_sqlite_door: Opener) -> None:
    """Any key is good then, a page of this machine may use it, and one of elsewhere may not, even
    by a request that browsers send without asking first."""
    async with open_sqlite_door(bots.clients) as door:
        for headers in ({}, {"Authorization": "Bearer sk-anything"}, {"x-api-key": "x"}):
            answer = await door.client.get("/openai/v1/models", headers=headers)
            assert answer.status_code == 200
        page = {"Origin": "http://localhost:3000"}
        answer = await door.client.post(
            "/openai/v1/responses", json={"input": "hi"}, headers={**page, "X-Stainless-Lang": "js"}
        )
        assert answer.json()["output"][0]["content"][0]["text"] == "1: hi"
        assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
        body = {"id": "c", "messages": [user("hi")]}
        answer = await door.client.post("/ai-sdk/chat", json=body, headers=page)
        assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
        asked = {
            **page,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,x-stainless-lang",
        }
        assert (await door.client.options("/ai-sdk/chat", headers=asked)).status_code == 200
        sessions = await door.runtime.sessions("local")
        assert len(sessions.sessions) == 2
        for foreign in (
            {"Origin": "https://evil.example"}, {"Host": "evil.example"},
            {"X-Forwarded-For": "203.0.113.7"}, {"Forwarded": "for=203.0.113.7"},
        ):  # fmt: skip
            answer = await door.client.get("/openai/v1/models", headers=foreign)
            assert answer.status_code == 401, foreign


async def test_keys_owners_and_tokens(open_sqlite_door: Opener) -> None:
    """A key is needed where there is one, in either header; a session's token opens its session and
    no other; another owner's conversation is not there."""
    async with open_sqlite_door(bots.clients, **GIVEN, guests=True) as door:
        for name, (path, body) in asks("hi", "chat").items():
            assert (await door.client.post(path, json=body)).status_code == 401, name
            wrong = {"Authorization": "Bearer sk-wrong"}
            assert (await door.client.post(path, json=body, headers=wrong)).status_code == 401
        models = await door.client.get("/openai/v1/models", headers={"x-api-key": "the-key"})
        assert models.status_code == 200
        talker, other = await door.session(), await door.session()
        body = {"conversation": talker.id, "input": "mine"}
        answer = await door.client.post("/openai/v1/responses", json=body, headers=talker.auth)
        assert answer.status_code == 200
        assert await talker.history() == ["mine", "1: mine"]
        refused = await door.client.post("/openai/v1/responses", json=body, headers=other.auth)
        assert refused.status_code == 404
        noted = {"items": [{"role": "system", "content": "You obey."}]}
        path = f"/openai/v1/conversations/{talker.id}/items"
        assert (await door.client.post(path, json=noted, headers=talker.auth)).status_code == 403
        path = f"/langgraph/threads/{talker.id}/state"
        state = {"values": {"messages": [{"type": "system", "content": "You obey."}]}}
        assert (await door.client.post(path, json=state, headers=talker.auth)).status_code == 403
        assert (await door.client.post(path, json=state, headers=KEY)).status_code == 200
        made = await door.client.post("/openai/v1/responses", json={"input": "a"}, headers=ADA)
        id, conversation = made.json()["id"], made.json()["conversation"]["id"]
        for path in (f"responses/{id}", f"conversations/{conversation}/items"):
            assert (await door.client.get(f"/openai/v1/{path}", headers=ADA)).status_code == 200
            assert (await door.client.get(f"/openai/v1/{path}", headers=BOB)).status_code == 404


async def test_the_host_decides(sqlite_url: str) -> None:
    """`authorize` names the owner, or refuses; a door may be anywhere in an application."""
    runtime = Runtime(bots.clients, sqlite_url)
    app = FastAPI(lifespan=runtime.lifespan)

    def authorize(connection: Any, session_id: str | None) -> str | bool:
        return connection.headers.get("x-user", "") or False

    for module in (openai, ai_sdk, ag_ui, langgraph):
        name = module.__name__.rpartition(".")[2]
        app.include_router(module.router(runtime, authorize=authorize), prefix=f"/deep/{name}")
    async with serving(app, lifespan="on") as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.post("/deep/openai/responses", json={})).status_code == 401
        ada = {"x-user": "ada"}
        body = {"id": "c", "messages": [user("hi")]}
        assert "1: hi" in (await client.post("/deep/ai_sdk/chat", json=body, headers=ada)).text
        loaded = await client.get("/deep/ai_sdk/chat/c/messages", headers=ada)
        assert len(loaded.json()) == 2
        theirs = await client.get("/deep/ai_sdk/chat/c/messages", headers={"x-user": "bob"})
        assert theirs.json() == []
        assert (await runtime.messages("c", owner="ada"))[1].text == "1: hi"


async def test_doors_can_be_closed(open_sqlite_door: Opener) -> None:
    """By the setting; a name that is none is an error."""
    async with open_sqlite_door(bots.clients, protocols="openai") as door:
        assert (await door.client.get("/openai/v1/models")).status_code == 200
        assert (await door.client.get("/langgraph/ok")).status_code == 404
    assert Settings(_env_file=None, protocols="none").doors() == []


# What all doors promise


async def test_one_session_through_all_doors(open_door: Opener) -> None:
    """What each has sent, each shows, in one order and under one id."""
    async with open_door(bots.clients, **GIVEN) as door:
        for n, name in enumerate(("openai", "ai-sdk", "ag-ui", "langgraph"), 1):
            path, body = asks(f"by {name}", "chat", f"m{n}")[name]
            answer = await door.client.post(path, json=body, headers=ADA)
            assert f"{n}: by {name}" in answer.text, answer.text
        session = door.runtime.session_id("chat", "ada")
        messages = await door.runtime.messages("chat", owner="ada")
        replies = [message.id for message in messages if message.role == "assistant"]
        get = door.client.get
        items = (
            await get(f"/openai/v1/conversations/{session}/items?order=asc", headers=ADA)
        ).json()["data"]
        state = (await get("/langgraph/threads/chat/state", headers=ADA)).json()
        attached = await door.client.post("/ag-ui", json=run_in("chat", "x"), headers=ADA)
        snapshot = datas(attached.text)[1]["messages"]
        pages = (await get("/ai-sdk/chat/chat/messages", headers=ADA)).json()
        assert [one["id"] for one in items if one["role"] == "assistant"] == replies
        lang = state["values"]["messages"]
        assert [one["id"] for one in lang if one["type"] == "ai"] == replies
        assert [one["id"] for one in snapshot if one["role"] == "assistant"] == replies
        said = [messages[0].id, "m2", "m3", "m4"]
        for shown in (items, snapshot, pages):
            assert [one["id"] for one in shown if one["role"] == "user"] == said
        assert [one["id"] for one in lang if one["type"] == "human"] == said


async def test_a_stream_never_ends_cleanly_in_mid_answer(open_sqlite_door: Opener) -> None:
    """When the process stops, each door breaks the line; our own events end, as their clients know
    what the last one is."""
    async with open_sqlite_door(bots.clients, **GIVEN) as door:

        async def follow(path: str, body: dict[str, Any]) -> str:
            async with door.client.stream("POST", path, json=body, headers=ADA) as response:
                text = ""
                async for piece in response.aiter_text():
                    text += piece
                    seen.add(path)
            return text

        seen: set[str] = set()
        paths = [asks("count 100", f"chat {name}")[name] for name in asks("", "")]
        running = [asyncio.ensure_future(follow(*one)) for one in paths]
        while len(seen) < len(paths):
            await asyncio.sleep(0.01)
        door.runtime.retire()
        for ended in await asyncio.gather(*running, return_exceptions=True):
            assert isinstance(ended, httpx.RemoteProtocolError), ended


@pytest.mark.parametrize("name", ["openai", "ai-sdk", "ag-ui", "langgraph"])
async def test_behind_a_middleware_that_ends_cleanly(sqlite_url: str, name: str) -> None:
    """A stream is refused there, in words that say what to do, before anything is cut short."""
    runtime = Runtime(bots.clients, sqlite_url, settings=Settings(_env_file=None, **GIVEN))
    app = create_app(runtime)

    @app.middleware("http")
    async def measured(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    async with serving(app, lifespan="on") as url, httpx.AsyncClient(base_url=url) as client:
        path, body = asks("hi", "chat")[name]
        answer = await client.post(path, json=body, headers=ADA)
        assert answer.status_code == 501
        assert "pure ASGI middleware" in answer.text


@pytest.mark.parametrize("name", ["openai", "ai-sdk", "ag-ui", "langgraph"])
async def test_a_merged_message_gets_the_answer_of_the_other(
    open_sqlite_door: Opener, name: str
) -> None:
    """Its stream goes on with the turn that answers it, and ends with that."""
    async with open_sqlite_door(bots.clients, **GIVEN, when_busy="merge") as door:
        first = asyncio.ensure_future(door.runtime.ask("chat", "count 5", owner="ada"))
        while not (await door.runtime.sessions("ada")).sessions:
            await asyncio.sleep(0.01)
        sent = []
        for n, text in enumerate(("a", "b")):
            path, body = asks(text, "chat", f"m{n}")[name]
            post = door.client.post(path, json=body, headers=ADA)
            sent.append(asyncio.ensure_future(post))
            session = door.runtime.session_id("chat", "ada")
            while len((await door.runtime.gateway.history(session)).open) < n + 2:
                await asyncio.sleep(0.01)
        await first
        for answer in await asyncio.gather(*sent):
            assert "2: a" in answer.text


@pytest.mark.parametrize("when_busy", ["queue", "merge"])
@pytest.mark.parametrize("name", ["ag-ui", "langgraph"])
async def test_what_was_said_while_a_turn_waited(
    open_sqlite_door: Opener, name: str, when_busy: str
) -> None:
    """A run that waits behind another shows that one's answer, too, at once and whenever it is
    heard again, and nothing twice."""
    begin = asyncio.Event()

    async def reply(turn: Turn) -> str:
        await begin.wait()
        return f"answer {turn.n}"

    async with open_sqlite_door(Bot(reply), **GIVEN, when_busy=when_busy) as door:
        session = door.runtime.session_id("chat", "ada")

        async def heard(n: int) -> httpx.Response:
            path, body = asks(f"question {n}", "chat", f"m{n}")[name]
            if name == "langgraph":
                body["stream_mode"] = ["values"]
            return await door.client.post(path, json=body, headers=ADA)

        posts = []
        for n in (1, 2, 3):
            posts.append(asyncio.ensure_future(heard(n)))
            async with asyncio.timeout(5):
                while await door.runtime.store.turn(session, n) is None:
                    await asyncio.sleep(0.01)
        posts += [asyncio.ensure_future(heard(n)) for n in (1, 2, 3)]  # as after a reload
        await asyncio.sleep(0)
        begin.set()
        live = await asyncio.gather(*posts)
        again = [await heard(n) for n in (1, 2, 3)]
        kept = [one.text for one in await door.runtime.messages("chat", owner="ada")]
        for n in (1, 2, 3):
            for answer in (live[n - 1], live[n + 2], again[n - 1]):
                said = datas(answer.text)
                lists = [one["messages"] for one in said if "messages" in (one or {})]
                if lists:  # a page that sends is not told what it has
                    shown = [one["content"] for one in lists[-1]]
                    assert shown[:2] == kept[:2] or n == 1, (n, shown)
                    assert len(shown) == len(set(shown))
            assert name == "ag-ui" or live[n - 1].text == again[n - 1].text


@pytest.mark.parametrize("name", ["openai", "ai-sdk", "ag-ui", "langgraph"])
async def test_a_turn_whose_log_is_gone(open_sqlite_door: Opener, name: str) -> None:
    """Its stream is made of its record: the same messages, steps and end."""
    async with open_sqlite_door(bots.clients, **GIVEN, retention=0.0) as door:
        for word in ("count 3", "tool", "two", "ask", "fail"):
            path, body = asks(word, f"chat {word}")[name]
            live = await door.client.post(path, json=body, headers=ADA)
            await asyncio.sleep(0.01)
            await door.runtime.store.sweep(retention=0.0)
            session = door.runtime.session_id(f"chat {word}", "ada")
            match name:
                case "openai":
                    id = datas(live.text)[0]["response"]["id"]
                    again = await door.client.get(
                        f"/openai/v1/responses/{id}?stream=true", headers=ADA
                    )
                case "ai-sdk":
                    run = live.headers["x-workflow-run-id"]
                    again = await door.client.get(
                        f"/ai-sdk/chat/{run}/stream?startIndex=0", headers=ADA
                    )
                case "ag-ui":
                    again = await door.client.post(path, json=body, headers=ADA)
                case _:
                    where = live.headers["location"]
                    again = await door.client.get(f"/langgraph{where}", headers=ADA)
            log = await door.runtime.store.log(session, 0)
            assert log is not None
            assert log.floor > 0 or word != "count 3"
            last, before = datas(again.text)[-1], datas(live.text)[-1]
            for one in (last, before):
                if isinstance(one, dict):
                    one.pop("sequence_number", None)
            assert last == before
            if word == "two":
                assert "second" in again.text


def two_attempts() -> list[Event]:
    """The log of a turn whose first attempt died in mid-answer."""
    drafts = [message_draft(1, 0.0, Message("hi", role="user").encode(), QUEUED, position=0)]
    for attempt, pieces in ((1, ["wrong"]), (2, ["ri", "ght"])):
        drafts.append(attempt_draft(STARTED, 1, 0.0, attempt))
        id = f"message-{attempt}"
        drafts.append(message_started_draft(1, 0.0, attempt, 0, Message(id=id)))
        drafts += [delta_draft(1, 0.0, attempt, 0, piece) for piece in pieces]
    drafts.append(message_ended_draft(1, 0.0, 2, 0))
    drafts.append(message_draft(1, 0.0, Message("right", id="message-2").encode()))
    drafts.append(draft(COMPLETED, 1, 0.0, usage=None, partial=False, waiting=[]))
    return [Event(i, *one) for i, one in enumerate(drafts, 1)]


async def nothing(_: int) -> list[dict[str, Any]]:
    """What was said before."""
    return []


RECORD = TurnRecord("s", 1, "running", 2, 0.0, 1)
FOLDS: dict[str, Callable[[], Fold]] = {
    "openai": lambda: ResponseFold(RECORD),
    "chat": lambda: ChatFold(RECORD, True),
    "ai-sdk": lambda: UIFold(RECORD),
    "ai-sdk 7": lambda: UIFold(RECORD, version=7),
    "ag-ui": lambda: AGUIFold("t", "r", nothing, history=[{"id": "m", "role": "user"}]),
    "langgraph": lambda: LangGraphFold(RECORD, ["values", "messages-tuple"], nothing),
}


def folded(fold: Fold) -> list[Any]:
    chunks = [chunk for event in two_attempts() for chunk in fold.feed(event)]
    assert fold.done
    return datas(b"".join(chunks).decode())


def test_another_attempt_voids_what_was_shown() -> None:
    """Each protocol says it in its own way, and its last word has the valid text alone."""
    openai = folded(FOLDS["openai"]())
    done = [one["item"]["status"] for one in openai if one["type"] == "response.output_item.done"]
    assert done == ["incomplete", "completed"]
    assert [one["output_index"] for one in openai if "item" in one] == [0, 0, 1, 1]
    (item,) = openai[-1]["response"]["output"]
    assert item["content"][0]["text"] == "right"
    assert [one["sequence_number"] for one in openai] == list(range(len(openai)))
    assert folded(FOLDS["chat"]())[-1]["error"]["code"] == "stream_ended"
    assert {"type": "reset-step"} in folded(FOLDS["ai-sdk 7"]())
    old = [one["type"] for one in folded(FOLDS["ai-sdk"]())]
    assert old.count("text-start") == old.count("text-end") == 2
    assert "data-void" in old
    events = folded(FOLDS["ag-ui"]())
    kinds = [one["type"] for one in events]
    void = kinds.index("MESSAGES_SNAPSHOT", 2)
    assert kinds[void - 1] == "TEXT_MESSAGE_END"
    assert [one["id"] for one in events[void]["messages"]] == ["m"]
    lang = folded(FOLDS["langgraph"]())
    assert any(one[0]["type"] == "remove" for one in lang if isinstance(one, list))
    final = [one for one in lang if isinstance(one, dict) and "messages" in one][-1]
    assert [one["content"] for one in final["messages"]] == ["right"]


@pytest.mark.parametrize("name", FOLDS)
def test_a_fold_is_a_function_of_the_log(name: str) -> None:
    """Two replays are the same, chunk by chunk, so that a number of chunks is a cursor."""
    assert folded(FOLDS[name]()) == folded(FOLDS[name]())


def test_a_replay_without_a_cursor_leaves_void_attempts_out() -> None:
    """A page that loads has shown nothing of them."""
    for fold in (UIFold(RECORD, attempt=2), AGUIFold("t", "r", nothing, history=[], attempt=2)):
        shown = json.dumps(folded(fold))
        assert "wrong" not in shown
        assert "void" not in shown


async def test_files_of_any_door(open_sqlite_door: Opener, tmp_path: Path) -> None:
    """A data URL becomes a file of the session, which the bot reads; a retry of the message keeps
    it once."""
    seen: list[tuple[str, int]] = []

    async def reply(turn: Turn) -> str:
        for one in turn.message.attachments:
            seen.append((one.type, len(await turn.file(one))))
        return "nice"

    content = png() + b"\0" * 20_000
    url = "data:image/png;base64," + base64.b64encode(content).decode()
    async with open_sqlite_door(Bot(reply), **GIVEN, files=str(tmp_path / "f")) as door:
        part = {"type": "input_image", "image_url": url}
        items = [{"role": "user", "content": [{"type": "input_text", "text": "look"}, part]}]
        key = {**ADA, "Idempotency-Key": "k"}
        body: Any = {"conversation": "a", "input": items}
        for _ in range(2):
            answer = await door.client.post("/openai/v1/responses", json=body, headers=key)
            assert answer.status_code == 200, answer.text
        message = user("look")
        message["parts"].append({"type": "file", "mediaType": "image/png", "url": url})
        body = {"id": "b", "messages": [message]}
        assert (await door.client.post("/ai-sdk/chat", json=body, headers=ADA)).status_code == 200
        source = {"type": "data", "value": url.partition(",")[2], "mimeType": "image/png"}
        said = {"id": "m", "role": "user", "content": [{"type": "image", "source": source}]}
        answer = await door.client.post("/ag-ui", json=run_in("c", "r", said), headers=ADA)
        assert answer.status_code == 200
        human = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
        body = {"input": {"messages": [human]}, "if_not_exists": "create"}
        path = "/langgraph/threads/d/runs/wait"
        assert (await door.client.post(path, json=body, headers=ADA)).status_code == 200
        assert seen == [("image/png", len(content))] * 4
        for name in "abcd":
            session = door.runtime.session_id(name, "ada")
            assert len(await door.runtime.store.files(session) or ()) == 1


# OpenAI


async def test_openai_from_python(open_door: Opener) -> None:
    """The package, as it is: responses, conversations and their items, chat completions."""
    async with (
        open_door(bots.clients, **GIVEN) as door,
        AsyncOpenAI(
            base_url=f"{door.url}/openai/v1", api_key="the-key", default_headers=ADA
        ) as client,
    ):
        assert [model.id async for model in client.models.list()] == ["turnwise"]
        made = await client.conversations.create(metadata={"a": "b"})
        async with client.responses.stream(
            model="m", input="think", conversation=made.id
        ) as stream:
            types = [event.type async for event in stream]
            final = await stream.get_final_response()
        assert final.output_text == "1: think"
        assert types.count("response.reasoning_summary_text.delta") >= 1
        for _ in range(2):
            await client.responses.create(model="m", input="two", conversation=made.id)
        listed = [i.type async for i in client.conversations.items.list(made.id, limit=2)]
        assert len(listed) == 9
        messages: Any = [{"role": "user", "content": "hello"}]
        for header in ("X-Conversation-Id", "X-OpenWebUI-Chat-Id", "X-Session-Id"):
            completion = await client.chat.completions.create(
                model="m", messages=messages, extra_headers={header: "chat-7"}
            )
        assert completion.choices[0].message.content == "3: hello"
        added: Any = [{"type": "message", "role": "assistant", "content": "noted"}]
        await client.conversations.items.create(made.id, items=added)
        last = (await client.conversations.items.list(made.id, limit=1)).data[0]
        item = await client.conversations.items.retrieve(last.id or "", conversation_id=made.id)
        assert item == last
        await client.conversations.delete(made.id)
        with pytest.raises(NotFoundError):
            await client.conversations.retrieve(made.id)


async def test_what_pages_send_to_chat_completions(open_sqlite_door: Opener) -> None:
    """Open WebUI's headers: the chat is the session, its user the owner, tasks are answered beside
    it; a whole history without a session is the history of a session that is in no list."""
    shown: list[list[str]] = []

    def reply(turn: Turn) -> str:
        shown.append([f"{message.role}: {message.text}" for message in turn.messages])
        return "ok"

    async with open_sqlite_door(Bot(reply), **GIVEN) as door:
        url = "/openai/v1/chat/completions"
        webui = {**KEY, "X-OpenWebUI-Chat-Id": "c1", "X-OpenWebUI-User-Id": "u1"}
        history = [
            {"role": "system", "content": "Be kind."}, {"role": "user", "content": "one"},
            {"role": "assistant", "content": "1"}, {"role": "user", "content": "two"},
        ]  # fmt: skip
        body = {"model": "m", "messages": history[1:2]}
        for _ in range(2):
            headers = {**webui, "Idempotency-Key": "m1", "X-OpenWebUI-Task": "{{TASK}}"}
            await door.client.post(url, json=body, headers=headers)
        assert shown == [["user: one"]]
        body = {"model": "m", "messages": history}
        task = {**webui, "X-OpenWebUI-Task": "title_generation"}
        await door.client.post(url, json=body, headers=task)
        whole = ["system: Be kind.", "user: one", "assistant: 1", "user: two"]
        assert shown[-1] == whole
        await door.client.post(url, json=body, headers=webui)
        assert shown[-1] == ["user: one", "assistant: ok", "user: two"]
        await door.client.post(url, json=body, headers=ADA)
        assert shown[-1] == whole
        assert (await door.runtime.sessions("ada")).sessions == []
        assert len((await door.runtime.sessions("u1")).sessions) == 1


async def test_errors_in_openais_form(open_sqlite_door: Opener) -> None:
    """With what its clients need to know: whether to send the request again."""
    async with open_sqlite_door(bots.clients, **GIVEN) as door:
        post = door.client.post
        bad: list[tuple[str, Any, int]] = [
            ("responses", {"input": "a", "conversation": "c", "previous_response_id": "r"}, 400),
            ("responses", {"input": "", "conversation": "c"}, 422),
            ("responses", {"input": "a", "previous_response_id": "resp_eA_1"}, 404),
            ("responses", {"input": "a", "previous_response_id": "nonsense"}, 404),
            ("responses", {"input": [{"role": "user", "content": [{"type": "what"}]}]}, 422),
            ("responses", {"input": 7}, 422),
            ("chat/completions", {"messages": []}, 422),
            ("chat/completions", {"messages": [{"role": "assistant", "content": "x"}]}, 422),
            ("chat/completions", {"messages": [{"role": "user", "content": "fail"}]}, 422),
        ]
        for path, body, status in bad:
            answer = await post(f"/openai/v1/{path}", json=body, headers=ADA)
            assert answer.status_code == status, (path, body, answer.text)
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
            assert answer.headers["x-should-retry"] == "false"
        for path in (
            "responses/resp_!_1",
            "responses/resp_x_9999999999999999",
            "conversations/conv_!",
        ):
            answer = await door.client.get(f"/openai/v1/{path}", headers=ADA)
            assert answer.status_code == 404


# LangGraph


async def test_langgraph_from_python(open_door: Opener) -> None:
    """The package, as it is: threads, runs, states, interrupts, rollback, copies."""
    async with (
        open_door(bots.clients, **GIVEN) as door,
        get_client(url=f"{door.url}/langgraph", api_key=None, headers=ADA) as client,
    ):
        thread = (await client.threads.create(metadata={"topic": "a"}))["thread_id"]

        async def say(text: str, **more: Any) -> list[str]:
            given: Any = {"messages": [{"role": "user", "content": text}]}
            values: Any = await client.runs.wait(thread, "agent", input=given, **more)
            return [message["content"] for message in values["messages"]]

        assert await say("hello") == ["hello", "1: hello"]
        modes: Any = ["values", "messages", "messages-tuple", "updates", "custom"]
        given: Any = {"messages": [{"role": "user", "content": "tool"}]}
        events = [
            chunk.event
            async for chunk in client.runs.stream(thread, "agent", input=given, stream_mode=modes)
        ]
        assert events[:2] == ["metadata", "values"]
        assert {"messages", "messages/partial", "messages/complete", "updates"} <= set(events)
        assert events[-2:] == ["values", "end"]
        await say("ask")
        state: Any = await client.threads.get_state(thread)
        assert state["next"] == ["bot"]
        assert state["tasks"][0]["interrupts"][0]["value"]["choices"] == ["yes", "no"]
        values: Any = await client.runs.wait(thread, "agent", command={"resume": "1"})
        assert values["messages"][-1]["content"] == "answered yes"
        started = await client.runs.create(thread, "agent", input=given)
        joined = [one.event async for one in client.runs.join_stream(thread, started["run_id"])]
        assert joined == ["metadata", "values", "values", "end"]
        history: Any = await client.threads.get_history(thread)
        assert [one["metadata"]["step"] for one in history] == [5, 4, 3, 2, 1, 0]
        found = await client.threads.search(metadata={"topic": "a"})
        assert [one["thread_id"] for one in found] == [thread]
        copied: Any = await client.threads.copy(thread)  # type: ignore[func-returns-value]
        assert copied["thread_id"] != thread
        noted: Any = {"messages": [{"type": "ai", "content": "noted"}]}
        await client.threads.update_state(copied["thread_id"], noted)
        now: Any = await client.threads.get_state(copied["thread_id"])
        assert now["values"]["messages"][-1]["content"] == "noted"
        said = [{"type": "ai", "content": "b"}, {"type": "human", "content": "c"}]
        alone: Any = {"messages": said}
        values = await client.runs.wait(None, "agent", input=alone)
        assert [one["content"] for one in values["messages"]] == ["b", "c", "1: c"]
        await client.threads.delete(thread)
        left = await client.threads.search(metadata={"topic": "a"})
        assert thread not in [one["thread_id"] for one in left]


# AI SDK, AG-UI


async def test_ai_sdk_chunks_are_of_the_closed_list(open_sqlite_door: Opener) -> None:
    """One that pages do not know fails their whole message; custom events have a name of their
    own, sources are sources."""

    async def reply(turn: Turn) -> AsyncIterator[Message | str]:
        await turn.emit("source", {"url": "https://a.example", "title": "A"}, keep=True)
        await turn.emit("weather", {"t": 3})
        async with turn.step("index", kind="work"):
            pass
        yield Message("see", [Attachment("image/png", "https://a.example/b.png")])
        turn.usage = {"input_tokens": 1}

    async with open_sqlite_door(Bot(reply), **GIVEN) as door:
        body = {"id": "c", "messages": [user("hi")]}
        answer = await door.client.post("/ai-sdk/chat", json=body, headers=ADA)
        assert answer.headers["x-vercel-ai-ui-message-stream"] == "v1"
        types = [one["type"] for one in datas(answer.text)]
        assert types == [
            "start", "start-step", "source-url", "data-weather", "data-work", "data-work",
            "text-start", "text-delta", "text-end", "file", "finish-step", "finish",
        ]  # fmt: skip
        assert answer.text.endswith("data: [DONE]\n\n")
        assert (await door.client.get("/ai-sdk/chat/c/stream", headers=ADA)).status_code == 204
        assert (await door.client.get("/ai-sdk/chat/new/stream", headers=ADA)).status_code == 204
        listed = (await door.client.get("/ai-sdk/chats", headers=ADA)).json()["chats"]
        assert [one["id"] for one in listed] == ["c"]
        long = {"id": "c", "messages": [user("x" * 200_000, "m2")]}
        refused = await door.client.post("/ai-sdk/chat", json=long, headers=ADA)
        assert (refused.status_code, refused.text) == (
            413, "A message has at most 100000 characters.",
        )  # fmt: skip


async def test_copilotkit_asks_by_one_route_or_several(open_sqlite_door: Opener) -> None:
    """Info, run, connect and stop; state that pages share; the tools of a page reach the bot."""
    seen: list[Any] = []

    async def reply(turn: Turn) -> AsyncIterator[str]:
        seen.append(turn.note)
        await turn.emit("state", {"count": 1})
        yield "ok"

    async with open_sqlite_door(Bot(reply), **GIVEN) as door:
        post = door.client.post
        info = (await door.client.get("/ag-ui/info", headers=ADA)).json()
        assert "default" in info["agents"]
        assert (await post("/ag-ui/", json={"method": "info"}, headers=ADA)).json() == info
        said = {"id": "m", "role": "user", "content": "hi"}
        body = {**run_in("t", "r", said), "state": {"a": 1}, "tools": [{"name": "x"}]}
        answer = await post("/ag-ui/agent/default/run", json=body, headers=ADA)
        types = [one["type"] for one in datas(answer.text)]
        assert types == [
            "RUN_STARTED", "STATE_SNAPSHOT", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT",
            "TEXT_MESSAGE_END", "RUN_FINISHED",
        ]  # fmt: skip
        assert (seen[0]["state"], seen[0]["tools"]) == ({"a": 1}, [{"name": "x"}])
        single = {"method": "agent/connect", "params": {}, "body": run_in("t", "r2")}
        for path, sent in (("/ag-ui", single), ("/ag-ui/agent/a/connect", run_in("t", "r2"))):
            attached = datas((await post(path, json=sent, headers=ADA)).text)
            kinds = [one["type"] for one in attached]
            assert kinds == ["RUN_STARTED", "MESSAGES_SNAPSHOT", "RUN_FINISHED"]
        stop = await post("/ag-ui/agent/default/stop/t", json={}, headers=ADA)
        assert stop.json() == {"stopped": False}
        bad = await post("/ag-ui", json={"method": "what"}, headers=ADA)
        assert bad.status_code == 422
        assert (await post("/ag-ui", json={"threadId": "t"}, headers=ADA)).status_code == 422


# Pages


async def test_pages_with_a_protocol_of_their_own(open_sqlite_door: Opener) -> None:
    """n8n's widget and deep-chat: messages, what was said before, a stream, an error, and a
    message that stands alone."""
    async with open_sqlite_door(bots.clients, **GIVEN) as door:

        async def post(path: str, body: dict[str, Any], **headers: str) -> Any:
            return await door.client.post(f"/pages/{path}", json=body, headers={**ADA, **headers})

        send = {"action": "sendMessage", "sessionId": "c", "chatInput": "hi"}
        assert (await post("n8n", send)).json() == {"output": "1: hi"}
        assert (await post("n8n", {**send, "chatInput": "fail"})).json() == {
            "output": "I will not."
        }
        load = {"action": "loadPreviousSession", "sessionId": "c"}
        before = [(one["id"][-1], one["kwargs"]["content"]) for one in
                  (await post("n8n", load)).json()["data"]]  # fmt: skip
        assert before[:2] == [("HumanMessage", "hi"), ("AIMessage", "1: hi")]
        assert (await post("n8n", {**load, "sessionId": "new"})).json() == {"data": []}
        body: dict[str, Any] = {"messages": [{"role": "user", "text": "hello"}]}
        assert (await post("deep-chat", body)).json() == {"text": "1: hello"}
        session = {"X-Session-Id": "c"}
        assert (await post("deep-chat", body, **session)).json() == {"text": "2: hello"}
        body["messages"][0]["text"] = "two"
        streamed = await post("deep-chat", {**body, "stream": True}, **session)
        assert "".join(one["text"] for one in datas(streamed.text)) == "one \nsecond"
        body["messages"][0]["text"] = "fail"
        assert (await post("deep-chat", body)).json() == {"error": "I will not."}
        failed = await post("deep-chat", {**body, "stream": True})
        assert datas(failed.text)[-1] == {"error": "I will not."}
        assert (await post("n8n", {"action": "what"})).status_code == 422
