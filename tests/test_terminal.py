"""The terminal channel in a real pseudo-terminal, and the command line's other verbs."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from conftest import HERE, Process
from terminals import PROMPT, Terminal
from turnwise.channels.terminal import printable
from turnwise.stores.sqlite import SQLiteStore


def test_chatting(terminal: Callable[..., Terminal]) -> None:
    """Streams an answer; Ctrl-C stops the turn and not the program; history on return, and how
    each turn ended."""
    chat = terminal("chat")
    chat.wait_for(PROMPT)
    chat.type("my name is Ada\r")
    chat.wait_for(r"Nice to meet you, \*\*Ada\*\*")
    chat.wait_for(PROMPT)
    chat.type("count to 100\r")
    chat.wait_for("3, ")
    chat.type("\x03")
    chat.wait_for(r"\(stopped\)")
    chat.wait_for(PROMPT)
    chat.press("\x03", "Ctrl-D leaves")
    chat.type("who am i?\r")
    chat.wait_for(r"You are \*\*Ada\*\*")
    chat.wait_for(PROMPT)
    assert chat.end() == 0
    again = terminal("chat")
    again.wait_for("my name is Ada")
    again.wait_for("count to 100")
    again.wait_for(r"\(stopped\)")
    again.wait_for(PROMPT)
    again.type("/reset\r")
    again.wait_for("empty")
    again.type("who am i?\r")
    again.wait_for("do not know")
    again.wait_for(PROMPT)
    assert again.end() == 0


def test_an_agent_in_the_terminal(
    terminal: Callable[..., Terminal], serve: Callable[..., Process]
) -> None:
    """A step is one line; a number or a choice is the answer if it is typed after the question, in
    this process and on a server; any other text is a message."""
    for flags in ((), ("--url", serve().url)):
        chat = terminal("chat", *flags)
        chat.wait_for(PROMPT)
        chat.type("plan a trip to Atlantis\r")
        chat.wait_for("✗ get_weather no station in Atlantis reports")
        chat.wait_for(PROMPT)
        chat.type("plan a trip to Paris\r")
        chat.wait_for("✓ get_weather")
        chat.wait_for("Shall I put it into your notes")
        chat.wait_for("2 No")
        chat.wait_for(PROMPT)
        chat.type("1\r")
        chat.wait_for("Done")
        chat.wait_for(PROMPT)
        chat.type("1\r")
        chat.wait_for(r"You said: \*1\*")
        chat.wait_for(PROMPT)
        assert chat.end() == 0


def test_an_ask_that_another_client_closed(
    terminal: Callable[..., Terminal], serve: Callable[..., Process]
) -> None:
    """What is typed then is a message, and the terminal goes on."""
    url = serve().url
    token = httpx.post(f"{url}/sessions", json={}).json()["token"]
    for flags in ((), ("--url", url, "--token", token)):
        chat, other = terminal("chat", *flags), terminal("chat", *flags)
        chat.wait_for(PROMPT)
        chat.type("plan a trip to Paris\r")
        chat.wait_for("2 No")
        chat.wait_for(PROMPT)
        other.wait_for(PROMPT)
        other.type("something else\r")
        other.wait_for(r"You said: \*something else\*")
        other.wait_for(PROMPT)
        assert other.end() == 0
        chat.type("1\r")
        chat.wait_for(r"You said: \*1\*")
        chat.wait_for(PROMPT)
        assert chat.end() == 0


def test_chatting_with_a_server(
    terminal: Callable[..., Terminal], serve: Callable[..., Process]
) -> None:
    """--url talks to a server, and goes on after the server was killed and restarted."""
    process = serve("bots:counter")
    chat = terminal("chat", "--url", process.url)
    chat.wait_for(PROMPT)
    chat.type("40\r")
    chat.wait_for("3 ")
    process.kill()
    chat.wait_for("connection is lost")
    process.start()
    chat.wait_for(r"\(again\)")
    chat.wait_for("39 40 ")
    chat.wait_for(PROMPT)
    chat.type("zwei\r")
    chat.wait_for("ran into an error")
    chat.wait_for(PROMPT)
    process.kill()
    chat.type("7\r")  # while nobody is there: it is sent again, as one message
    process.start()
    chat.wait_for("6 7 ")
    chat.wait_for(PROMPT)
    chat.type("/history\r")
    seen = chat.wait_for(PROMPT)
    assert seen.count("you: 7") == 1
    assert "ran into an error" in seen
    assert chat.end() == 0


@pytest.mark.parametrize("remote", [False, True])
def test_taking_back_in_the_terminal(
    terminal: Callable[..., Terminal], serve: Callable[..., Process], remote: bool, tmp_path: Path
) -> None:
    """The last message is edited and answered anew, and the conversation goes on in a copy."""
    if remote:
        chat = terminal("chat", "--url", serve("bots:echo").url)
    else:
        chat = terminal("chat", "bots:echo", "--store", "sqlite:///t.db")
    chat.wait_for(PROMPT)
    chat.type("/again\r")
    chat.wait_for("You have not sent a message yet")
    chat.wait_for(PROMPT)
    chat.type("one\r")
    chat.wait_for("1: one")
    chat.wait_for(PROMPT)
    chat.type("/edit uno\r")
    chat.wait_for(": uno")
    chat.wait_for(PROMPT)
    chat.type("/again\r")
    chat.wait_for(": uno")
    chat.wait_for(PROMPT)
    chat.type("/fork\r")
    chat.wait_for("This is a copy")
    chat.wait_for(PROMPT)
    chat.type("two\r")
    chat.wait_for(": two")
    chat.wait_for(PROMPT)
    chat.type("/file nothing.txt\r")
    chat.wait_for("cannot be read")
    chat.wait_for(PROMPT)
    chat.type("/history\r")
    seen = chat.wait_for(PROMPT)
    assert seen.count("you: uno") == 1
    assert "you: one" not in seen
    assert "you: two" in seen
    if not remote:
        chat.type("/sessions\r")
        seen = chat.wait_for(PROMPT)
        assert "4 messages" in seen
        number = next(line for line in seen.splitlines() if "2 messages" in line).split()[0]
        chat.type(f"/sessions {number}\r")
        assert "you: two" not in chat.wait_for(PROMPT)
    notes = tmp_path / "my notes.txt"
    notes.write_text("buy milk")
    chat.type(f"/file '{notes}' read this\r")
    chat.wait_for(": read this")
    chat.wait_for(PROMPT)
    assert chat.end() == 0


def turnwise(*arguments: str, cwd: Path, status: int = 0) -> str:
    """Run the command line; its output."""
    done = subprocess.run(
        [sys.executable, "-m", "turnwise", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(HERE), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_sessions_from_the_command_line(tmp_path: Path, serve: Callable[..., Process]) -> None:
    """list, show, export and delete, as tables and as JSON, beside a running server."""
    process = serve("bots:echo")
    store = ("--store", f"sqlite:///{tmp_path / 'p.db'}")
    ids = []
    for n in range(25):
        made = httpx.post(f"{process.url}/sessions", json={"name": f"n{n}"}).json()
        headers = {"Authorization": f"Bearer {made['token']}", "Prefer": "wait=20"}
        turns = f"{process.url}/sessions/{made['id']}/turns"
        httpx.post(turns, json={"text": f"hi {n} \x1b[31m"}, headers=headers)
        ids.append(made["id"])
    assert "n7" in turnwise("sessions", "list", *store, cwd=tmp_path)
    listed = json.loads(turnwise("sessions", "list", "--json", *store, cwd=tmp_path))
    assert {session["id"] for session in listed} == set(ids)
    shown = turnwise("sessions", "show", ids[0], *store, cwd=tmp_path)
    assert "1: hi 0" in shown
    assert "\x1b[31m" not in shown
    whole = json.loads(turnwise("sessions", "show", ids[0], "--json", *store, cwd=tmp_path))
    assert [m["role"] for m in whole["history"]] == ["user", "assistant"]
    assert whole["state"] == {"count": 1}
    turnwise("sessions", "export", "--all", "-o", "out.jsonl", *store, cwd=tmp_path)
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert {json.loads(line)["id"] for line in lines} == set(ids)
    one = turnwise("sessions", "export", ids[1], *store, cwd=tmp_path)
    assert json.loads(one)["history"][0]["text"].startswith("hi 1")
    assert "Deleted 2" in turnwise("sessions", "delete", *ids[:2], *store, cwd=tmp_path)
    turnwise("sessions", "show", ids[0], *store, cwd=tmp_path, status=1)
    turnwise("sessions", "delete", ids[0], *store, cwd=tmp_path, status=1)
    assert "Deleted 23" in turnwise("sessions", "delete", "--all", "-y", *store, cwd=tmp_path)
    assert "No sessions" in turnwise("sessions", "list", *store, cwd=tmp_path)


async def _make(path: Path) -> None:
    store = SQLiteStore(path)
    await store.open()
    await store.close()


def test_check(tmp_path: Path) -> None:
    """What the store is and what its word is worth; a store that cannot be is an error."""
    missing = turnwise("check", f"sqlite:///{tmp_path / 'c.db'}", cwd=tmp_path, status=1)
    assert "does not exist" in missing
    asyncio.run(_make(tmp_path / "c.db"))
    found = turnwise("check", f"sqlite:///{tmp_path / 'c.db'}", cwd=tmp_path)
    assert "FULL" in found
    assert "The store can keep messages" in found
    assert "integrity" in found
    facts = json.loads(turnwise("check", "--json", f"sqlite:///{tmp_path / 'c.db'}", cwd=tmp_path))
    assert facts["journal"] == "wal"
    assert "names no store" in turnwise("check", "mongodb://x", cwd=tmp_path, status=1)
    (tmp_path / "text.db").write_text("this is no database, it is a text that is long enough" * 9)
    told = turnwise("check", f"sqlite:///{tmp_path / 'text.db'}", cwd=tmp_path, status=1)
    assert "Cannot open" in told


def test_wrong_names_are_told_in_a_line(tmp_path: Path, serve: Callable[..., Process]) -> None:
    """No module, no bot in it, a port that is taken."""
    err = turnwise("serve", "nowhere:bot", cwd=tmp_path, status=1)
    assert "module 'nowhere' does not exist" in err
    assert "has no 'nothing'" in turnwise("serve", "bots:nothing", cwd=tmp_path, status=1)
    assert "bots:echo" in turnwise("serve", "bots.py:echo", cwd=tmp_path, status=1)
    assert "port" in turnwise("serve", "--port", "99999", cwd=tmp_path, status=1)
    assert "log_level" in turnwise("serve", "--log-level", "loud", cwd=tmp_path, status=1)
    assert "names no store" in turnwise("serve", "--store", "x.db", cwd=tmp_path, status=1)
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    store = f"sqlite:///{blocked / 'x.db'}"
    assert "Cannot open" in turnwise("serve", "--store", store, cwd=tmp_path, status=1)
    nobody = turnwise("chat", "--url", "http://127.0.0.1:9/", cwd=tmp_path, status=1)
    assert "No server answers" in nobody
    assert turnwise("--version", cwd=tmp_path).startswith("turnwise 0.")
    port = str(serve("bots:echo").port)
    assert "Try --port" in turnwise("serve", "--port", port, cwd=tmp_path, status=1)


def test_serve_and_work_apart(tmp_path: Path, serve: Callable[..., Process]) -> None:
    """Servers started with --no-work leave the turns to `turnwise work`."""
    process = serve("bots:echo", "--no-work")
    made = httpx.post(f"{process.url}/sessions", json={}).json()
    headers = {"Authorization": f"Bearer {made['token']}", "Prefer": "wait=1"}
    turns = f"{process.url}/sessions/{made['id']}/turns"
    assert httpx.post(turns, json={"text": "hi"}, headers=headers).json()["status"] == "queued"
    store = f"sqlite:///{tmp_path / 'p.db'}"
    worker = subprocess.Popen(
        [sys.executable, "-m", "turnwise", "work", "bots:echo", "--store", store],
        env={**os.environ, "PYTHONPATH": str(HERE)},
        stdout=subprocess.DEVNULL,
    )
    try:
        headers["Prefer"] = "wait=20"
        done = httpx.get(f"{turns}/1", headers=headers, timeout=30).json()
        assert done["reply"]["text"] == "1: hi"
    finally:
        worker.terminate()
        assert worker.wait(15) == 0


def test_help_names_every_setting(tmp_path: Path) -> None:
    """`serve --help` shows each setting with its default and its variable."""
    from turnwise.settings import Settings

    shown = turnwise("serve", "--help", cwd=tmp_path) + turnwise("work", "--help", cwd=tmp_path)
    for name in Settings.model_fields:
        assert f"TURNWISE_{name.upper()}" in shown, name


def test_settings_come_from_a_file_too(tmp_path: Path) -> None:
    """`.env` counts below variables and flags."""
    asyncio.run(_make(tmp_path / "env.db"))
    (tmp_path / ".env").write_text(f"TURNWISE_STORE=sqlite:///{tmp_path / 'env.db'}\n")
    assert "env.db" in turnwise("check", cwd=tmp_path)


def test_nothing_drives_the_terminal() -> None:
    """Control characters of others are taken out, lines and tabs stay."""
    assert printable("a\x1b[31mb\x07\n\tc\u202e") == "a\ufffd[31mb\ufffd\n\tc\ufffd"
