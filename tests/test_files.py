"""Files that people send: taken in within limits, by what is in them, served to who may read."""

from __future__ import annotations

import base64
import os
import struct
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Opener, Talker
from test_models import model_server
from turnwise import Attachment, Bot, Message, Runtime, Turn, TurnError
from turnwise.errors import KeyReused, MissingExtra, NotFound, StoreUnavailable
from turnwise.files import FileStore, open_files
from turnwise.files.folder import Folder
from turnwise.files.kinds import WrongKind, checked_kind
from turnwise.files.memory import MemoryFiles
from turnwise.files.objects import Objects
from turnwise.gateway.files import FileLimits, Files
from turnwise.models import OpenAIChat
from turnwise.settings import Settings
from turnwise.stores.memory import MemoryStore

KEY = {"Authorization": "Bearer the-key"}


def png(size: int = 8) -> bytes:
    """A red square."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = b"".join(b"\0" + b"\xd0\x30\x30" * size for _ in range(size))
    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")  # fmt: skip  # noqa: E501


async def send(talker: Talker, content: bytes, name: str = "a.png", kind: str = "image/png") -> Any:
    return await talker.call("POST", "/files", files={"file": (name, content, kind)})


async def test_a_file_is_sent_and_read(open_door: Opener, tmp_path: Path) -> None:
    """Upload, name it in a message, read it back: its own client, the bot, and nobody else."""
    seen: list[tuple[str, str | None, int | None, bytes]] = []

    async def reply(turn: Turn) -> str:
        for one in turn.message.attachments:
            seen.append((one.type, one.name, one.size, await turn.file(one)))
        return "nice"

    given = {"files": str(tmp_path / "files"), "api_keys": "the-key", "guests": True}
    async with open_door(Bot(reply), **given) as door:
        talker, other = await door.session(), await door.session()
        made = await send(talker, png(), "../../red.png")
        assert made.status_code == 201, made.text
        file = made.json()
        assert (file["name"], file["type"], file["size"]) == ("red.png", "image/png", len(png()))
        assert made.headers["location"] == file["url"]
        data = "data:text/plain;base64," + base64.b64encode(b"hi").decode()
        body = {
            "text": "look",
            "attachments": [
                {"type": "text/html", "url": file["url"], "name": "evil.html", "size": 1},
                {"type": "text/plain", "url": data},
            ],
        }
        turn = (
            await talker.call("POST", "/turns", json=body, headers={"Prefer": "wait=20"})
        ).json()
        assert turn["status"] == "completed", turn
        assert seen == [
            ("image/png", "red.png", len(png()), png()), ("text/plain", None, None, b"hi"),
        ]  # fmt: skip
        shown = await door.client.get(file["url"], headers=talker.auth)
        assert shown.content == png()
        assert shown.headers["content-type"] == "image/png"
        assert shown.headers["content-disposition"].startswith("inline")
        assert "sandbox" in shown.headers["content-security-policy"]
        assert (await door.client.get(file["url"], headers=KEY)).status_code == 200
        assert (await door.client.get(file["url"])).status_code == 401
        assert (await door.client.get(file["url"], headers=other.auth)).status_code == 404
        stolen = {"text": "x", "attachments": [{"type": "image", "url": file["url"]}]}
        refused = await other.call("POST", "/turns", json=stolen)
        assert refused.status_code == 422
        absent = file["url"].rpartition("/")[0] + "/nothing"
        stolen["attachments"][0]["url"] = absent  # type: ignore[index]
        assert (await talker.call("POST", "/turns", json=stolen)).status_code == 422
        assert (await door.client.get(absent, headers=talker.auth)).status_code == 404


@pytest.mark.parametrize(
    ("content", "name", "said", "kept", "inline"),
    [
        (b"hello", "a.txt", "text/plain", "text/plain", False),
        (b"<script>alert(1)</script>", "a.html", "text/html", "text/html", False),
        (b"<svg onload='x'/>", "a.svg", "image/svg+xml", "image/svg+xml", False),
        (b"%PDF-1.7 ...", "a.pdf", "application/pdf", "application/pdf", True),
        (b"PK\x03\x04...", "a.docx", "application/vnd.openxmlformats", None, False),
        (b"\0\1\2", "a", "application/octet-stream", "application/octet-stream", False),
        (b"%PDF-1.7 ...", "a.png", "image/png", "refused", False),
        (b"<script>", "a.png", "image/png", "refused", False),
        (png(), "a.html", "text/html", "refused", False),
        (b"\0\1\2", "a.txt", "text/plain", "refused", False),
    ],
)
async def test_kinds(
    open_sqlite_door: Opener,
    content: bytes,
    name: str,
    said: str,
    kept: str | None,
    inline: bool,
) -> None:
    """What is in a file is of the type that it is said to be; what could run is downloaded."""
    async with open_sqlite_door(Bot(lambda turn: "")) as door:
        talker = await door.session()
        made = await send(talker, content, name, said)
        if kept == "refused":
            assert (made.status_code, made.json()["code"]) == (415, "wrong_file_type")
            return
        assert made.json()["type"] == (kept or said)
        shown = await door.client.get(made.json()["url"], headers=talker.auth)
        assert shown.headers["content-disposition"].startswith("inline") is inline
        served = kept if inline else "application/octet-stream"
        assert shown.headers["content-type"] == served


async def test_limits_of_files(open_sqlite_door: Opener) -> None:
    """Of one file, of a session, of the form; a refused one leaves nothing."""
    async with open_sqlite_door(Bot(lambda turn: ""), max_file=1000, max_files=1500) as door:
        talker = await door.session()
        assert (await send(talker, b"x" * 1001, "a.txt", "text/plain")).status_code == 413
        assert (await send(talker, b"x" * 50_000, "a.txt", "text/plain")).status_code == 413
        assert (await send(talker, b"", "a.txt", "text/plain")).status_code == 422
        assert (await send(talker, b"x" * 900, "a.txt", "text/plain")).status_code == 201
        assert (await send(talker, b"x" * 900, "a.txt", "text/plain")).status_code == 413
        two = {"a": ("a.txt", b"x", "text/plain"), "b": ("b.txt", b"x", "text/plain")}
        assert (await talker.call("POST", "/files", files=two)).status_code == 422
        assert (await talker.call("POST", "/files", json={"file": "x"})).status_code == 415
        broken = {"Content-Type": "multipart/form-data; boundary=x"}
        assert (await talker.call("POST", "/files", content=b"nonsense", headers=broken)).status_code in (400, 422)  # fmt: skip  # noqa: E501
        (place,) = [p for p in door.runtime.store.path.parent.glob("*-files/*") if p.is_dir()]  # type: ignore[attr-defined]
        assert len(list(place.iterdir())) == 2  # the one, and whose they are
        assert (place.stat().st_mode & 0o777, place.parent.stat().st_mode & 0o777) == (0o700, 0o700)


async def test_a_server_that_keeps_no_files(open_door: Opener, store_url: str) -> None:
    """Where there is no place for them it is said how to make one; SQLite has one beside it."""
    async with open_door(Bot(lambda turn: "")) as door:
        made = await send(await door.session(), png())
        if store_url.startswith("sqlite"):
            assert made.status_code == 201
        else:
            assert (made.status_code, made.json()["code"]) == (501, "no_file_store")
            assert "TURNWISE_FILES" in made.json()["detail"]


async def test_a_bot_reads_files_of_its_session_only(tmp_path: Path) -> None:
    """Whatever an attachment of a given history names: no path leads out of the folder, and none
    into another session."""
    (tmp_path / "secret.txt").write_bytes(b"TOP SECRET")
    found: list[str] = []

    async def reply(turn: Turn) -> str:
        for message in turn.messages:
            for one in message.attachments:
                try:
                    found.append((await turn.file(one)).decode())
                except NotFound:
                    found.append("not found")
        return "ok"

    settings = Settings(files=str(tmp_path / "files"))
    async with Runtime(Bot(reply), "memory:", settings=settings) as runtime:
        kept = await runtime.upload("s", "a.txt", b"mine")
        other = await runtime.upload("t", "b.txt", b"theirs")
        mine = kept.url
        urls = [
            mine, other.url, "/sessions/s/files/../../../secret.txt", f"//evil{mine}",
            f"/sessions/s/files/{other.url.rpartition('/')[2]}", f"{mine}/../../x",
        ]  # fmt: skip
        files = [Attachment("text/plain", url) for url in urls]
        said = Message("see", files, role="user")
        await runtime.say("s", said)
        await runtime.ask("s", "look")
        assert found == ["mine"] + ["not found"] * 5


async def test_a_repeated_word_with_another_file_is_another_word() -> None:
    """A key belongs to all that was said with it, the time included."""
    one = [Message("see", [Attachment("image/png", f"https://x/{i}.png")]) for i in range(2)]
    async with Runtime(Bot(lambda turn: "ok"), "memory:") as runtime:
        await runtime.say("s", one[0], key="k")
        await runtime.say("s", one[0], key="k")
        with pytest.raises(KeyReused):
            await runtime.say("s", one[1], key="k")
        soon = time.time() + 1000
        await runtime.wake("s", "tea", at=soon, key="t")
        await runtime.wake("s", "tea", at=soon, key="t")
        with pytest.raises(KeyReused):
            await runtime.wake("s", "tea", at=soon + 5, key="t")


async def test_files_go_with_their_session(open_door: Opener, tmp_path: Path) -> None:
    """A reset and a deletion leave nothing; a fork has its own copies, at its own addresses."""
    root = tmp_path / "files"
    async with open_door(Bot(lambda turn: "ok"), files=str(root)) as door:
        talker = await door.session()
        urls = []
        for text in ("one", "two"):
            url = (await send(talker, text.encode(), f"{text}.txt", "text/plain")).json()["url"]
            urls.append(url)
            body = {"text": text, "attachments": [{"type": "file", "url": url}]}
            await talker.call("POST", "/turns", json=body, headers={"Prefer": "wait=20"})
        fork = Talker(door.client, (await talker.call("POST", "/fork", json={"at": 1})).json())
        history = (await fork.call("GET", "/messages")).json()["messages"]
        (attached,) = history[0]["attachments"]
        assert attached["url"].startswith(fork.path)
        copy = await door.client.get(attached["url"], headers=fork.auth)
        assert copy.content == b"one"
        again = {"text": "again", "attachments": [attached], "replaces": 1}
        assert (await fork.call("POST", "/turns", json=again)).status_code == 202
        await talker.call("DELETE")
        assert (await door.client.get(urls[0], headers=talker.auth)).status_code in (401, 404)
        copy = await door.client.get(attached["url"], headers=fork.auth)
        assert copy.content == b"one"
        await fork.call("POST", "/reset")
        assert (await door.client.get(attached["url"], headers=fork.auth)).status_code == 404
        assert [file.name for file in root.rglob("*") if file.is_file()] == ["session"]


# File stores


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A local server that speaks S3, with a bucket."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    given = {
        "AWS_ENDPOINT_URL": endpoint, "AWS_ALLOW_HTTP": "true", "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1",
    }  # fmt: skip
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket="files")
    yield "s3://files/turnwise"
    for name, value in before.items():
        if value is None:
            os.environ.pop(name)
        else:
            os.environ[name] = value
    server.stop()


@pytest.fixture(params=["folder", "s3", "memory"])
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[FileStore]:
    if request.param == "folder":
        yield Folder(tmp_path / "files")
    elif request.param == "memory":
        yield MemoryFiles()
    else:
        yield Objects(f"{request.getfixturevalue('s3')}/{tmp_path.name}")


async def test_every_file_store(kept: FileStore) -> None:
    """Bytes by session and id, whatever text the session's id is; what is removed is gone."""
    assert await kept.prove()
    for session in ("a", "../b/漢字 " * 20, "c"):
        await kept.put(session, "1", b"one")
        await kept.put(session, "2", b"two")
        assert await kept.get(session, "1") == b"one"
        assert await kept.get(session, "3") is None
        assert {file.id for file in await kept.files(session)} == {"1", "2"}
    assert {session async for session in kept.sessions()} == {"a", "../b/漢字 " * 20, "c"}
    await kept.remove("a", "1")
    await kept.remove("a", "1")
    assert [file.id for file in await kept.files("a")] == ["2"]
    await kept.drop("a")
    await kept.drop("a")
    assert await kept.files("a") == []
    assert {session async for session in kept.sessions()} == {"../b/漢字 " * 20, "c"}


async def test_what_nobody_names_is_swept(kept: FileStore) -> None:
    """A file without a message after an hour, the bytes of which no session knows, and all of a
    session that has ended; what is named stays."""
    now = [time.time()]
    store = MemoryStore(clock=lambda: now[0])
    files = Files(store, kept, FileLimits())
    for session in ("s", "ended"):
        await store.create(session, ttl=1e5)
    named = await files.upload("s", "a.txt", "text/plain", b"named")
    unnamed = await files.upload("s", "b.txt", "text/plain", b"unnamed")
    await files.upload("ended", "c.txt", "text/plain", b"ended")
    await kept.put("s", "lost", b"a process died behind this")
    from turnwise.stores.records import Submission

    await store.submit(Submission("s", b'{"role":"user","id":"m","text":"x"}', files=[named.id]))
    await store.delete("ended")
    await files.sweep()
    assert {file.id for file in await kept.files("s")} == {named.id, unnamed.id, "lost"}
    assert [session async for session in kept.sessions()] == ["s"]
    now[0] -= 7200.0  # the file came two hours ago
    store2 = MemoryStore(clock=lambda: now[0])
    await store2.create("s", ttl=1e5)
    late = await Files(store2, kept, FileLimits()).upload("s", "d.txt", None, b"late")
    await Files(store2, kept, FileLimits()).sweep()
    assert await store2.files("s") == {}
    assert late.id not in {f.id for f in await kept.files("s") if f.at < time.time() - 3600}


async def test_a_file_store_that_is_away(tmp_path: Path) -> None:
    """503, to be tried again; the session is as it was, and deleting it does not fail."""
    (tmp_path / "files").write_text("this is no folder")
    store = MemoryStore()
    await store.create("s", ttl=1e5)
    files = Files(store, Folder(tmp_path / "files"), FileLimits())
    with pytest.raises(StoreUnavailable):
        await files.upload("s", "a.txt", None, b"x")
    assert await store.files("s") == {}
    await files.drop("s")


def test_where_files_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the setting; else beside the SQLite file; an object store needs an extra."""
    assert isinstance(open_files(str(tmp_path), None), Folder)
    assert isinstance(open_files("", tmp_path / "t.db"), Folder)
    assert open_files("", None) is None
    monkeypatch.setitem(__import__("sys").modules, "obstore", None)
    with pytest.raises(MissingExtra, match=r"turnwise\[files\]"):
        open_files("s3://bucket/prefix", None)


def test_a_type_without_a_word() -> None:
    """Without a type, or with one that says nothing, the content tells."""
    assert checked_kind(png(), None) == "image/png"
    assert checked_kind(b"hi", "application/octet-stream") == "text/plain"
    with pytest.raises(WrongKind):
        checked_kind(b"GIF89a...", "image/png")


async def test_python_sends_files(sqlite_url: str) -> None:
    """`runtime.upload` gives what `ask` takes."""

    async def reply(turn: Turn) -> str:
        return (await turn.file(turn.message.attachments[0])).decode()

    async with Runtime(Bot(reply), sqlite_url, settings=Settings(_env_file=None)) as runtime:
        attachment = await runtime.upload("s", "a.txt", b"hello", owner="ada")
        answer = await runtime.ask("s", "", attachments=[attachment], owner="ada", timeout=20)
        assert answer.text == "hello"
        stranger = [Attachment("text/plain", "https://example.org/a.txt")]
        with pytest.raises(TurnError):
            await runtime.ask("s", "", attachments=stranger, owner="ada", timeout=20)


async def test_a_model_gets_what_it_can_read(sqlite_url: str) -> None:
    """Images as data, texts as text; of anything else it is told that there is something."""
    async with model_server() as (server, url):
        model = OpenAIChat(base_url=f"{url}/v1", api_key="x", model="m")
        async with Runtime(Bot(model), sqlite_url, settings=Settings(_env_file=None)) as runtime:
            files = [
                await runtime.upload("s", "red.png", png()),
                await runtime.upload("s", "notes.txt", b"buy milk"),
                await runtime.upload("s", "a.zip", b"PK\x03\x04..."),
            ]
            await runtime.ask("s", "What is this?", attachments=files, timeout=20)
            await runtime.ask("s", "And now?", timeout=20)
        for request in server.requests[-2:]:
            first = next(m for m in request["messages"] if m["role"] == "user")
            text = "\n".join(part["text"] for part in first["content"] if part["type"] == "text")
            (image,) = [part for part in first["content"] if part["type"] == "image_url"]
            assert image["image_url"]["url"].startswith("data:image/png;base64,")
            assert "buy milk" in text
            assert "a.zip, which this model cannot read" in text
