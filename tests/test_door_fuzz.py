"""Every door is given what nobody should send: it answers with an error of the client, never with
one of ours, and the next request is answered as if nothing had happened."""

from __future__ import annotations

import functools
import json
import string
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import strategies as st
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from conftest import Process
from mutations import ODD_TEXTS, fuzz, mutated
from test_door_security import ROWS, filled
from test_security import KEY
from turnwise.protocols.langgraph.ids import checkpoint_id, run_id
from turnwise.protocols.mounted import DOORS
from turnwise.protocols.openai.ids import conversation_id, response_id

Opened = tuple[Process, httpx.Client]
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "1"}
PICTURE = {"type": "input_image", "image_url": "https://x.org/a.png", "detail": "auto"}
FILE = {"type": "input_file", "filename": "a", "file_data": "data:text/plain;base64,aGk="}
SAID = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
TOOL_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
SEEN = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
HISTORY: list[Any] = [
    {"role": "system", "content": "be kind"},
    {"id": "u", "role": "user", "content": [{"type": "text", "text": "look"}, SEEN]},
    {"id": "a", "role": "assistant", "content": None, "tool_calls": [TOOL_CALL]},
    {"id": "t", "role": "tool", "tool_call_id": "c1", "content": "1"},
    {"id": "m", "role": "user", "content": "hi"},
]
PARTS = [
    {"type": "text", "text": "hi"},
    {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,aGk="},
]
DONE = {"type": "tool-f", "toolCallId": "c1", "state": "output-available", "output": 1, "input": {}}
BUBBLES = [
    {"id": "a", "role": "assistant", "parts": [DONE, {"type": "data-x", "data": {}}]},
    {"id": "m", "role": "user", "parts": PARTS, "metadata": {"a": 1}},
]
HUMAN: dict[str, Any] = {"type": "human", "content": [{"type": "text", "text": "hi"}, SEEN]}
RICH: dict[str, list[tuple[str, Any]]] = {
    "openai": [
        (
            "POST /responses",
            {
                "input": [SAID, {**SAID, "content": [PICTURE, FILE]}, CALL, RESULT, SAID],
                "conversation": {"id": "{s}"}, "metadata": {"a": "b"}, "stream": True,
                "instructions": "be kind", "model": "m", "user": "ada", "store": True,
            },
        ),
        ("POST /responses", {"input": "hi", "previous_response_id": "{r}", "background": True}),
        (
            "POST /chat/completions",
            {"messages": HISTORY, "stream": True, "stream_options": {"include_usage": True},
             "model": "m", "metadata": {"a": "b"}, "tools": [TOOL_CALL], "n": 1},
        ),
        ("POST /conversations", {"items": [SAID, CALL, RESULT], "metadata": {"a": "b"}}),
    ],
    "ai-sdk": [
        ("POST /chat", {"id": "{s}", "messages": BUBBLES, "trigger": "submit-message"}),
        (
            "POST /chat",
            {"id": "{s}", "messages": BUBBLES, "trigger": "regenerate-message", "messageId": "a"},
        ),
    ],
    "ag-ui": [
        (
            "POST /agent/{agent}/run",
            {
                "threadId": "{s}", "runId": "r", "messages": HISTORY, "state": {"a": 1},
                "tools": [{"name": "f", "description": "", "parameters": {}}],
                "context": [{"description": "d", "value": "v"}], "forwardedProps": {"a": 1},
            },
        ),
        (
            "POST /agent/{agent}/run",
            {"threadId": "{s}", "runId": "r", "messages": [],
             "resume": [{"interruptId": "i", "status": "resolved", "payload": 1}]},
        ),
        ("POST ", {"method": "agent/run", "params": {"agentId": "a"},
                   "body": {"threadId": "{s}", "runId": "r", "messages": HISTORY}}),
    ],
    "langgraph": [
        (
            "POST /threads/{thread}/runs/stream",
            {
                "assistant_id": "turnwise", "input": {"messages": [HUMAN, *HISTORY]},
                "stream_mode": ["messages-tuple", "values", "updates"], "metadata": {"a": 1},
                "config": {"configurable": {"x": 1}, "tags": ["a"]}, "context": {"a": 1},
                "multitask_strategy": "enqueue", "on_disconnect": "continue",
                "checkpoint": {"checkpoint_id": "{c}"}, "if_not_exists": "create",
            },
        ),
        ("POST /threads/{thread}/runs/wait", {"command": {"resume": {"i": 1}}}),
        ("POST /threads", {"thread_id": "{s}", "metadata": {"a": 1}, "if_exists": "raise"}),
        ("POST /threads/search", {"metadata": {"a": 1}, "status": "idle", "limit": 1, "offset": 0}),
    ],
    "pages": [
        (
            "POST /deep-chat",
            {"sessionId": "{s}", "messages": [{"role": "user", "text": "hi", "files": [SEEN]}]},
        ),
    ],
}  # fmt: skip
"""Bodies that use all of what a protocol has, for the routes that take much."""
FRAMES: list[dict[str, Any]] = [
    {
        "type": "message", "text": "hi", "key": "k", "metadata": {"a": 1},
        "attachments": [{"type": "image/png", "url": "data:,", "name": "a", "size": 1}],
        "answers": [{"ask": "a", "value": 1}],
    },
    {"type": "again", "turn": 1, "key": "k"},
    {"type": "change", "turn": 1, "text": "other"},
    {"type": "cancel", "turn": 1},
    {"type": "stop"},
    {"type": "feedback", "message": "m", "value": "up", "comment": "good"},
    {"type": "ping"},
]  # fmt: skip
IDS = st.sampled_from(sorted(set(ODD_TEXTS) - {"\ud800"})) | st.text(
    st.characters(codec="utf-8"), max_size=8
)
QUERIES = ("limit", "after", "before", "order", "stream", "include", "starting_after", "offset")


@pytest.fixture
def opened(serve: Callable[..., Process]) -> Any:
    """A server with all doors open, and a client with its key."""
    flags = ("--protocols", ",".join(DOORS), "--api-keys", "the-key")
    server = serve("bots:echo", *flags)
    with httpx.Client(base_url=server.url, headers=KEY, timeout=30) as client:
        yield server, client


def made(client: httpx.Client) -> str:
    """A session with one turn."""
    session: str = client.post("/sessions", json={}).json()["id"]
    said(client, session)
    return session


def said(client: httpx.Client, session: str) -> None:
    """The session still answers."""
    headers = {"Prefer": "wait=20"}
    turn = client.post(f"/sessions/{session}/turns", json={"text": "hello"}, headers=headers)
    assert turn.status_code == 200, turn.text
    assert turn.json()["status"] == "completed"


def check_answer(answer: httpx.Response, sent: Any) -> None:
    """What was sent is accepted, or refused with words; it does not fail."""
    assert answer.status_code < 500, (sent, answer.status_code, answer.text[:500])
    if answer.status_code >= 400:
        assert answer.text.strip(), sent


def bodies_of(name: str) -> list[tuple[str, Any]]:
    given = [(route, body) for route, (body, _) in ROWS[name].items() if body]
    return [*given, *RICH[name]]


@pytest.mark.parametrize("name", DOORS)
def test_bodies(opened: Opened, name: str) -> None:
    """Bodies that are nearly right: no door fails, and its sessions go on."""
    server, client = opened
    for route, body in bodies_of(name):
        session = made(client)
        method, path = route.split(" ")
        path = DOORS[name][0] + path.format(
            thread=session, agent="a", conversation=conversation_id(session),
            response=response_id(session, 1), run=run_id(session, 1),
        )  # fmt: skip
        text = json.dumps(filled(body, session)).replace("{r}", response_id(session, 1))
        valid = json.loads(text.replace("{c}", checkpoint_id(session, 1)))
        fuzz(mutated(valid), functools.partial(send_body, client, method, path))
        said(client, made(client))
    assert client.get("/health/ready").status_code == 200
    assert "Traceback" not in (server.folder / "log").read_text()


def send_body(client: httpx.Client, method: str, path: str, body: Any) -> None:
    headers = {"Content-Type": "application/json"}
    answer = client.request(method, path, content=json.dumps(body), headers=headers)
    check_answer(answer, (method, path, body))


@pytest.mark.parametrize("name", DOORS)
def test_paths_and_queries(opened: Opened, name: str) -> None:
    """Ids and queries that are no ids and no numbers are refused, and nothing fails."""
    server, client = opened
    session = made(client)
    real = [session, response_id(session, 1), conversation_id(session), run_id(session, 1)]
    real += [checkpoint_id(session, 1), "latest", "turnwise"]
    for route, (_, about) in ROWS[name].items():
        if about == "all":
            continue
        method, path = route.replace(":path", "").split(" ")
        fields = [field for _, field, _, _ in string.Formatter().parse(path) if field]
        ids = st.fixed_dictionaries({field: st.sampled_from(real) | IDS for field in fields})
        queries = st.dictionaries(st.sampled_from(QUERIES), IDS, max_size=2)
        call = functools.partial(send_query, client, method, DOORS[name][0] + path)
        fuzz(st.tuples(ids, queries), call)
        client.post("/sessions", json={"id": session})  # one of them may have deleted it
    assert client.get("/health/ready").status_code == 200
    assert "Traceback" not in (server.folder / "log").read_text()


def send_query(
    client: httpx.Client, method: str, path: str, sent: tuple[dict[str, str], dict[str, str]]
) -> None:
    ids, query = sent
    path = path.format(**{name: quote(one, safe="") or "x" for name, one in ids.items()})
    check_answer(client.request(method, path, params=query), (method, path, query))


def await_pong(socket: Connection) -> None:
    """The socket is open, and reads."""
    socket.send('{"type": "ping"}')
    for received in socket:
        if json.loads(received)["type"] == "pong":
            return
    raise AssertionError("the socket was closed")


def test_frames(opened: Opened) -> None:
    """Frames that are nearly right are answered with an error or obeyed; the socket stays open."""
    server, client = opened
    session = made(client)
    url = server.url.replace("http", "ws") + f"/sessions/{session}/ws"
    with connect(url, additional_headers=KEY) as socket:

        def send(text: str) -> None:
            socket.send(text)
            await_pong(socket)

        for frame in FRAMES:
            fuzz(mutated(frame).map(json.dumps), send)
        fuzz(st.text(st.characters(codec="utf-8")), send)
    said(client, made(client))
    assert "Traceback" not in (server.folder / "log").read_text()
