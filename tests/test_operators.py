"""The operator's view: who sees it, what it shows of all processes, and that it costs nothing when
nobody looks."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection
from websockets import Subprotocol
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import turnwise
from conftest import Door, Opener, Process, serving
from turnwise import Bot, Runtime, Settings, Turn
from turnwise.errors import ConfigurationError
from turnwise.gateway.overview import Flow, quantile
from turnwise.roll_call import CALLS, REPORT, RollCall
from turnwise.server.admin_page import MODULES
from turnwise.stores.memory import MemoryStore
from turnwise.telemetry import BOUNDS

ADMIN = {"Authorization": "Bearer the-admin-key"}
KEYS = {"admin_keys": "the-admin-key, the-next-one"}


def held_up(gate: asyncio.Event) -> Bot:
    """A bot that fails on `fail` and waits at a gate for anything else."""
    bot = Bot(max_attempts=1)

    @bot.reply
    async def reply(turn: Turn) -> str:
        if turn.text == "fail":
            raise ValueError("the reason is private")
        await gate.wait()
        return "done"

    return bot


async def looked(door: Door, **headers: str) -> dict[str, Any]:
    response = await door.client.get("/admin/now", headers={**ADMIN, **headers})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


async def until(door: Door, holds: Any) -> dict[str, Any]:
    """The first overview of which `holds` is true."""
    async with asyncio.timeout(30):
        while True:
            found = await looked(door)
            if holds(found):
                return found
            await asyncio.sleep(0.3)


async def test_what_an_operator_sees(open_door: Opener) -> None:
    """On every store: the turn that runs, by its owner, session and process; the one that failed,
    with its reason and not its traceback; the process and the store; one session, read and
    followed, stopped, emptied, deleted."""
    gate = asyncio.Event()
    async with open_door(held_up(gate), **KEYS) as door:
        talker = await door.session(name="Ada's")
        failing = await door.session()
        assert (await failing.say("fail"))["status"] == "failed"
        await talker.say("hold", wait=None)
        found = await until(door, lambda f: f["processes"] and f["running"] == 1)
        (turn,) = [one for one in found["turns"] if one["session"] == talker.id]
        assert (turn["name"], turn["status"], turn["n"]) == ("Ada's", "running", 1)
        (process,) = found["processes"]
        assert turn["worker"] == process["worker"]
        assert (process["running"], process["silent"], process["stopping"]) == (1, False, False)
        (failure,) = found["failures"]
        assert (failure["session"], failure["n"]) == (failing.id, 1)
        assert failure["error"]["code"] == "handler_error"
        assert "private" not in str(found)
        assert found["store"]
        path = f"/admin/sessions/{talker.id}"
        listed = await door.client.get("/admin/sessions?q=ada", headers=ADMIN)
        assert [one["id"] for one in listed.json()["sessions"]] == [talker.id]
        stopped = await door.client.post(f"{path}/stop", headers=ADMIN)
        assert stopped.status_code == 200
        await until(door, lambda f: f["turns"] == [])
        events = await door.client.get(
            f"{path}/events?after=0", headers={**ADMIN, "Accept": "application/json"}
        )
        assert "turn.cancelled" in [event["type"] for event in events.json()["events"]]
        assert (await door.client.post(f"{path}/reset", headers=ADMIN)).status_code == 200
        assert await talker.history() == []
        assert (await door.client.delete(path, headers=ADMIN)).status_code == 204
        assert (await talker.call("GET")).status_code == 404


async def test_who_gets_in(open_sqlite_door: Opener) -> None:
    """An admin key, either of two; neither no key, nor an API key, nor a session's token. An admin
    key opens nothing outside of the view."""
    async with open_sqlite_door(held_up(asyncio.Event()), **KEYS, api_keys="api") as door:
        api = {"Authorization": "Bearer api"}
        made = (await door.client.post("/sessions", json={}, headers=api)).json()
        path = f"/admin/sessions/{made['id']}"
        token = {"Authorization": f"Bearer {made['token']}"}
        for headers in ({}, api, token):
            for asked in ("/admin/now", "/admin/sessions", path, f"{path}/messages"):
                response = await door.client.get(asked, headers=headers)
                assert response.status_code == 401, (headers, asked)
            assert (await door.client.delete(path, headers=headers)).status_code == 401
        for key in ("the-admin-key", "the-next-one"):
            headers = {"Authorization": f"Bearer {key}"}
            assert (await door.client.get(path, headers=headers)).status_code == 200
        assert (await door.client.get("/sessions", headers=ADMIN)).status_code == 401
        outside = await door.client.get(f"/sessions/{made['id']}", headers=ADMIN)
        assert outside.status_code == 401
        page = await door.client.get("/admin/")
        assert page.status_code == 200
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        assert (await door.client.get("/admin")).headers["location"] == "admin/"


async def test_every_route_of_it_is_closed(open_sqlite_door: Opener) -> None:
    """Whatever is beneath /admin but the page's own files, on HTTP and WebSocket, asks for the key
    before anything else."""
    files = {"", "/", "/turnwise.js", "/icon.svg", "/admin.css"}
    files |= {f"/{name}.js" for name in MODULES}
    async with open_sqlite_door(held_up(asyncio.Event()), **KEYS) as door:
        routes: Any = turnwise.admin(door.runtime).routes
        asked = []
        while routes:
            route, *routes = routes
            if hasattr(route, "original_router"):
                routes += route.original_router.routes
            elif isinstance(route, APIRoute):
                asked += [(method, route.path) for method in route.methods or ()]
            else:
                assert route.path == "/sessions/{session_id}/ws"
        assert {path for _, path in asked} > files
        for method, path in asked:
            filled = re.sub(r"\{[^}]+\}", "1", path)
            response = await door.client.request(method, f"/admin{filled}")
            if path in files:
                assert response.status_code in (200, 307), path
            else:
                assert response.status_code == 401, (method, path, response.text)
        address = door.url.replace("http", "ws") + "/admin/sessions/x/ws"
        protocols = [Subprotocol("turnwise.v1"), Subprotocol("token.wrong")]
        async with connect(address, subprotocols=protocols) as socket:
            assert "unauthorized" in str(await socket.recv())
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401


async def test_it_is_off_without_a_key(open_sqlite_door: Opener) -> None:
    """Nothing of it answers; and a host that gives neither rule nor key is refused in words."""
    async with open_sqlite_door(held_up(asyncio.Event())) as door:
        for path in ("/admin", "/admin/", "/admin/now", "/admin/sessions"):
            assert (await door.client.get(path, headers=ADMIN)).status_code == 404
    with pytest.raises(ConfigurationError, match="TURNWISE_ADMIN_KEYS"):
        turnwise.admin(Runtime(Bot(), MemoryStore(), settings=Settings(_env_file=None)))


async def test_a_hosts_own_rule(sqlite_url: str) -> None:
    """A cookie of the host's login decides; a page of another origin that sends it along does
    nothing; a rule that does not say yes or no is an error."""
    runtime = Runtime(held_up(asyncio.Event()), sqlite_url)
    app = FastAPI(lifespan=runtime.lifespan)

    async def is_staff(connection: HTTPConnection) -> Any:
        return {"yes": True, "odd": "ada"}.get(connection.cookies.get("staff", ""), False)

    app.include_router(turnwise.admin(runtime, authorize=is_staff), prefix="/ops")
    async with serving(app, lifespan="on") as url, httpx.AsyncClient(base_url=url) as client:
        session = await runtime.gateway.create()
        path = f"/ops/sessions/{session.id}"
        assert (await client.get("/ops/now")).status_code == 401
        assert (await client.get(path)).status_code == 401
        client.cookies.set("staff", "yes")
        assert (await client.get("/ops/now")).status_code == 200
        foreign = {"Origin": "https://evil.example"}
        assert (await client.post(f"{path}/reset", headers=foreign)).status_code == 403
        assert (await client.post(f"{path}/reset")).status_code == 200
        client.cookies.set("staff", "odd")
        assert (await client.get("/ops/now")).status_code == 500


async def test_processes_come_and_go(tmp_path: Path, processes: list[Process]) -> None:
    """All processes of a store are in one view, whichever answers; one that is killed is silent
    soon, one that is stopped is gone at once."""
    store = f"sqlite:///{tmp_path / 'all.db'}"
    environment = {"TURNWISE_ADMIN_KEYS": "the-admin-key"}
    both = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        both.append(Process(tmp_path / name, "bots:echo", store=store, environment=environment))
        processes.append(both[-1])
        both[-1].start()
    async with httpx.AsyncClient(base_url=both[0].url, headers=ADMIN) as client:

        async def states() -> list[bool]:
            found = (await client.get("/admin/now")).json()["processes"]
            return sorted(one["silent"] for one in found)

        async def becomes(wanted: list[bool]) -> None:
            async with asyncio.timeout(40):
                while await states() != wanted:
                    await asyncio.sleep(0.3)

        await becomes([False, False])
        both[1].kill()
        await becomes([False, True])
        both[1].start()
        await becomes([False, False, True])
        both[1].stop()
        await becomes([False, True])


class Counting(MemoryStore):
    """A store that keeps what facts are asked for and published."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.said: list[str] = []

    async def published(self, names: str) -> dict[str, bytes]:
        self.asked.append(names)
        return await super().published(names)

    async def publish(self, name: str, value: bytes | None) -> None:
        self.said.append(name)
        await super().publish(name, value)


async def test_nobody_reports_while_nobody_looks() -> None:
    """A process asks for one small row and writes nothing, also beside a call from before it began;
    to one call it reports once."""
    store = Counting()
    here = RollCall(store, lambda: {"running": 0})
    looker = RollCall(store, lambda: {"running": 1})
    await looker.ask()
    store.asked.clear()
    store.said.clear()
    for _ in range(5):
        await here.answer()
    assert store.asked == [CALLS] * 5
    assert store.said == []
    fresh = RollCall(store, dict)
    await fresh.ask()
    store.said.clear()
    for _ in range(3):
        await here.answer()
    assert store.said == [REPORT + here.name]
    assert list(await fresh.ask()) == [here.name]
    await here.withdraw()
    assert await fresh.ask() == {}


def test_times_from_buckets() -> None:
    """The median of evenly spread times lies in the middle of its bucket; of nothing there is none;
    what lies beyond the last bound is that bound."""
    counts = [0] * (len(BOUNDS) + 1)
    assert quantile(counts, 0.5) is None
    counts[BOUNDS.index(1)] = 10  # between 0.5 and 1
    assert quantile(counts, 0.5) == pytest.approx(0.75)
    assert quantile([*[0] * len(BOUNDS), 3], 0.95) == BOUNDS[-1]


def test_rates_count_what_happened_since_somebody_looks() -> None:
    """What a process counted before is no news, nor is a process that comes later; what leaves the
    window is forgotten."""
    flow = Flow()
    zeros = [0] * (len(BOUNDS) + 1)

    def report(done: int, failed: int) -> dict[str, Any]:
        times = {name: [done, *zeros[1:]] for name in ("wait", "first", "took")}
        return {"figures": {"turns": {"completed": done, "failed": failed}, **times}}

    flow.add({"a": report(1000, 5)}, 0.0)
    assert flow.figures(0.0)["rate"] == 0
    flow.add({"a": report(1020, 6), "b": report(500, 0)}, 2.0)
    found = flow.figures(2.0)
    assert (found["rate"], found["failed"]) == (10.5, 0.5)
    assert found["took"][0] == pytest.approx(BOUNDS[0] / 2)
    flow.add({"a": report(1020, 6), "b": report(500, 0)}, 13.0)
    assert flow.figures(13.0)["rate"] == 0
    assert flow.figures(13.0)["took"] == [None, None]
