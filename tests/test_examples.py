"""The examples are programs that run: each with four uvicorn workers and a real client."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from conftest import free_port
from test_models import model_server

EXAMPLES = Path(__file__).parent.parent / "examples"


@contextlib.contextmanager
def running(
    example: str, folder: Path, environment: Mapping[str, str] | None = None, *, workers: int = 4
) -> Iterator[str]:
    """`uvicorn example:app --workers 4` on a fresh store; yields its address."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"{example}:app", "--workers", str(workers)]
    more = {"PYTHONPATH": str(EXAMPLES), "TURNWISE_GRACE": "1", **(environment or {})}
    process = subprocess.Popen(
        [*command, "--port", str(port), "--log-level", "warning"],
        cwd=folder,
        env={**os.environ, **more},
    )
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + 90
        while True:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"{url}/openapi.json")
                break
            assert time.monotonic() < until
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def client(url: str) -> httpx.AsyncClient:
    """A client that opens a connection per request, so that every worker is met."""
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=url, timeout=60, limits=limits)


async def test_assistant(tmp_path: Path) -> None:
    """Many sessions through four workers: each model call holds its own conversation, whole."""
    async with model_server() as (server, model_url):
        environment = {
            "OPENAI_BASE_URL": f"{model_url}/v1",
            "AZURE_OPENAI_ENDPOINT": model_url,
            "AZURE_OPENAI_API_KEY": "k",
            "OPENAI_API_VERSION": "2024-10-21",
        }
        with running("assistant", tmp_path, environment) as url:
            async with client(url) as http:

                async def converse(n: int) -> str:
                    made = await http.post("/ai/new_session")
                    session: str = made.json()["session_id"]
                    for i in range(4):
                        kind = "azure" if i == 2 else "openai"
                        body = {"session_id": session, "prompt": f"s{n} m{i}", "ai_model": kind}
                        answer = await http.post("/ai/chat", json=body)
                        assert answer.json() == {"response": f"echo: s{n} m{i} "}
                    return session

                sessions = await asyncio.gather(*(converse(n) for n in range(20)))
                assert len(server.requests) == 80
                for request in server.requests:
                    said = [m["content"] for m in request["messages"] if m["role"] == "user"]
                    name = said[0].split()[0]
                    assert said == [f"{name} m{i}" for i in range(len(said))]
                assert sum("/openai/deployments/" in path for path in server.paths) == 20

                both = [
                    http.post("/ai/chat", json={"session_id": sessions[0], "prompt": text})
                    for text in ("first", "second")
                ]
                answers = await asyncio.gather(*both)
                assert [a.json()["response"] for a in answers] == ["echo: first ", "echo: second "]

                assert (await http.post("/ai/reset", json={"session_id": sessions[1]})).is_success
                body = {"session_id": sessions[1], "prompt": "fresh"}
                await http.post("/ai/chat", json=body)
                said = [m["content"] for m in server.requests[-1]["messages"]]
                assert said == ["Be brief.", "fresh"]

                for path in ("/ai/chat", "/ai/reset"):
                    body = {"session_id": "nobody", "prompt": "x"}
                    assert (await http.post(path, json=body)).status_code == 400


async def test_background_reply(tmp_path: Path) -> None:
    """ "success" at once, then a sentence per request from any process, then both messages."""
    with running("background_reply", tmp_path) as url:
        async with client(url) as http:
            assert (await http.get("/ada/t1/tea")).json() == "success"
            assert (await http.get("/ada/t1/tea")).json() == "success"
            sentences, after = [], 0
            while True:
                found = (await http.get(f"/ada/t1?after={after}")).json()
                if found["done"]:
                    break
                sentences.append(found["sentence"])
                after = found["after"]
            assert sentences == [
                "You asked about tea. ", "That takes some thought! ", "Here is the answer. ",
            ]  # fmt: skip
            for _ in range(8):
                history = (await http.get("/ada")).json()
                assert [m["role"] for m in history] == ["user", "assistant"]
                assert history[1]["text"] == "".join(sentences)
            assert (await http.get("/ada/t2")).status_code == 404
            assert (await http.get("/nobody")).status_code == 404


async def test_sticky_thread(tmp_path: Path) -> None:
    """Each session's context holds what was said in it, all of it, and nothing else."""
    with running("sticky_thread", tmp_path) as url:
        async with client(url) as http:

            async def converse(n: int) -> None:
                for i in range(1, 9):
                    answer = await http.post(f"/chat/user {n}", params={"text": f"{n}.{i}"})
                    said = ", ".join(f"{n}.{j}" for j in range(1, i + 1))
                    assert answer.json() == f"{i}: {said}"

            await asyncio.gather(*(converse(n) for n in range(16)))


async def test_reminder_bot(tmp_path: Path) -> None:
    """A reminder comes once, through whichever of four workers, though nobody asks for it then."""
    with running("reminder_bot", tmp_path) as url:
        async with client(url) as http:
            made = (await http.post("/sessions")).json()
            headers = {"Authorization": f"Bearer {made['token']}", "Prefer": "wait=20"}
            path = f"/sessions/{made['id']}"
            said = await http.post(
                f"{path}/turns", json={"text": "tea in 2 seconds"}, headers=headers
            )
            assert said.json()["reply"]["text"].startswith("I will remind you at")
            assert (await http.get(path, headers=headers)).json()["timers"][0]["reason"] == "tea"
            rung = await _second_turn(http, path, headers)
            assert rung["reply"]["text"] == "It is time: tea."
            turns = (await http.get(f"{path}/turns", headers=headers)).json()["turns"]
            assert len(turns) == 2


async def _second_turn(
    http: httpx.AsyncClient, path: str, headers: dict[str, str]
) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while True:
            turn = await http.get(f"{path}/turns/2", headers=headers)
            if turn.status_code == 200:
                found: dict[str, Any] = turn.json()
                return found
            await asyncio.sleep(0.1)


async def test_job_report(tmp_path: Path) -> None:
    """What the web hook says twice is said once; a failed job asks, and the answer is answered."""
    with running("job_report", tmp_path) as url:
        async with client(url) as http:
            made = (await http.post("/sessions")).json()
            headers = {"Authorization": f"Bearer {made['token']}", "Prefer": "wait=20"}
            path = f"/sessions/{made['id']}"
            await http.post(f"{path}/turns", json={"text": "go"}, headers=headers)
            for job, state in ((1, "done"), (1, "done"), (2, "failed")):
                hook = {"job": f"{made['id']}/{job}", "state": state}
                assert (await http.post("/hook", json=hook)).status_code == 200
            history = (await http.get(f"{path}/messages", headers=headers)).json()
            texts = [message["text"] for message in history["messages"]]
            assert texts[2:] == [
                f"Job {made['id']}/1 is done.", f"Job {made['id']}/2 has failed. Again?",
            ]  # fmt: skip
            (ask,) = history["asks"]
            again = await http.post(
                f"{path}/turns", json={"answers": [{"ask": ask, "value": "yes"}]}, headers=headers
            )
            assert again.json()["reply"]["text"] == "It runs again."
