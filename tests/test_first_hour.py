"""A newcomer's first hour and an operator's first night, at the command line."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import HERE, Process, Talker, free_port
from terminals import PROMPT, Terminal
from turnwise import Batcher, Bot, Runtime, Settings, Turn, TurnError, telemetry
from turnwise.conversation import new_session_id
from turnwise.errors import ConfigurationError
from turnwise.models import OpenAIChat
from turnwise.testing import talk

ROOT = Path(__file__).parent.parent


def turnwise(
    *arguments: str, cwd: Path, status: int = 0, environment: dict[str, str] | None = None
) -> tuple[str, str]:
    """What a command prints on standard output and on standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "turnwise", *arguments], cwd=cwd, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(HERE), **(environment or {})}, timeout=60,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


EXTRAS = {
    "postgres": "from turnwise.stores.open import open_store; open_store('postgresql://x/y')",
    "redis": "from turnwise.stores.open import open_store; open_store('redis://x')",
    "openai": "from turnwise.models import OpenAIChat; OpenAIChat('m')",
    "telegram": "from turnwise.messengers.telegram import Telegram; Telegram('1:x')",
    "whatsapp": "from turnwise.messengers.whatsapp import WhatsApp; WhatsApp('1', 't', 's')",
    "slack": "from turnwise.messengers.slack import Slack; Slack('x', 'y')",
    "torch": "from turnwise.batching.functions.predict import forward; forward(object())",
    "sql": "from turnwise.batching.functions.sql import insert; insert(None, None)",
}
PACKAGES = {
    "postgres": "asyncpg",
    "telegram": "aiogram",
    "slack": "slack_bolt",
    "whatsapp": "pywa_async",
    "sql": "sqlalchemy",
}


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_missing_extra_names_the_line_that_installs_it(extra: str) -> None:
    """Printed whole, in brackets and all, however narrow the terminal is."""
    program = f"""
import sys
sys.modules[{PACKAGES.get(extra, extra)!r}] = None
import turnwise.cli.commands as cli
from turnwise.errors import ConfigurationError
cli.app = lambda: exec({EXTRAS[extra]!r}, {{}})
cli.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True,
        env={**os.environ, "COLUMNS": "30"},
    )  # fmt: skip
    assert f"pip install 'turnwise[{extra}]'" in done.stderr, done.stderr


def lines_of(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    yield from process.stdout


def test_it_says_where_it_serves_once_it_does(tmp_path: Path) -> None:
    """Whoever reads the line can connect; the password of a store is not in it, and a name with
    brackets is printed as it is."""
    port = free_port()
    store = f"sqlite:///{tmp_path}/a[b].db"
    process = subprocess.Popen(
        [sys.executable, "-m", "turnwise", "serve", "--port", str(port), "--store", store],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path,
        env={**os.environ, "COLUMNS": "300"},
    )  # fmt: skip
    try:
        lines = lines_of(process)
        assert f"at http://127.0.0.1:{port}/" in next(lines)
        with socket.create_connection(("127.0.0.1", port), 1):
            pass
        assert "a[b].db" in next(lines)
    finally:
        process.terminate()
        process.wait(15)
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize("command", ["serve", "work"])
def test_passwords_are_not_printed(tmp_path: Path, command: str) -> None:
    """Neither by a command that starts nor in its errors."""
    out, err = turnwise(
        command, "--store", "redis://u:hunter2@127.0.0.1:1/0", cwd=tmp_path, status=1
    )
    assert "hunter2" not in out + err
    assert "Cannot reach Redis" in err


@pytest.mark.parametrize("name", sorted(p.name for p in (ROOT / "examples").glob("*.yaml")))
def test_shipped_scripts_check_well(name: str) -> None:
    """`script check` and `draw` work on each, whatever functions it names."""
    path = f"examples/{name}"
    assert "works" in turnwise("script", "check", path, cwd=ROOT)[0]
    assert "-->" in turnwise("script", "draw", path, cwd=ROOT)[0]


def test_misspelt_settings_are_errors(tmp_path: Path) -> None:
    """In the environment and in `.env`, with a suggestion; a wrong value names its variable."""
    _, err = turnwise(
        "check", cwd=tmp_path, status=1, environment={"TURNWISE_STROE": "sqlite:///x.db"}
    )
    assert "Did you mean TURNWISE_STORE?" in err
    (tmp_path / ".env").write_text("TURNWISE_GRACE_TIME=5\n")
    assert "Did you mean TURNWISE_GRACE?" in turnwise("check", cwd=tmp_path, status=1)[1]
    (tmp_path / ".env").unlink()
    _, err = turnwise("check", cwd=tmp_path, status=1, environment={"TURNWISE_PORT": "http"})
    assert "TURNWISE_PORT" in err


@pytest.mark.slow
def test_reloading(tmp_path: Path, processes: list[Process]) -> None:
    """`--reload` serves the changed bot, with its sessions."""
    bot = tmp_path / "mybot.py"
    bot.write_text("from turnwise import Bot\nbot = Bot(lambda turn: 'first')\n")
    process = Process(tmp_path, "mybot:bot", "--reload")
    processes.append(process)
    process.start()
    made = httpx.post(f"{process.url}/sessions", json={}).json()
    headers = {"Authorization": f"Bearer {made['token']}", "Prefer": "wait=10"}
    turns = f"{process.url}/sessions/{made['id']}/turns"

    def say() -> str:
        answer = httpx.post(turns, json={"text": "hi"}, headers=headers, timeout=20)
        # While the server restarts it accepts the turn (202) or asks to try again (503).
        return str(answer.json()["reply"]["text"]) if answer.status_code == 200 else "later"

    assert say() == "first"
    bot.write_text("from turnwise import Bot\nbot = Bot(lambda turn: 'second')\n")
    until = time.monotonic() + 30
    while True:
        try:
            if say() == "second":
                break
        except httpx.TransportError:
            pass
        assert time.monotonic() < until
        time.sleep(0.2)
    process.stop()


# A failed turn


def failing() -> Bot:
    bot = Bot()

    @bot.reply
    async def reply(turn: Turn) -> str:
        if turn.text == "model":
            raise TurnError("The model is busy.", code="model_rate_limited", retryable=True)
        if turn.text == "bug":
            raise ValueError(f"cannot handle {turn.text!r}: secret words")
        return turn.text

    return bot


async def test_a_failed_turn_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By the log, with an id that the commands take; by `sessions list`, `show` and `export`,
    which say how each turn ended and why."""
    store = f"sqlite:///{tmp_path / 'f.db'}"
    async with Runtime(failing(), store, settings=Settings(_env_file=None)) as runtime:
        for text in ("fine", "bug", "model"):
            try:
                await runtime.ask("user 42", text)
            except TurnError:
                pass
    told = [record for record in caplog.records if "user 42" in record.getMessage()]
    assert [record.levelname for record in told] == ["ERROR", "WARNING"]
    assert "session 'user 42' turn 2" in told[0].getMessage()
    assert "model_rate_limited" in told[1].getMessage()
    assert "secret" not in caplog.text

    def run(*arguments: str) -> str:
        return turnwise("sessions", *arguments, "--store", store, cwd=tmp_path)[0]

    assert "user 42" in await asyncio.to_thread(run, "list", "--filter", "USER")
    assert "user 42" not in await asyncio.to_thread(run, "list", "--filter", "nobody")
    shown = await asyncio.to_thread(run, "show", "user 42")
    assert "turn 2 failed" in shown
    assert "handler_error" in shown
    assert "model_rate_limited, The model is busy." in shown
    await asyncio.to_thread(run, "export", "--all", "-o", str(tmp_path / "all.jsonl"))
    assert (tmp_path / "all.jsonl").stat().st_mode & 0o777 == 0o600
    exported = json.loads(await asyncio.to_thread(run, "export", "user 42"))
    ends = [(turn["n"], turn["status"]) for turn in exported["turns_ended"]]
    assert ends == [(1, "completed"), (2, "failed"), (3, "failed")]
    assert exported["turns_ended"][2]["error"]["code"] == "model_rate_limited"


async def test_debugging_shows_the_words(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`debug` (and `talk`, in tests) logs what an exception says, and the cause of an error."""
    settings = Settings(_env_file=None, debug=True)
    async with Runtime(failing(), f"sqlite:///{tmp_path / 'f.db'}", settings=settings) as runtime:
        with pytest.raises(TurnError):
            await runtime.ask("s", "bug")
    assert "secret words" in caplog.text
    caplog.clear()
    async with talk(failing()) as say:
        with pytest.raises(TurnError):
            await say("bug")
    assert "secret words" in caplog.text


async def test_the_list_of_sessions(tmp_path: Path) -> None:
    """The last used first, all of them however many there are, and a word about the rest."""
    store = f"sqlite:///{tmp_path / 'l.db'}"
    settings = Settings(_env_file=None, session_ttl=1000.0)
    now = [time.time() - 10_000_000]
    from turnwise.stores.sqlite import SQLiteStore

    kept = SQLiteStore(tmp_path / "l.db", clock=lambda: now[0])
    async with Runtime(failing(), kept, settings=settings, worker=False) as runtime:
        for n in range(620):
            now[0] += 1
            await runtime.gateway.create(session_id=f"s{n:03}", name=f"[b]no {n}", ttl=1e8)
        now[0] += 5_000_000
        await runtime.gateway.submit("s007", "hi")
        for again in ("s009", "s008", "s009", "s007"):  # no time at all, in a lifetime of years
            now[0] += 2
            await runtime.gateway.submit(again, "hi")

    def run(*arguments: str) -> str:
        return turnwise("sessions", "list", *arguments, "--store", store, cwd=tmp_path)[0]

    found = json.loads(await asyncio.to_thread(run, "--json", "--limit", "1000"))
    assert len(found) == 620
    assert [one["id"] for one in found[:4]] == ["s007", "s009", "s008", "s619"]
    first = json.loads(await asyncio.to_thread(run, "--json", "--limit", "1"))
    assert [one["id"] for one in first] == ["s007"]
    shown = await asyncio.to_thread(run, "--limit", "4")
    assert "616 more" in shown
    assert "[b]no 619" in shown


@pytest.mark.slow
async def test_a_worker_has_metrics(tmp_path: Path, processes: list[Process]) -> None:
    """`turnwise work --metrics-port`; and a gauge of the turns that wait for a worker."""
    port = free_port()
    web = Process(tmp_path, "bots:echo", "--no-work")
    processes.append(web)
    web.start()
    async with web.client() as client:
        talkers = [await Talker.make(client) for _ in range(3)]
        for talker in talkers:
            await talker.say("hi", None)
            await talker.say("hi", None)
        async with asyncio.timeout(15):
            while "turnwise_waiting_turns 3.0" not in (await client.get("/metrics")).text:
                await asyncio.sleep(0.1)
        command = ["work", "bots:echo", "--store", web.store, "--metrics-port", str(port)]
        worker = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "turnwise", *command,
            env={**os.environ, "PYTHONPATH": str(HERE)}, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            for talker in talkers:
                await talker.call("GET", "/turns/2", headers={"Prefer": "wait=20"})
            async with httpx.AsyncClient() as other:
                text = (await other.get(f"http://127.0.0.1:{port}/metrics")).text
            assert 'turnwise_turns_total{outcome="completed"} 6.0' in text
            async with asyncio.timeout(15):
                while "turnwise_waiting_turns 0.0" not in (await client.get("/metrics")).text:
                    await asyncio.sleep(0.1)
        finally:
            worker.terminate()
            assert await worker.wait() == 0
    assert b"turnwise_loop_held_seconds" in telemetry.exposition()


# What a process inherits


def test_chatting_where_ctrl_c_was_ignored(terminal: Callable[..., Terminal]) -> None:
    """A shell without job control starts background commands with SIGINT ignored: Ctrl-C stops
    the answer all the same."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        chat = terminal("chat")
    finally:
        signal.signal(signal.SIGINT, before)
    chat.wait_for(PROMPT)
    chat.type("count to 100\r")
    chat.wait_for("3, ")
    chat.type("\x03")
    chat.wait_for(r"\(stopped\)")
    chat.press("\x03", "Ctrl-D leaves")
    assert chat.end() == 0


SHELLS = {
    "closed": "exec {command} <&- >&- 2>&-",
    "closed output": "exec {command} >&-",
    "full": "exec {command} > /dev/full 2>&1",
    "nobody reads": "{command} | true",
    "no home, C locale, odd zone": (
        "umask 777; HOME=/nonexistent LC_ALL=C LANG=C TZ=Nowhere/Nothing PYTHONIOENCODING=ascii "
        "exec {command}"
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHELLS)
def test_serving_with_whatever_is_inherited(name: str, tmp_path: Path) -> None:
    """Closed or full streams, no home, another locale: the server serves."""
    port = free_port()
    store = f"sqlite:///{tmp_path}/d\N{LATIN SMALL LETTER E WITH ACUTE}j.db"
    command = f"{sys.executable} -m turnwise serve --port {port} --store {store}"
    shell = subprocess.Popen(
        ["bash", "-c", SHELLS[name].format(command=command)], start_new_session=True, cwd=tmp_path,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until = time.monotonic() + 30
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200:
                    break
            except httpx.TransportError:
                assert time.monotonic() < until
                time.sleep(0.1)
        time.sleep(0.5)  # the greeting has been printed, or could not be
        assert httpx.get(f"http://127.0.0.1:{port}/health/live").status_code == 200
    finally:
        os.killpg(shell.pid, signal.SIGTERM)
        shell.wait(20)


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    """One line, and no traceback."""
    program = "import os, sys, turnwise.cli.commands as cli; os.rmdir(os.getcwd()); cli.main()"
    (tmp_path / "gone").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program, "check"], cwd=tmp_path / "gone", capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "is gone" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_of_the_environment_reaches_the_tests() -> None:
    """Variables of the person who runs them are not there."""
    assert not [name for name in os.environ if name.startswith(("TURNWISE_", "OPENAI_"))]


# What newcomers write


def no_parameter() -> str:
    return "hi"


def test_a_handler_without_a_parameter() -> None:
    """It is refused when it is registered, and not at each turn."""
    with pytest.raises(ConfigurationError, match="one argument"):
        Bot(no_parameter)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["50", 0, -1, 2.5, True, float("nan")])
@pytest.mark.parametrize(
    ("what", "made"),
    [
        ("history", lambda n: Bot(history=n)),
        ("max_reply", lambda n: Bot(max_reply=n)),
        ("queue_limit", lambda n: Bot(queue_limit=n)),
        ("max_size", lambda n: Batcher(list, max_size=n)),
        ("max_queue", lambda n: Batcher(list, max_queue=n)),
        ("max_prompt", lambda n: OpenAIChat("m", base_url="http://localhost", max_prompt=n)),
    ],
)
def test_a_count_that_is_not_one_is_named(
    what: str, made: Callable[[Any], Any], wrong: Any
) -> None:
    """The error says which option it is and what was passed."""
    with pytest.raises(ConfigurationError, match=f"{what} must be a whole number.*{wrong}"):
        made(wrong)


@pytest.mark.parametrize("wrong", ["5", 0, -1.0, True, float("nan")])
@pytest.mark.parametrize(
    "made",
    [
        lambda seconds: Bot(timeout=seconds),
        lambda seconds: Bot().before(len, timeout=seconds),  # type: ignore[type-var]
        lambda seconds: Batcher(list, timeout=seconds),
        lambda seconds: OpenAIChat("m", base_url="http://localhost", timeout=seconds),
    ],
)
def test_a_timeout_that_is_not_one_is_named(made: Callable[[Any], Any], wrong: Any) -> None:
    """The error says which option it is and what was passed."""
    with pytest.raises(ConfigurationError, match=f"timeout must be a positive number.*{wrong}"):
        made(wrong)


async def test_a_state_that_is_not_json(caplog: pytest.LogCaptureFixture) -> None:
    """The log names the key."""

    async def reply(turn: Turn) -> str:
        turn.state["fine"] = 1
        turn.state["seen"] = {turn.n}
        return "ok"

    async with talk(reply) as say:
        with pytest.raises(TurnError, match="not JSON"):
            await say("hi")
    assert "state['seen'] is not JSON" in caplog.text


async def test_a_reply_of_another_type(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log says which, without `--debug`: it quotes no message."""

    async def reply(turn: Turn) -> Any:
        return {"text": turn.text}

    settings = Settings(_env_file=None)
    async with Runtime(reply, f"sqlite:///{tmp_path / 'b.db'}", settings=settings) as runtime:
        with pytest.raises(TurnError):
            await runtime.ask("a", "secret")
    assert "bad_reply: A reply is made of str and Message, not dict" in caplog.text
    assert "secret" not in caplog.text


async def test_a_held_state_that_is_not_json(tmp_path: Path) -> None:
    """The exception names the key."""
    settings = Settings(_env_file=None)
    bot = Bot(lambda turn: "hi")
    async with Runtime(bot, f"sqlite:///{tmp_path / 'b.db'}", settings=settings) as runtime:
        await runtime.ask("a", "hi")
        with pytest.raises(TurnError, match=r"state\['seen'\] is not JSON"):
            async with runtime.session("a") as held:
                held.state["seen"] = {1}


OPTIONS = {
    "chat mine:bot --url http://127.0.0.1:9": "its own bot",
    "chat --url http://127.0.0.1:9 --session ada": "needs its --token",
    "check {folder}/x.db": "try sqlite:///{folder}/x.db",
}


@pytest.mark.parametrize("options", OPTIONS)
def test_options_that_would_be_ignored(options: str, tmp_path: Path) -> None:
    """They are an error that says why."""
    words = options.format(folder=tmp_path).split()
    _, err = turnwise(*words, cwd=tmp_path, status=1, environment={"COLUMNS": "200"})
    assert OPTIONS[options].format(folder=tmp_path) in err


def test_a_terminal_says_how_it_went(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    """No reply is said; an error after some text has a line of its own and its cause a log line;
    an answer that the model cut is marked."""
    (tmp_path / "mine.py").write_text(
        "from turnwise import Bot\nbot = Bot()\n"
        "@bot.reply\nasync def reply(turn):\n"
        "    if turn.text == 'cut':\n        turn.metadata['ended'] = 'cut'\n"
        "    if turn.text != 'nothing':\n        yield 'some text'\n"
        "    if turn.text == 'fail':\n        raise ValueError('the cause')\n"
    )
    chat = terminal("chat", "mine:bot")
    chat.wait_for(PROMPT)
    chat.type("nothing\r")
    chat.wait_for(r"\(no reply\)")
    chat.type("cut\r")
    chat.wait_for(r"some text \(cut\)")
    chat.type("fail\r")
    seen = chat.wait_for("ran into an error") + chat.wait_for(PROMPT)
    assert re.search(r"^.*an error", seen, re.M)
    assert "some text" in seen
    assert not re.search("some text.*an error", seen)
    assert "ValueError: the cause" in seen
    assert chat.end() == 0


async def test_a_handler_that_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A forgotten `return` leaves a word in the log."""

    async def reply(turn: Turn) -> None:
        str(f"You said {turn.text}")

    with caplog.at_level("INFO"):
        async with talk(reply) as say:
            assert (await say("hi")).text == ""
    assert "nothing to say" in caplog.text


TARGETS = {
    "nowhere:bot": "The module 'nowhere' does not exist here",
    "mine.bot": "written module:name",
    "./mine.py": "turnwise serve mine:bot",
    "{folder}/mine.py:bot": "in {folder}, turnwise serve mine:bot",
    "mine:Kind": "is a class",
    "mine:missing": "has no 'missing'",
    "mine:bots": "There is: mine:bot",
    "wrong:bot": "wrong.py:1: ",
    "unnamed:bot": "unnamed.py:2: NameError: name 'Bott' is not defined",
    "lacking:bot": "lacking.py:1: ModuleNotFoundError: No module named 'nowhere'",
    "mine:app": "serve it with uvicorn",
}


@pytest.mark.parametrize("target", TARGETS)
def test_targets_that_are_none(target: str, tmp_path: Path) -> None:
    """One line that says how to write it."""
    (tmp_path / "mine.py").write_text(
        "from turnwise import Bot\nfrom fastapi import FastAPI\napp = FastAPI()\n"
        "bot = Bot(lambda turn: 'hi')\nclass Kind:\n    def __call__(self, turn): ...\n"
    )
    (tmp_path / "wrong.py").write_text("bot = (\n")
    (tmp_path / "unnamed.py").write_text("from turnwise import Bot\nbot = Bott()\n")
    (tmp_path / "lacking.py").write_text("import nowhere\n")
    named = target.format(folder=tmp_path)
    _, err = turnwise("serve", named, cwd=tmp_path, status=1)
    assert TARGETS[target].format(folder=tmp_path) in err
    assert len(err.splitlines()) == 1


def test_ids_never_look_like_options() -> None:
    """A session's id can be given to every command as it is."""
    assert not any(new_session_id().startswith("-") for _ in range(2000))


def test_a_picture_of_another_kind(tmp_path: Path) -> None:
    """`script draw -o x.png` writes no Mermaid into a picture."""
    script = ROOT / "examples" / "toy_script.yaml"
    _, err = turnwise("script", "draw", str(script), "-o", "x.png", cwd=tmp_path, status=1)
    assert ".png is not supported" in err
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_a_key_or_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI's own server needs a key, and an address begins with http."""
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        OpenAIChat("m")
    with pytest.raises(ConfigurationError, match="http://"):
        OpenAIChat("m", base_url="localhost:1234/v1")
    assert OpenAIChat("m", base_url="http://localhost:1234/v1").model == "m"


async def test_a_model_that_cannot_be_reached(caplog: pytest.LogCaptureFixture) -> None:
    """The log names the model and its address: an address without /v1 is a frequent mistake."""
    url = f"http://127.0.0.1:{free_port()}/typo"
    async with talk(OpenAIChat("mine", base_url=url, max_retries=0)) as say:
        with pytest.raises(TurnError):
            await say("hi")
    assert f"the model mine at {url}/: model_unreachable" in caplog.text


def test_a_model_named_in_a_file(tmp_path: Path) -> None:
    """`.env` serves for OPENAI_ variables too, and the greeting names the model."""
    (tmp_path / ".env").write_text("OPENAI_BASE_URL=http://127.0.0.1:9/v1\nOPENAI_MODEL=mine\n")
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "turnwise", "serve", "--port", str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path,
    )  # fmt: skip
    try:
        assert "the model mine" in next(lines_of(process))
    finally:
        process.terminate()
        process.wait(15)
        assert process.stdout is not None
        process.stdout.close()
