"""The matrix of the doors for other people's clients: each route for each who may come."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import Door, Opener, Talker
from test_security import KEY, LOGIN, PRINCIPALS, bearer_of, bot
from turnwise.protocols.langgraph.ids import checkpoint_id, run_id
from turnwise.protocols.mounted import DOORS
from turnwise.protocols.openai.ids import conversation_id, response_id

USER = {"id": "m", "role": "user", "content": "hi"}
BUBBLE = {"id": "m", "role": "user", "parts": [{"type": "text", "text": "hi"}]}
CHAT: dict[str, Any] = {"id": "{s}", "messages": [BUBBLE]}
RUN: dict[str, Any] = {"threadId": "{s}", "runId": "r", "messages": [USER]}
CONNECT: dict[str, Any] = {"threadId": "{s}", "runId": "r", "messages": []}
INPUT: dict[str, Any] = {"input": {"messages": [USER]}}
ITEM = {"type": "message", "role": "assistant", "content": "noted"}
STATE: dict[str, Any] = {"values": {"messages": [{"type": "ai", "content": "noted"}]}}
ROWS: dict[str, dict[str, tuple[Any, str]]] = {
    # a body, and what the route is about: nobody's ("all"), the caller's ("own"), a session that
    # must be there ("session"), that is made in the caller's own space otherwise ("space"), or that
    # is as if empty otherwise ("empty"); "host": a session, and a key is needed
    "openai": {
        "GET /models": (None, "own"),
        "GET /models/{model:path}": (None, "own"),
        "POST /responses": ({"conversation": "{s}", "input": "hi"}, "space"),
        "GET /responses/{response}": (None, "session"),
        "POST /responses/{response}/cancel": (None, "session"),
        "GET /responses/{response}/input_items": (None, "session"),
        "DELETE /responses/{response}": (None, "session"),
        "POST /conversations": ({}, "own"),
        "GET /conversations/{conversation}": (None, "session"),
        "POST /conversations/{conversation}": ({"metadata": {}}, "session"),
        "GET /conversations/{conversation}/items": (None, "session"),
        "POST /conversations/{conversation}/items": ({"items": [ITEM]}, "host"),
        "GET /conversations/{conversation}/items/{item}": (None, "session"),
        "DELETE /conversations/{conversation}/items/{item}": (None, "refused"),
        "DELETE /conversations/{conversation}": (None, "session"),
        "POST /chat/completions": ({"messages": [USER]}, "own"),
    },
    "ai-sdk": {
        "POST /chat": (CHAT, "space"),
        "GET /chat/{chat}/stream": (None, "empty"),
        "POST /chat/{chat}/stop": (None, "session"),
        "GET /chat/{chat}/messages": (None, "empty"),
        "GET /chats": (None, "listed"),
    },
    "ag-ui": {
        "POST ": (RUN, "space"),
        "POST /": (RUN, "space"),
        "GET /info": (None, "own"),
        "POST /info": (None, "own"),
        "POST /agent/{agent}/run": (RUN, "space"),
        "POST /agent/{agent}/connect": (CONNECT, "empty"),
        "POST /agent/{agent}/stop/{thread}": ({}, "session"),
    },
    "langgraph": {
        "GET /ok": (None, "all"),
        "GET /info": (None, "all"),
        "POST /assistants/search": ({}, "own"),
        "POST /assistants/count": ({}, "own"),
        "GET /assistants/{assistant}": (None, "own"),
        "GET /assistants/{assistant}/schemas": (None, "own"),
        "GET /assistants/{assistant}/graph": (None, "own"),
        "POST /threads": ({"thread_id": "{s}", "if_exists": "do_nothing"}, "space"),
        "POST /threads/search": ({}, "listed"),
        "POST /threads/count": ({}, "listed"),
        "GET /threads/{thread}": (None, "session"),
        "PATCH /threads/{thread}": ({"metadata": {}}, "session"),
        "POST /threads/{thread}/copy": (None, "session"),
        "GET /threads/{thread}/state": (None, "session"),
        "POST /threads/{thread}/state": (STATE, "host"),
        "GET /threads/{thread}/state/{checkpoint}": (None, "session"),
        "GET /threads/{thread}/history": (None, "session"),
        "POST /threads/{thread}/history": ({}, "session"),
        "POST /threads/{thread}/runs": (INPUT, "session"),
        "POST /threads/{thread}/runs/stream": (INPUT, "session"),
        "POST /threads/{thread}/runs/wait": (INPUT, "session"),
        "GET /threads/{thread}/runs": (None, "session"),
        "GET /threads/{thread}/runs/{run}": (None, "session"),
        "GET /threads/{thread}/runs/{run}/stream": (None, "session"),
        "GET /threads/{thread}/runs/{run}/join": (None, "session"),
        "POST /threads/{thread}/runs/{run}/cancel": (None, "session"),
        "DELETE /threads/{thread}/runs/{run}": (None, "session"),
        "DELETE /threads/{thread}": (None, "session"),
        "POST /runs": (INPUT, "own"),
        "POST /runs/stream": (INPUT, "own"),
        "POST /runs/wait": (INPUT, "own"),
    },
    "pages": {
        "POST /n8n": ({"sessionId": "{s}", "chatInput": "hi"}, "space"),
        "POST /deep-chat": (
            {"sessionId": "{s}", "messages": [{"role": "user", "text": "hi"}]}, "space",
        ),
    },
}  # fmt: skip
MINE = {"own", "key", "owner", "login"}
"""Who may use the session."""
OTHERS = {"stranger", "foreign"}
"""Owners of other sessions."""


def filled(value: Any, session: str) -> Any:
    """A body, with the session's id in its place."""
    if isinstance(value, dict):
        return {name: filled(one, session) for name, one in value.items()}
    if isinstance(value, list):
        return [filled(one, session) for one in value]
    return session if value == "{s}" else value


async def knock(door: Door, name: str, route: str, talker: Talker, headers: Any) -> int:
    """The status with which a door answers."""
    method, path = route.split(" ")
    messages = (await talker.call("GET", "/messages")).json().get("messages", [])
    path = path.replace(":path", "").format(
        model="m", agent="a", assistant="a", chat=talker.id, thread=talker.id,
        response=response_id(talker.id, 1), conversation=conversation_id(talker.id),
        item=messages[-1]["id"] if messages else "x", run=run_id(talker.id, 1),
        checkpoint=checkpoint_id(talker.id, 1),
    )  # fmt: skip
    body = filled(ROWS[name][route][0], talker.id)
    url = DOORS[name][0] + path
    answer = await door.client.request(method, url, headers=headers, json=body)
    return answer.status_code


def expected(principal: str, about: str) -> set[int]:
    """What a principal may get."""
    good = {200, 201, 202, 204}
    if about == "all":
        return good
    if principal in ("none", "expired"):
        return {401}
    if about == "listed" and principal in ("own", "other", "refreshed"):
        return {401}
    if principal in ("other", "refreshed"):  # a token of a session, but not the right one
        return good | {401, 404} if about == "own" else {401, 404}
    if about == "listed":
        return good
    if principal in MINE:
        if about == "host" and principal in ("own", "login"):
            return {403}
        return {422} if about == "refused" else good
    return good if about in ("own", "space", "empty") else {404}


@pytest.mark.parametrize("principal", PRINCIPALS)
async def test_who_gets_in(open_sqlite_door: Opener, principal: str) -> None:
    """Who may not use a session finds nothing of it, and changes nothing in it."""
    async with open_sqlite_door(bot, api_keys="the-key", jwt_secret=LOGIN) as door:
        for name, rows in ROWS.items():
            for route, (_, about) in rows.items():
                adas = {**KEY, "X-Turnwise-Owner": "ada"}
                made = await door.client.post("/sessions", json={}, headers=adas)
                talker = Talker(door.client, made.json())
                await talker.say("hello")
                headers = await bearer_of(principal, talker, door)
                status = await knock(door, name, route, talker, headers)
                assert status in expected(principal, about), (name, route, status)
                if principal not in MINE:
                    assert await talker.history() == ["hello", "hello"], (name, route)
