"""What outsiders do to a store: to its files, to its rights, to the time it takes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import Opener, Process, Talker, WorkerProcess, free_port, needs
from redis_servers import RedisServer, binary
from turnwise import Bot, Runtime, Turn
from turnwise.errors import ConfigurationError
from turnwise.settings import Settings
from turnwise.stores.open import open_store
from turnwise.stores.sqlite import SQLiteStore
from turnwise.stores.sqlite.locks import LockFile

ROOT = Path(__file__).parent.parent


def echo() -> Bot:
    return Bot(lambda turn: turn.text)


async def readiness(client: httpx.AsyncClient, status: int, patience: float = 5.0) -> None:
    """Return when the server says that it is ready, or that it is not."""
    async with asyncio.timeout(patience):
        while (await client.get("/health/ready")).status_code != status:
            await asyncio.sleep(0.1)


def lines_of(caplog: pytest.LogCaptureFixture, word: str) -> list[str]:
    return [r.getMessage() for r in caplog.records if word in r.getMessage()]


# The file


def delete(path: Path) -> None:
    path.unlink()


def delete_log(path: Path) -> None:
    path.with_name(path.name + "-wal").unlink()


def replace(path: Path) -> None:
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").rename(path)


@pytest.mark.parametrize("harm", [delete, delete_log, replace])
async def test_a_file_that_is_taken_away(
    open_sqlite_door: Opener, tmp_path: Path, harm: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Nothing is acknowledged that nobody would find again: 503, not ready, one line in the log."""
    async with open_sqlite_door(echo()) as door:
        talker = await door.session()
        await talker.say("kept")
        harm(tmp_path / "door.db")
        for _ in range(3):
            refused = await talker.call("POST", "/turns", json={"text": "lost"})
            assert refused.status_code == 503
            assert str(tmp_path) not in refused.text
        await readiness(door.client, 503)
        assert (await door.client.get("/health/live")).status_code == 200
    told = [record for record in caplog.records if record.name == "turnwise.store"]
    assert [record.levelname for record in told] == ["ERROR"]


async def outside(what: str, path: Path) -> None:
    """Do something with the file as `db` in another process: two SQLites in one break its locks."""
    program = f"import sqlite3; db = sqlite3.connect({str(path)!r}); {what}; db.close()"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    assert await process.wait() == 0


async def test_a_file_restored_by_sqlite_itself(
    sqlite_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A backup that is played back into the open file: it is noticed, a worker forgets what it
    remembered, and the conversation goes on from what is there."""
    seen: list[list[str]] = []

    async def reply(turn: Turn) -> str:
        seen.append([message.text for message in turn.messages])
        return f"re {turn.text}"

    path = tmp_path / "door.db"
    async with Runtime(Bot(reply), sqlite_url) as runtime:
        await runtime.ask("s", "one")
        await outside(f"db.backup(sqlite3.connect({str(tmp_path / 'backup.db')!r}))", path)
        await runtime.ask("s", "two")
        reader = runtime.gateway.follow("s", 0)
        await outside(f"sqlite3.connect({str(tmp_path / 'backup.db')!r}).backup(db)", path)
        async with asyncio.timeout(5):
            while not lines_of(caplog, "restored from a backup"):
                await asyncio.sleep(0.02)
        await runtime.ask("s", "three")
        assert seen[-1] == ["one", "re one", "three"]
        found = await reader.read(2.0)
        assert found
        reader.close()
        assert [m.text for m in await runtime.messages("s")] == [
            "one",
            "re one",
            "three",
            "re three",
        ]


def corrupt(path: Path, words: bytes, by: bytes) -> int:
    """Overwrite each place of the file where `words` stand."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = path.read_bytes()
    path.write_bytes(data.replace(words, by))
    return data.count(words)


async def test_a_stored_body_that_does_not_parse(
    sqlite_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, open_sqlite_door: Opener
) -> None:
    """Every door says so as a problem, and logs which session it is; no answer is broken JSON,
    and other sessions are as before."""
    async with Runtime(echo(), sqlite_url) as runtime:
        await runtime.ask("bad", "a canary here")
        await runtime.ask("good", "fine")
    assert corrupt(tmp_path / "door.db", b'"text":"a canary', b'"text:"a canary"') > 1
    async with open_sqlite_door(echo(), api_keys="k") as door:
        door.client.headers["Authorization"] = "Bearer k"
        for path in ("messages", "turns", "turns/1"):
            answer = await door.client.get(f"/sessions/bad/{path}")
            assert (answer.status_code, answer.json()["code"]) == (500, "damaged")
            assert (await door.client.get(f"/sessions/good/{path}")).status_code == 200
        polled = await door.client.get(
            "/sessions/bad/events", headers={"Accept": "application/json"}
        )
        assert (polled.status_code, polled.json()["code"]) == (500, "damaged")
        with pytest.raises(httpx.RemoteProtocolError):  # a stream breaks: it does not end well
            await door.client.get(
                "/sessions/bad/events?turn=1", headers={"Accept": "text/event-stream"}
            )
        said = await door.client.post(
            "/sessions/bad/turns", json={"text": "on"}, headers={"Prefer": "wait=5"}
        )
        assert said.json()["reply"]["text"] == "on"
    assert "session 'bad'" in lines_of(caplog, "cannot be read")[0]
    assert "canary" not in caplog.text


@pytest.mark.parametrize("damage", ["head", "middle", "text"])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, damage: str) -> None:
    """At the start, and for `turnwise check`: no traceback, and what to do."""
    path = tmp_path / "d.db"
    asyncio.run(_fill(path))
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    if damage == "text":
        path.write_text("this is no database " * 500)
    else:
        data = bytearray(path.read_bytes())
        start = 0 if damage == "head" else 4096 * 2
        data[start : start + 4096 * (1 if damage == "head" else len(data) // 4096 - 4)] = (
            os.urandom(4096 * (1 if damage == "head" else len(data) // 4096 - 4))
        )
        path.write_bytes(data)
    for command in ("check", "serve"):
        where = [f"sqlite:///{path}"] if command == "check" else ["--store", f"sqlite:///{path}"]
        done = subprocess.run(
            [sys.executable, "-m", "turnwise", command, *where], capture_output=True, text=True,
            timeout=60, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 1, done.stdout
        assert "Traceback" not in done.stderr
        assert "Restore it from a backup" in done.stderr or "damaged" in done.stderr, done.stderr


async def _fill(path: Path) -> None:
    async with Runtime(echo(), f"sqlite:///{path}") as runtime:
        for n in range(40):
            await runtime.ask(f"s{n}", "hello " * 50)


async def test_other_peoples_files(tmp_path: Path) -> None:
    """A folder, a file with two names, another application's database: refused, untouched."""
    (tmp_path / "folder").mkdir()
    store = SQLiteStore(tmp_path / "linked.db")
    await store.open()
    await store.close()
    os.link(tmp_path / "linked.db", tmp_path / "second.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "theirs.db")) as db:
        db.execute("CREATE TABLE session (x)")
    before = (tmp_path / "theirs.db").read_bytes()
    for name, words in (("folder", "folder"), ("second.db", "hard links"),
                        ("theirs.db", "another application")):  # fmt: skip
        with pytest.raises(ConfigurationError, match=words):
            await SQLiteStore(tmp_path / name).open()
    assert (tmp_path / "theirs.db").read_bytes() == before


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_files_are_private(tmp_path: Path, umask: int) -> None:
    """Whatever the umask: 0600, side files too. A file that was there keeps its mode, and gives
    it to the side files."""

    def modes(name: str) -> set[str]:
        program = f"import os, asyncio; os.umask({umask}); " + (
            "from turnwise.stores.sqlite import SQLiteStore\n"
            "async def main():\n"
            f"    store = SQLiteStore({str(tmp_path / name)!r})\n"
            "    await store.open(); await store.secret()\n"
            "    print(*(oct(p.stat().st_mode & 0o777) for p in store.path.parent.glob"
            f"('{name}*')))\n"
            "    await store.close()\n"
            "asyncio.run(main())"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        return set(done.stdout.split())

    assert modes("new.db") == {"0o600"}
    (tmp_path / "shared.db").touch()
    (tmp_path / "shared.db").chmod(0o660)
    assert modes("shared.db") == {"0o660"}


async def test_the_files_of_a_root_do_not_lock_others_out(tmp_path: Path) -> None:
    """`turnwise check` run by root leaves side files that belong to the store's owner."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    path = tmp_path / "o.db"
    path.touch()
    os.chown(path, 65534, 65534)
    store = SQLiteStore(path)
    await store.open()
    await store.secret()
    owners = {file.stat().st_uid for file in tmp_path.iterdir()}  # noqa: ASYNC240 small
    await store.close()
    assert owners == {65534}


async def test_a_disk_without_room(
    open_sqlite_door: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readiness tries a write: on a full disk it is false, and true again when there is room."""
    real = os.statvfs

    def full(path: Any) -> Any:
        found = real(path)
        return os.statvfs_result((*found[:4], 0, *found[5:]))

    async with open_sqlite_door(echo()) as door:
        await readiness(door.client, 200)
        monkeypatch.setattr(os, "statvfs", full)
        await readiness(door.client, 503)
        monkeypatch.setattr(os, "statvfs", real)
        await readiness(door.client, 200)


# The side file and the kernel's locks


@pytest.mark.slow
async def test_the_side_file_is_removed(tmp_path: Path, processes: list[Process]) -> None:
    """`rm p.db-pulse` under a server and a worker, then one more worker: nobody takes the others
    for dead, so each turn has one attempt."""
    web = Process(tmp_path, "bots:counter", "--no-work")
    first = WorkerProcess(tmp_path, "bots:counter", store=web.store)
    second = WorkerProcess(tmp_path, "bots:counter", store=web.store)
    processes += [web, first, second]
    web.start()
    first.start()
    async with web.client() as client:
        talker = await Talker.make(client)
        await talker.say("2")
        (tmp_path / "p.db-pulse").unlink()
        second.start()
        for _ in range(3):
            turn = await talker.say("12")
            assert (turn["status"], turn["attempt"]) == ("completed", 1)
    assert "was removed" in (tmp_path / "log").read_text()


def no_locks(error: int) -> Callable[..., Any]:
    def refuse(*_: Any) -> Any:
        raise OSError(error, os.strerror(error))

    return refuse


@pytest.mark.parametrize("name", ["EINVAL", "ENOLCK", "EOPNOTSUPP"])
async def test_kernels_without_locks(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """A share or a kernel without locks of open files: a warning, and leases decide."""
    monkeypatch.setattr("fcntl.fcntl", no_locks(getattr(errno, name)))
    async with Runtime(echo(), sqlite_url) as first, Runtime(echo(), sqlite_url) as second:
        for runtime in (first, second):
            assert (await runtime.ask("s", "hi", timeout=20)).text == "hi"
    assert lines_of(caplog, "leases alone decide")


def test_locks_do_not_outlive_their_process_in_a_child(tmp_path: Path) -> None:
    """A child that a handler forked does not make its dead parent look alive."""
    program = f"""
import os, sys, time
from pathlib import Path
from turnwise.stores.sqlite.locks import LockFile
file = LockFile(Path({str(tmp_path / "p")!r}), Path({str(tmp_path / "db")!r}))
file.open()
assert file.take(7)
if os.fork() == 0:
    time.sleep(30)
    os._exit(0)
print("forked", flush=True)
time.sleep(30)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True
    )
    assert parent.stdout is not None
    try:
        assert parent.stdout.readline() == b"forked\n"
        os.utime(tmp_path / "p", (0, 0))  # a file that was just made is not trusted yet
        file = LockFile(tmp_path / "p", tmp_path / "db")
        file.open()
        assert file.taken(7)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        until = time.monotonic() + 10  # the child may not have come to its first line yet
        while file.taken(7):
            assert time.monotonic() < until
            time.sleep(0.01)
        file.close()
    finally:
        parent.stdout.close()
        os.killpg(parent.pid, signal.SIGKILL)


# Answers that come too late, or never


async def test_the_store_goes_away_while_one_waits(
    own_server: RedisServer,
    open_away: Opener,
) -> None:
    """What was accepted is answered 202 with its turn, and not with an error that asks for it
    again; `ask` and readers wait until the store is back."""

    async def reply(turn: Turn) -> str:
        await asyncio.sleep(1.5)
        return turn.text

    async with open_away(Bot(reply)) as door:
        talker = await door.session()
        waiting = asyncio.ensure_future(
            talker.call("POST", "/turns", json={"text": "hi"}, headers={"Prefer": "wait=4"})
        )
        asking = asyncio.ensure_future(door.runtime.ask("mine", "hi"))
        await talker.events(1, wait=5)
        async with asyncio.timeout(5):
            while (await door.runtime.turn("mine", 1)).status != "running":
                await asyncio.sleep(0.01)
        own_server.signal(signal.SIGSTOP)
        try:
            answer = await waiting
        finally:
            own_server.signal(signal.SIGCONT)
        assert answer.status_code == 202, answer.text
        assert answer.json()["n"] == 1
        assert (await asking).text == "hi"
        turn = await talker.call("GET", "/turns/1", headers={"Prefer": "wait=10"})
        assert (turn.json()["status"], turn.json()["attempt"]) == ("completed", 1)


async def test_what_was_perhaps_kept(
    own_server: RedisServer,
    open_away: Opener,
) -> None:
    """Where the answer to a commit is lost, the error says that the message may have been kept, and
    no repetition is asked for; a key is looked up first, so there nothing was kept. A repetition
    with the same key is one turn."""
    async with open_away(echo()) as door:
        talker = await door.session()
        for text, headers in (("a", {}), ("b", {"Idempotency-Key": "k"})):
            await readiness(door.client, 200)
            await talker.say("before")
            own_server.signal(signal.SIGSTOP)
            try:
                lost = await talker.call("POST", "/turns", json={"text": text}, headers=headers)
            finally:
                own_server.signal(signal.SIGCONT)
            code = "store_unavailable" if headers else "perhaps_kept"
            assert (lost.status_code, lost.json()["code"]) == (503, code)
            assert lost.json()["retryable"] is bool(headers)
            assert ("may have been stored" in lost.json()["detail"]) is not bool(headers)
            async with asyncio.timeout(20):
                while (await talker.call("GET", "/messages")).status_code != 200:
                    await asyncio.sleep(0.1)
        async with asyncio.timeout(20):
            while True:
                again = await talker.call(
                    "POST", "/turns", json={"text": "b"},
                    headers={"Idempotency-Key": "k", "Prefer": "wait=5"},
                )  # fmt: skip
                if again.is_success:
                    break
        assert (await talker.history()).count("b") == 2


@pytest.mark.parametrize("fault", ["read-only", "memory", "replicas", "publish"])
async def test_a_redis_that_cannot_keep_anything(
    own_server: RedisServer,
    open_away: Opener,
    fault: str,
) -> None:
    """A replica, a full memory, too few replicas, missing rights: not ready; ready again when it
    can, and no session is broken by what was refused."""
    config = {
        "memory": [("maxmemory", "1"), ("maxmemory", "0")],
        "replicas": [("min-replicas-to-write", "1"), ("min-replicas-to-write", "0")],
    }
    async with open_away(echo()) as door:
        talker = await door.session()
        await readiness(door.client, 200)
        with own_server.client() as redis:
            for on in (True, False):
                if fault == "read-only":
                    redis.replicaof("127.0.0.1", 1) if on else redis.replicaof("NO", "ONE")
                elif fault == "publish":
                    redis.execute_command(
                        "ACL", "SETUSER", "default", f"{'-' if on else '+'}publish"
                    )
                else:
                    redis.config_set(*config[fault][0 if on else 1])
                if on:
                    await readiness(door.client, 503)
                    said = await talker.call("POST", "/turns", json={"text": "x"})
                    # Without the right to publish all is kept, and other processes hear late.
                    assert said.status_code == (202 if fault == "publish" else 503)
                else:
                    await readiness(door.client, 200)
                    assert (await talker.say("now"))["reply"]["text"] == "now"


# A Redis user's rights


def documented_rights() -> str:
    text = (ROOT / "docs" / "deploy.md").read_text()
    found = re.search(r"ACL SETUSER turnwise (.+?)```", text, re.S)
    assert found
    return found[1]


def test_the_documented_rights_are_those_that_are_used() -> None:
    """Every command of the store is in the list, and no other is."""
    rights = set(re.findall(r"\+([a-z|]+)", documented_rights()))
    files = [f for f in resources.files("turnwise.stores.redis").iterdir() if f.is_file()]
    texts = "".join(file.read_text() for file in files if not file.name.startswith("diag"))
    used = {name.lower() for name in re.findall(r"""\(["']([A-Z]{3,})["'][,)]""", texts)}
    way = {
        "hello", "cluster|slots", "subscribe", "unsubscribe", "ssubscribe", "sunsubscribe",
        "publish", "spublish", "hsetnx",
    }  # fmt: skip
    assert rights == (used - {"cluster", "moved", "noscript"}) | way


async def test_a_redis_user_with_few_rights(tmp_path: Path) -> None:
    """With exactly the documented rights two processes serve a conversation between them: turns,
    streams, Stop, readiness, sweeps; and without INFO it is said what is not known."""
    needs(binary() is not None, "redis-server")
    server = RedisServer(tmp_path / "acl", free_port())
    server.start()
    try:
        with server.client() as redis:
            rights = documented_rights().split()
            if redis.info()["redis_version"].startswith("6."):  # it has no sharded channels
                sharded = ("+ssubscribe", "+sunsubscribe", "+spublish")
                rights = [right for right in rights if right not in sharded]
            redis.execute_command("ACL", "SETUSER", "turnwise", *rights)
        url = f"redis://turnwise:password@127.0.0.1:{server.port}/0"
        settings = Settings(_env_file=None)

        async def slow(turn: Turn) -> AsyncIterator[str]:
            for i in range(int(turn.text)):
                yield f"{i} "
                await asyncio.sleep(0.05)

        web = Runtime(store=url, worker=False, settings=settings)
        async with web, Runtime(Bot(slow), url, settings=settings):
            assert (await web.ask("s", "3", timeout=20)).text == "0 1 2 "
            async for event in web.stream("s", "500", key="k"):
                if event.type == "delta":
                    break
            turn = await web.turn("s", key="k")
            assert (await web.gateway.cancel("s", turn.n)).status == "cancelled"
            await web.gateway.ping()
            await web.store.sweep(retention=0.0)
            assert "may not ask" in (await web.store.facts())["durability"]
            await web.gateway.reset("s")
            await web.gateway.delete("s")
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("query", "words"),
    [("?prefx=a", "prefx"), ("?ssl_cert_reqs=none", "ssl_cert_reqs"), ("chat", "number")],
)
async def test_redis_urls_that_name_nothing(query: str, words: str) -> None:
    """A misspelt parameter and a database that is no number are errors in words, and hide the
    password."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        open_store(f"redis://u:hunter2@127.0.0.1:1/{query}")
    assert "hunter2" not in caught.value.message


# What holds up the loop


@pytest.mark.slow
async def test_a_handler_that_holds_up_the_loop(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning names the session, the turn, the seconds and the line."""

    async def reply(turn: Turn) -> str:
        if turn.text == "block":
            time.sleep(2.2)  # noqa: ASYNC251 that is the fault
        return "done"

    async with Runtime(Bot(reply), sqlite_url) as runtime:
        with caplog.at_level(logging.WARNING):
            await runtime.ask("quick", "hi")
            await runtime.ask("the slow one", "block")
            async with asyncio.timeout(5):
                while not lines_of(caplog, "held up the event loop"):
                    await asyncio.sleep(0.05)
    (line,) = lines_of(caplog, "held up the event loop")
    assert "session 'the slow one' turn 1" in line
    assert re.search(r"for [12]\.\d s", line)
    assert "test_outsiders.py" in line
