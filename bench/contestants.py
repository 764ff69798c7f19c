"""The contestants: what is installed, how each is started, and how one talks to it over HTTP."""

from __future__ import annotations

import json
import os
import sys
import uuid
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from client import Connection

APPS = Path(__file__).parent / "peer_apps"
VENVS = Path(__file__).parent.parent / ".peers"
FORM = "content-type: application/x-www-form-urlencoded\r\n"


class Request(NamedTuple):
    """What is sent."""

    method: str
    path: str
    body: bytes = b""
    headers: str = ""


class Contestant(ABC):
    """One product, with one of its stores. `later`: it acknowledges a message before the reply."""

    name: str
    folder: str
    """Of its virtual environment; "" is Turnwise's own."""
    packages: tuple[str, ...] = ()
    store: str = ""
    """A kind: "" for none, "sqlite", "redis" or "postgres"."""
    files: tuple[str, ...] = ()
    """What it wants to find in the folder in which it starts, where it keeps its data, too."""
    ready = "/openapi.json"
    streams = True
    later = True
    resumes = True

    @property
    def python(self) -> Path:
        if not self.folder:
            return Path(sys.executable)
        return VENVS / self.folder / "bin" / "python"

    @abstractmethod
    def command(self, port: int) -> list[str]:
        """What starts the server."""

    def url(self, kind: str, given: str) -> str:
        """The store's URL as this product writes it."""
        return given

    environment: dict[str, str] = {}  # noqa: RUF012 each has its own

    async def begin(self, connection: Connection) -> Any:
        """A session."""
        return uuid.uuid4().hex

    @abstractmethod
    def ask(self, session: Any, text: str) -> Request:
        """A message whose answer has the reply."""

    def stream(self, session: Any, text: str) -> Request:
        """A message whose answer is the reply, piece by piece."""
        raise NotImplementedError

    def send(self, session: Any, text: str) -> Request:
        """A message that is acknowledged at once."""
        raise NotImplementedError

    @abstractmethod
    async def history(self, connection: Connection, session: Any) -> list[str]:
        """The texts of a session, in order; none if it is not there."""

    def resume(self, session: Any, run: Any) -> Request:
        """The stream of a run, again."""
        raise NotImplementedError

    def run_in(self, session: Any, chunk: bytes, head: bytes) -> Any:
        """What names the run of a stream that has begun."""
        return None


def uvicorn(python: Path, app: str, port: int) -> list[str]:
    return [
        str(python), "-m", "uvicorn", app, "--port", str(port), "--log-level", "warning",
        "--no-access-log", "--timeout-keep-alive", "120",
    ]  # fmt: skip


class Turnwise(Contestant):
    folder = ""

    def __init__(self, store: str) -> None:
        self.store = store
        self.name = f"Turnwise, {store}"

    def command(self, port: int) -> list[str]:
        return uvicorn(self.python, "turnwise_app:app", port)

    async def begin(self, connection: Connection) -> Any:
        made = json.loads(await connection.request("POST", "/sessions", b"{}"))
        return f"/sessions/{made['id']}", f"authorization: Bearer {made['token']}\r\n"

    def _request(self, session: Any, text: str, headers: str) -> Request:
        path, auth = session
        return Request("POST", f"{path}/turns", json.dumps({"text": text}).encode(), auth + headers)

    def ask(self, session: Any, text: str) -> Request:
        return self._request(session, text, "prefer: wait=60\r\n")

    def stream(self, session: Any, text: str) -> Request:
        return self._request(session, text, "accept: text/event-stream\r\n")

    def send(self, session: Any, text: str) -> Request:
        return self._request(session, text, "")

    async def history(self, connection: Connection, session: Any) -> list[str]:
        found = await connection.request("GET", f"{session[0]}/messages", b"", session[1])
        return [one["text"] for one in json.loads(found)["messages"]]

    def resume(self, session: Any, run: Any) -> Request:
        return Request("GET", f"{session[0]}/events?turn=1&after={run}", b"", session[1])

    def run_in(self, session: Any, chunk: bytes, head: bytes) -> Any:
        ids = [line[4:] for line in chunk.split(b"\n") if line.startswith(b"id: ")]
        return ids[-1].decode() if ids else None


class LangGraph(Contestant):
    name = "LangGraph dev server"
    folder = "langgraph"
    packages = ("langgraph-cli[inmem]==0.4.40", "langgraph-api==0.16.7", "langgraph==1.2.24")
    files = ("langgraph.json", "langgraph_app.py", "job.py")
    ready = "/ok"
    environment = {  # noqa: RUF012
        "LANGSMITH_TRACING": "false", "LANGGRAPH_CLI_NO_ANALYTICS": "1", "LOG_LEVEL": "WARNING",
        "LANGGRAPH_NO_VERSION_CHECK": "true",
    }  # fmt: skip

    def command(self, port: int) -> list[str]:
        program = str(self.python.parent / "langgraph")
        flags = ["--no-browser", "--no-reload", "--server-log-level", "WARNING"]
        jobs = ["--n-jobs-per-worker", "10"]  # its default
        return [program, "dev", *flags, *jobs, "--host", "127.0.0.1", "--port", str(port)]

    async def begin(self, connection: Connection) -> Any:
        return json.loads(await connection.request("POST", "/threads", b"{}"))["thread_id"]

    def _request(self, session: Any, text: str, kind: str, **more: Any) -> Request:
        given = {"messages": [{"role": "user", "content": text}]}
        body = json.dumps({"assistant_id": "echo", "input": given, **more}).encode()
        return Request("POST", f"/threads/{session}/runs{kind}", body)

    def ask(self, session: Any, text: str) -> Request:
        return self._request(session, text, "/wait")

    def stream(self, session: Any, text: str) -> Request:
        more = {"stream_mode": ["messages-tuple"], "stream_resumable": True}
        return self._request(session, text, "/stream", on_disconnect="continue", **more)

    def send(self, session: Any, text: str) -> Request:
        return self._request(session, text, "")

    async def history(self, connection: Connection, session: Any) -> list[str]:
        try:
            found = await connection.request("GET", f"/threads/{session}/state")
        except RuntimeError:
            return []
        values = json.loads(found)["values"] or {}
        return [one["content"] for one in values.get("messages", [])]

    def resume(self, session: Any, run: Any) -> Request:
        path = f"/threads/{session}/runs/{run}/stream"
        return Request("GET", path, b"", "last-event-id: 0\r\n")

    def run_in(self, session: Any, chunk: bytes, head: bytes) -> Any:
        line = next(one for one in head.split(b"\r\n") if one.lower().startswith(b"content-loc"))
        return line.decode().rpartition("/")[2]


class Agno(Contestant):
    name = "Agno AgentOS, sqlite"
    folder = "agno"
    store = "sqlite"
    packages = (
        "agno==3.1.10", "fastapi", "uvicorn", "sqlalchemy[asyncio]==2.1.9", "aiosqlite==0.22.1",
        "python-multipart",
    )  # fmt: skip
    ready = "/health"
    environment = {"AGNO_TELEMETRY": "false"}  # noqa: RUF012
    resumes = False

    def url(self, kind: str, given: str) -> str:
        return given.replace("sqlite:", "sqlite+aiosqlite:")

    def command(self, port: int) -> list[str]:
        return uvicorn(self.python, "agno_app:app", port)

    def _request(self, session: Any, text: str, **more: str) -> Request:
        body = urlencode({"message": text, "session_id": session, **more}).encode()
        return Request("POST", "/agents/echo/runs", body, FORM)

    def ask(self, session: Any, text: str) -> Request:
        return self._request(session, text, stream="false")

    def stream(self, session: Any, text: str) -> Request:
        return self._request(session, text, stream="true")

    def send(self, session: Any, text: str) -> Request:
        return self._request(session, text, stream="false", background="true")

    async def history(self, connection: Connection, session: Any) -> list[str]:
        try:
            found = await connection.request("GET", f"/sessions/{session}/runs?type=agent")
        except RuntimeError:
            return []
        texts = []
        for run in json.loads(found):
            texts += [run.get("run_input") or "", run.get("content") or ""]
        return texts


class Chatsky(Contestant):
    folder = "chatsky"
    packages = (
        "chatsky[sqlite,redis]==0.10.0", "sqlalchemy<2.1", "fastapi", "uvicorn",
    )  # fmt: skip
    streams = later = resumes = False

    def __init__(self, store: str) -> None:
        self.store = store
        self.name = f"Chatsky, {store}"

    def url(self, kind: str, given: str) -> str:
        if kind == "sqlite":
            return given.replace("sqlite:", "sqlite+aiosqlite:")
        return given + "?max_connections=5000"

    def command(self, port: int) -> list[str]:
        return uvicorn(self.python, "chatsky_app:app", port)

    def ask(self, session: Any, text: str) -> Request:
        return Request("POST", f"/chat?user_id={session}", json.dumps({"text": text}).encode())

    async def history(self, connection: Connection, session: Any) -> list[str]:
        found: list[str] = json.loads(await connection.request("GET", f"/chat?user_id={session}"))
        return found


class Naive(Contestant):
    name = "FastAPI, Redis GET/SET, BackgroundTasks"
    folder = ""
    store = "redis"
    resumes = False

    def command(self, port: int) -> list[str]:
        return uvicorn(self.python, "naive_app:app", port)

    def ask(self, session: Any, text: str) -> Request:
        return Request("POST", f"/chat/{session}", json.dumps({"text": text}).encode())

    def stream(self, session: Any, text: str) -> Request:
        return Request("POST", f"/chat/{session}/stream", json.dumps({"text": text}).encode())

    def send(self, session: Any, text: str) -> Request:
        return Request("POST", f"/chat/{session}/later", json.dumps({"text": text}).encode())

    async def history(self, connection: Connection, session: Any) -> list[str]:
        found: list[str] = json.loads(await connection.request("GET", f"/chat/{session}"))
        return found


CONTESTANTS: list[Contestant] = [
    Turnwise("sqlite"),
    Turnwise("redis"),
    Turnwise("postgres"),
    LangGraph(),
    Agno(),
    Chatsky("sqlite"),
    Chatsky("redis"),
    Naive(),
]


def environment(contestant: Contestant, store: str, **more: str) -> dict[str, str]:
    given = contestant.url(contestant.store, store)
    return {**os.environ, **contestant.environment, "PEER_STORE": given, **more}
