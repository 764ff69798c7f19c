"""A bot, a store, a gateway and a worker together: what a user's handler meets."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from turnwise import Bot, Message, Refusal, Runtime, Turn, TurnError
from turnwise.conversation import Reply
from turnwise.errors import ConfigurationError, NotFound, ReplyTimeout
from turnwise.settings import Settings
from turnwise.testing import ScriptedModel, talk


async def events(runtime: Runtime, session: str, text: str) -> list[dict[str, Any]]:
    return [event.json() async for event in runtime.stream(session, text)]


# Handlers of every kind


async def _generator(turn: Turn) -> AsyncIterator[str]:
    yield "you said "
    await asyncio.sleep(0)
    yield turn.text


async def _coroutine(turn: Turn) -> str:
    return f"you said {turn.text}"


def _plain(turn: Turn) -> str:
    return f"you said {turn.text}"


def _plain_generator(turn: Turn) -> Iterator[str]:
    yield "you said "
    yield turn.text


class _Object:
    async def __call__(self, turn: Turn) -> AsyncIterator[str]:
        yield f"you said {turn.text}"


class _SyncObject:
    def __call__(self, turn: Turn) -> str:
        return f"you said {turn.text}"


async def _says(turn: Turn) -> None:
    await turn.say("you said ")
    await turn.say(turn.text)


async def _returns_generator(turn: Turn) -> AsyncIterator[str]:
    return _generator(turn)


KINDS = [
    _generator, _coroutine, _plain, _plain_generator, _Object(), _SyncObject(), _says,
    _returns_generator, lambda turn: f"you said {turn.text}",
]  # fmt: skip


@pytest.mark.parametrize("handler", KINDS, ids=lambda kind: getattr(kind, "__name__", "object"))
async def test_every_kind_of_handler(handler: Callable[[Turn], Any]) -> None:
    """Async and plain, functions, generators and objects: one message with the whole text."""
    async with talk(handler) as say:
        reply = await say("hi")
        assert reply.text == "you said hi"
        assert len(reply.messages) == 1


async def test_a_handler_may_say_nothing() -> None:
    """None and an empty generator complete the turn without a reply message."""
    async with talk(Bot(lambda turn: None)) as say:
        assert await say("hi") == Reply("", [], 1)


async def test_whole_messages_with_attachments() -> None:
    """A Message is committed as it is."""

    async def reply(turn: Turn) -> AsyncIterator[Message | str]:
        yield "first"
        yield Message("second", metadata={"kind": "card"})

    async with talk(Bot(reply)) as say:
        answer = await say("hi")
        assert [(m.text, m.metadata) for m in answer.messages] == [
            ("first", {}), ("second", {"kind": "card"}),
        ]  # fmt: skip
        assert answer.text == "first\nsecond"


# The conversation


async def test_the_history_a_handler_sees() -> None:
    """The last `history` messages, oldest first, this one last; earlier ones on request."""
    seen: list[list[str]] = []
    earlier: list[list[str]] = []

    async def reply(turn: Turn) -> str:
        seen.append([message.text for message in turn.messages])
        earlier.append([message.text for message in await turn.history(limit=100)])
        return f"r{turn.n}"

    async with talk(Bot(reply, history=4)) as say:
        for i in range(1, 5):
            await say(f"m{i}")
    assert seen == [["m1"], ["m1", "r1", "m2"], ["r1", "m2", "r2", "m3"], ["r2", "m3", "r3", "m4"]]
    assert earlier[3] == ["m1", "r1", "m2", "r2", "m3", "r3"]


async def test_the_history_is_forgotten_after_a_reset() -> None:
    """A handler sees nothing of before a reset, and neither `state` nor `local` stay."""
    seen: list[tuple[list[str], dict[str, Any], dict[str, Any]]] = []

    async def reply(turn: Turn) -> str:
        seen.append(([m.text for m in turn.messages], dict(turn.state), dict(turn.local)))
        turn.state["x"] = turn.local["x"] = 1
        return "ok"

    async with talk(Bot(reply)) as say:
        await say("secret")
        await say("more")
        await say.runtime.gateway.reset(say.session_id)
        await say("fresh")
    assert seen[1] == (["secret", "ok", "more"], {"x": 1}, {"x": 1})
    assert seen[2] == (["fresh"], {}, {})


async def test_state_is_all_or_nothing() -> None:
    """A failed turn changes no state; a completed one all of it."""

    async def reply(turn: Turn) -> str:
        turn.state["n"] = turn.state.get("n", 0) + 1
        if turn.text == "fail":
            raise RuntimeError("no")
        return str(turn.state["n"])

    async with talk(Bot(reply)) as say:
        assert (await say("a")).text == "1"
        with pytest.raises(TurnError):
            await say("fail")
        assert (await say("b")).text == "2"


async def test_many_messages_at_once_are_answered_in_order() -> None:
    """What arrives while a turn runs waits; nothing overtakes; sessions do not wait."""
    running = 0
    most = 0

    async def reply(turn: Turn) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return f"re {turn.text}"

    async with talk(Bot(reply)) as say:
        asks = [say(f"m{i}", session=f"s{i % 5}") for i in range(50)]
        replies = await asyncio.gather(*asks)
        assert [reply.text for reply in replies] == [f"re m{i}" for i in range(50)]
        for s in range(5):
            texts = [m.text for m in await say.runtime.messages(f"s{s}", 100)]
            asked = [f"m{i}" for i in range(s, 50, 5)]
            assert texts == [t for m in asked for t in (m, f"re {m}")]
    assert 1 < most <= 5


async def test_the_events_of_a_turn() -> None:
    """Numbered without gaps; deltas joined are the reply; one last event."""
    async with talk(Bot(_generator)) as say:
        found = await events(say.runtime, "s", "hi")
    assert [event["id"] for event in found] == list(range(1, len(found) + 1))
    types = [event["type"] for event in found]
    assert types[:2] == ["turn.queued", "turn.started"]
    assert types[-2:] == ["message", "turn.completed"]
    deltas = "".join(event["text"] for event in found if event["type"] == "delta")
    assert deltas == found[-2]["message"]["text"] == "you said hi"


async def test_custom_events() -> None:
    """`emit` reaches whoever follows and is no history."""

    async def reply(turn: Turn) -> str:
        await turn.emit("progress", {"done": 0.5})
        return "ok"

    async with talk(Bot(reply)) as say:
        found = await events(say.runtime, "s", "hi")
        custom = next(event for event in found if event["type"] == "custom")
        assert (custom["name"], custom["data"], custom["attempt"]) == ("progress", {"done": 0.5}, 1)
        assert [m.text for m in await say.runtime.messages("s")] == ["hi", "ok"]


async def test_the_same_key_asks_once() -> None:
    """A repeated ask returns the first one's reply and runs nothing."""
    calls = 0

    async def reply(turn: Turn) -> str:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.01)
        return str(calls)

    async with talk(Bot(reply)) as say:
        asks = [say.runtime.ask("s", "hi", key="k") for _ in range(20)]
        assert {reply.text for reply in await asyncio.gather(*asks)} == {"1"}


async def test_the_reply_does_not_need_the_asker() -> None:
    """Leaving the stream or the ask leaves the turn running, to its end and into the history."""
    begun, finish = asyncio.Semaphore(0), asyncio.Event()

    async def reply(turn: Turn) -> AsyncIterator[str]:
        yield "begun "
        begun.release()
        await finish.wait()
        turn.state["done"] = True
        yield "done"

    async with talk(Bot(reply)) as say:
        async for event in say.runtime.stream("s", "hi"):
            if event.type == "delta":
                break
        await begun.acquire()
        asking = asyncio.create_task(say.runtime.ask("other", "hi"))
        await begun.acquire()
        asking.cancel()
        finish.set()
        for session in ("s", "other"):
            record = await say.runtime.gateway.wait(session, 1, 10)
            assert record.status == "completed"
            assert [m.text for m in await say.runtime.messages(session)][1] == "begun done"
            assert await say.runtime.store.state(session) == b'{"done":true}'


# What goes wrong


async def test_a_handler_that_raises() -> None:
    """The turn fails with a code, its message tells nothing of the code; the session goes on."""

    async def reply(turn: Turn) -> str:
        if turn.text == "bad":
            raise ValueError("database password is hunter2")
        return "fine"

    async with talk(Bot(reply)) as say:
        with pytest.raises(TurnError) as caught:
            await say("bad")
        assert caught.value.code == "handler_error"
        assert "hunter2" not in caught.value.message
        assert (await say("good")).text == "fine"
        assert [m.text for m in await say.runtime.messages("test")] == ["bad", "good", "fine"]


@pytest.mark.parametrize(
    ("piece", "code"),
    [(b"bytes", "bad_reply"), (3, "bad_reply"), ("x" * 2_000_000, "reply_too_long")],
)
async def test_replies_that_are_none(piece: Any, code: str) -> None:
    """Bytes, numbers and ten million characters fail with a readable code."""

    async def reply(turn: Turn) -> AsyncIterator[Any]:
        yield piece

    async with talk(Bot(reply)) as say:
        with pytest.raises(TurnError) as caught:
            await say("hi")
        assert caught.value.code == code


async def test_a_handler_that_yields_for_ever() -> None:
    """It is ended by the limit on the reply, and holds up nobody meanwhile."""

    async def reply(turn: Turn) -> AsyncIterator[str]:
        while turn.text == "for ever":
            yield "x" * 100
        yield "quick"

    async with talk(Bot(reply, max_reply=200_000)) as say:
        endless = asyncio.create_task(say("for ever"))
        assert (await say("hi", session="other")).text == "quick"
        with pytest.raises(TurnError) as caught:
            await endless
        assert caught.value.code == "reply_too_long"


async def test_state_that_is_no_json() -> None:
    """It fails the turn and is not kept."""

    async def reply(turn: Turn) -> str:
        if turn.text == "bad":
            turn.state["x"] = object()
        return str(turn.state)

    async with talk(Bot(reply)) as say:
        with pytest.raises(TurnError) as caught:
            await say("bad")
        assert caught.value.code == "bad_state"
        assert (await say("good")).text == "{}"


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_turn_has_a_time(stubborn: bool) -> None:
    """A handler over its time fails with `timeout`, even one that swallows its cancellation."""

    async def reply(turn: Turn) -> str:
        if turn.text == "quick":
            return "ok"
        while True:
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                if not stubborn:
                    raise

    async with talk(Bot(reply, timeout=1.0)) as say:
        with pytest.raises(TurnError) as caught:
            await say("slow")
        assert caught.value.code == "timeout"
        assert (await say("quick")).text == "ok"
        for task in asyncio.all_tasks():  # the stubborn one would outlive the loop
            if task.get_coro().__qualname__.endswith("Attempt._run"):  # type: ignore[union-attr]
                stubborn = False
                task.cancel()


async def test_a_blocking_handler_over_its_time_is_left_behind() -> None:
    """A thread cannot be stopped; its turn fails, what it says later goes nowhere."""
    release = threading.Event()

    def reply(turn: Turn) -> str:
        if turn.text == "slow":
            release.wait(20)
            return "too late"
        return "ok"

    async with talk(Bot(reply, timeout=1.0)) as say:
        with pytest.raises(TurnError) as caught:
            await say("slow")
        assert caught.value.code == "timeout"
        release.set()
        assert (await say("quick")).text == "ok"
        assert "too late" not in [m.text for m in await say.runtime.messages("test")]


async def test_cancel_keeps_the_partial_text() -> None:
    """The text so far is a message marked partial; the handler is told at once."""
    stopped = asyncio.Event()

    async def reply(turn: Turn) -> AsyncIterator[str]:
        yield "half a "
        try:
            await asyncio.sleep(30)
        finally:
            stopped.set()

    async with talk(Bot(reply)) as say:
        stream = say.runtime.stream("s", "hi")
        found = []
        async for event in stream:
            found.append(event.json())
            if event.type == "delta":
                record = await say.runtime.gateway.cancel("s", 1)
                assert record.status == "cancelled"
        assert stopped.is_set()
        assert [e["type"] for e in found[-2:]] == ["message", "turn.cancelled"]
        assert found[-2]["message"]["partial"] is True
        last = (await say.runtime.messages("s"))[-1]
        assert (last.text, last.partial) == ("half a ", True)


async def test_reset_stops_the_running_turn() -> None:
    """The handler is cancelled, what it would have said is nowhere, and the session goes on."""
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def reply(turn: Turn) -> str:
        if turn.text != "slow":
            return "ok"
        begun.set()
        try:
            await asyncio.sleep(30)
        finally:
            stopped.set()
        return "never"

    async with talk(Bot(reply)) as say:
        slow = asyncio.create_task(say("slow"))
        await begun.wait()
        await say.runtime.gateway.reset("test")
        with pytest.raises(TurnError):
            await slow
        async with asyncio.timeout(5):
            await stopped.wait()
        assert (await say("quick")).text == "ok"
        assert [m.text for m in await say.runtime.messages("test")] == ["quick", "ok"]


async def test_ask_gives_up_and_the_turn_goes_on() -> None:
    """ReplyTimeout leaves the turn as it is."""
    finish = asyncio.Event()

    async def reply(turn: Turn) -> str:
        await finish.wait()
        return "late"

    async with talk(Bot(reply)) as say:
        with pytest.raises(ReplyTimeout):
            await say.runtime.ask("s", "hi", timeout=0.05)
        finish.set()
        assert (await say.runtime.gateway.wait("s", 1, 10)).status == "completed"


@pytest.mark.parametrize(
    "bad",
    [
        Message("x", attachments=[{"type": "f"}]),  # type: ignore[list-item]
        Message("x", metadata={"x": object()}),
        Message(7),  # type: ignore[arg-type]
    ],
)
async def test_messages_that_cannot_be_kept(bad: Message) -> None:
    """They fail the turn at once, and a cancel that meets one ends the turn all the same."""
    waiting = asyncio.Event()

    async def reply(turn: Turn) -> AsyncIterator[Message]:
        yield bad
        if turn.text == "wait":
            waiting.set()
            await asyncio.sleep(30)

    async with talk(Bot(reply)) as say:
        with pytest.raises(TurnError):
            await say("hi")
        slow = asyncio.create_task(say("wait"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await waiting.wait()
        record = await say.runtime.gateway.cancel("test", 2)
        assert record.status in ("cancelled", "failed")
        with pytest.raises(TurnError):
            await slow


async def test_errors_with_odd_words() -> None:
    """An exception or broken Unicode as a TurnError's message is told as text."""

    async def reply(turn: Turn) -> str:
        raise TurnError(ValueError("odd \ud800") if turn.n == 1 else "\ud800")  # type: ignore[arg-type]

    async with talk(Bot(reply)) as say:
        for _ in range(2):
            with pytest.raises(TurnError, match=r"\?"):
                await say("hi")


async def test_a_hung_thread_is_left_behind() -> None:
    """After a blocking call that never ended, the session's next turns are answered."""
    release = threading.Event()

    def reply(turn: Turn) -> str:
        if turn.text == "hang":
            release.wait(30)
        return "ok"

    async with talk(Bot(reply, timeout=1.0)) as say:
        with pytest.raises(TurnError):
            await say("hang")
        assert (await say("a")).text == "ok"
        assert (await say("b")).text == "ok"
        release.set()


async def test_emitted_data_is_taken_as_it_is() -> None:
    """Changing it afterwards changes nothing; what is no JSON fails the turn; there is a limit."""

    async def reply(turn: Turn) -> str:
        if turn.text == "bad":
            await turn.emit("x", object())
        while turn.text == "flood":
            await turn.emit("x", "y" * 100)
        data = {"step": 0}
        for step in range(3):
            data["step"] = step
            await turn.emit("progress", data)
        return "ok"

    async with talk(Bot(reply, max_reply=50_000)) as say:
        found = await events(say.runtime, "s", "good")
        assert [e["data"]["step"] for e in found if e["type"] == "custom"] == [0, 1, 2]
        for text, code in (("bad", "bad_reply"), ("flood", "reply_too_long")):
            with pytest.raises(TurnError) as caught:
                await say(text)
            assert caught.value.code == code


# Services


async def test_services_go_around_the_reply_in_order() -> None:
    """Each before and after what is inside; what one returns is said."""
    order: list[str] = []
    bot = Bot()

    @bot.service
    async def outer(turn: Turn, call_next: Callable[..., Awaitable[None]]) -> str:
        order.append("outer in")
        turn.state["user"] = "Ada"
        await call_next(turn)
        order.append("outer out")
        return "!"

    @bot.service
    async def inner(turn: Turn, call_next: Callable[..., Awaitable[None]]) -> None:
        order.append("inner in")
        await call_next()
        order.append("inner out")

    @bot.reply
    async def reply(turn: Turn) -> str:
        order.append("reply")
        return f"hello {turn.state['user']}"

    async with talk(bot) as say:
        assert (await say("hi")).text == "hello Ada!"
    assert order == ["outer in", "inner in", "reply", "inner out", "outer out"]


async def test_a_service_answers_or_refuses() -> None:
    """Without call_next the reply does not run; a Refusal's text is shown."""
    bot = Bot(lambda turn: "reply")

    @bot.service
    async def gate(turn: Turn, call_next: Callable[..., Awaitable[None]]) -> str | None:
        if turn.text == "mine":
            return "answered by the service"
        if turn.text == "no":
            raise Refusal("I must not talk about that.")
        await call_next()
        return None

    async with talk(bot) as say:
        assert (await say("mine")).text == "answered by the service"
        assert (await say("other")).text == "reply"
        with pytest.raises(TurnError, match="must not talk") as caught:
            await say("no")
        assert caught.value.code == "refused"


async def test_before_around_reply_after() -> None:
    """In this order, whatever the order of registration; a service that answers skips the reply."""
    bot = Bot()

    @bot.after
    def first_after(turn: Turn) -> str:
        return " after1"

    @bot.after(when=lambda turn: turn.text != "short")
    async def second_after(turn: Turn) -> str:
        return " after2"

    @bot.service(when=lambda turn: turn.text != "short")
    async def around(turn: Turn, call_next: Callable[..., Awaitable[None]]) -> str | None:
        if turn.text == "mine":
            return "mine"
        await turn.say("(")
        await call_next()
        return ")"

    @bot.reply
    async def reply(turn: Turn) -> str:
        return str(turn.state["who"])

    @bot.before
    def before(turn: Turn) -> None:
        turn.state["who"] = "Ada"

    async with talk(bot) as say:
        assert (await say("long")).text == "(Ada) after1 after2"
        assert (await say("short")).text == "Ada after1"
        assert (await say("mine")).text == "mine after1 after2"


async def test_a_group_runs_together() -> None:
    """Functions of one call wait for each other's sake; what one raises ends the others."""
    bot = Bot(lambda turn: turn.state["met"])
    met = asyncio.Barrier(2)
    cut: list[str] = []

    async def one(turn: Turn) -> None:
        async with met:
            turn.state["met"] = "met"

    async def two(turn: Turn) -> None:
        if turn.text == "fail":
            raise Refusal("not now")
        async with met:
            pass

    async def patient(turn: Turn) -> None:
        if turn.text == "fail":
            try:
                await asyncio.Event().wait()
            finally:
                cut.append(turn.text)

    bot.before(one, two, patient, timeout=5)
    async with talk(bot) as say:
        assert (await say("hi")).text == "met"
        with pytest.raises(TurnError, match="not now"):
            await say("fail")
        assert cut == ["fail"]


async def test_services_have_a_time() -> None:
    """A required one that is late fails the turn; another is passed over."""
    bot = Bot(lambda turn: "reply")

    @bot.before(timeout=0.01, required=False)
    async def slow(turn: Turn) -> None:
        await asyncio.Event().wait()

    @bot.before(required=False)
    async def broken(turn: Turn) -> None:
        raise ValueError

    @bot.after(timeout=0.01, when=lambda turn: turn.text == "late")
    async def late(turn: Turn) -> None:
        await asyncio.Event().wait()

    async with talk(bot) as say:
        assert (await say("hi")).text == "reply"
        with pytest.raises(TurnError) as caught:
            await say("late")
        assert caught.value.code == "service_timeout"
        assert (await say("hi")).text == "reply"


def test_bots_that_are_none() -> None:
    """Wrong limits, two handlers, a service that is not async: told when built."""
    with pytest.raises(ConfigurationError):
        Bot(history=0)
    with pytest.raises(ConfigurationError):
        Bot(coalesce="word")  # type: ignore[arg-type]
    bot = Bot(_plain)
    with pytest.raises(ConfigurationError):
        bot.reply(_coroutine)
    with pytest.raises(ConfigurationError):
        bot.service(_plain)  # type: ignore[type-var]
    with pytest.raises(ConfigurationError):
        bot.before("nothing")  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError):
        bot.after(_plain, timeout=0)
    with pytest.raises(ConfigurationError):
        Runtime("no bot")  # type: ignore[arg-type]


async def test_a_bot_without_a_handler_does_not_start() -> None:
    """It is told when the runtime starts, and not to each person."""
    with pytest.raises(ConfigurationError, match="no reply handler"):
        async with talk(Bot()):
            pass


# Threads and local


async def test_a_session_keeps_its_thread_and_its_local() -> None:
    """All turns of a session run in one thread, sessions in different ones; `local` stays."""
    context = threading.local()

    def reply(turn: Turn) -> str:
        context.count = getattr(context, "count", 0) + 1
        turn.local["n"] = turn.local.get("n", 0) + 1
        time.sleep(0.001)
        return f"{context.count} {turn.local['n']} {threading.get_ident()}"

    async with talk(Bot(reply)) as say:
        threads = set()
        for i in range(1, 4):
            replies = await asyncio.gather(*(say("hi", session=f"s{s}") for s in range(5)))
            for reply_ in replies:
                count, local, thread = reply_.text.split()
                assert (count, local) == (str(i), str(i))
                threads.add(thread)
        assert len(threads) == 5


# Holding a session


async def test_holding_a_session() -> None:
    """Its state changes between turns; nothing is saved on an exception; a turn waits."""

    async def reply(turn: Turn) -> str:
        return str(turn.state.get("n"))

    async with talk(Bot(reply)) as say:
        runtime = say.runtime
        async with runtime.session("test") as session:
            session.state["n"] = 1
            asking = asyncio.create_task(say("hi"))
            await asyncio.sleep(0.05)
            assert not asking.done()
            session.state["n"] = 2
        assert (await asking).text == "2"

        async def spoil() -> None:
            async with runtime.session("test") as session:
                session.state["n"] = 99
                raise ValueError("oops")

        with pytest.raises(ValueError, match="oops"):
            await spoil()
        assert (await say("hi")).text == "2"


async def test_holding_a_busy_session() -> None:
    """It waits for the running turn and comes before the next; many holders take turns."""
    begun, finish = asyncio.Event(), asyncio.Event()

    async def reply(turn: Turn) -> str:
        begun.set()
        await finish.wait()
        return str(turn.state.get("n", 0))

    async with talk(Bot(reply)) as say:
        asks = [asyncio.create_task(say("hi")) for _ in range(2)]
        await begun.wait()
        with pytest.raises(ReplyTimeout):
            async with say.runtime.session("test", timeout=0.05):
                pass

        async def add() -> None:
            async with say.runtime.session("test") as session:
                session.state["n"] = session.state.get("n", 0) + 1

        holders = [asyncio.create_task(add()) for _ in range(5)]
        await asyncio.sleep(0.05)
        finish.set()
        await asyncio.gather(*holders)
        assert sorted([(await ask).text for ask in asks])[0] == "0"
        assert (await say("hi")).text == "5"


# Life


async def test_two_runtimes_on_one_file(tmp_path: Path) -> None:
    """A message accepted by one is answered by the other and followed live from a third."""

    async def reply(turn: Turn) -> AsyncIterator[str]:
        for word in ("one ", "two ", "three"):
            yield word
            await asyncio.sleep(0.2)

    url = f"sqlite:///{tmp_path / 'shared.db'}"
    settings = Settings(_env_file=None, grace=1.0)

    def runtime(worker: bool) -> Runtime:
        return Runtime(Bot(reply), url, worker=worker, settings=settings)

    async with runtime(False) as asking, runtime(True), runtime(False) as reading:
        submitted = await asking.gateway.submit("s", "hi", create=True)
        with reading.gateway.follow("s", 0, turn=submitted.turn.n) as reader:
            found = []
            async with asyncio.timeout(10):
                while not reader.ended:
                    found += await reader.read()
        assert [event.id for event in found] == list(range(1, len(found) + 1))
        assert sum(event.type == "delta" for event in found) >= 3
        assert (await asking.ask("s", "again")).text == "one two three"


async def test_stopping_hands_back_what_runs(tmp_path: Path) -> None:
    """A turn over its grace goes back at once, its attempt not counted, and is answered later."""
    fast = asyncio.Event()

    async def reply(turn: Turn) -> str:
        if not fast.is_set():
            await asyncio.sleep(60)
        return f"attempt {turn.attempt}"

    url = f"sqlite:///{tmp_path / 'stop.db'}"
    settings = Settings(_env_file=None, grace=0.1)
    async with Runtime(Bot(reply), url, settings=settings) as first:
        await first.gateway.submit("s", "hi", create=True)
        await asyncio.sleep(0.05)
    fast.set()
    async with Runtime(Bot(reply), url, settings=settings) as second:
        record = await second.gateway.wait("s", 1, 10)
        assert record.status == "completed"
        assert [m.text for m in await second.messages("s")] == ["hi", "attempt 1"]


async def test_a_reset_elsewhere_stops_no_later_turn(tmp_path: Path) -> None:
    """A signal that arrives late concerns the turn it names, not the one that runs by then."""

    async def reply(turn: Turn) -> str:
        await asyncio.sleep(0.05)
        return f"attempt {turn.attempt}"

    url = f"sqlite:///{tmp_path / 'late.db'}"
    settings = Settings(_env_file=None, grace=1.0)
    async with (
        Runtime(Bot(reply), url, settings=settings) as here,
        Runtime(Bot(reply), url, worker=False, settings=settings) as there,
    ):
        for _ in range(5):
            await here.gateway.submit("s", "old", create=True)
            await there.gateway.reset("s")
            assert (await here.ask("s", "new", timeout=5)).text == "attempt 1"


async def test_giving_up_to_hold_a_session(tmp_path: Path) -> None:
    """Whoever is cancelled while asking for a session does not keep it from its turns."""
    async with talk(Bot(_plain)) as say:
        await say("hi")
        for pause in (0.0, 0.0001, 0.0005, 0.001):

            async def hold() -> None:
                async with say.runtime.session("test"):
                    await asyncio.sleep(30)

            holding = asyncio.create_task(hold())
            await asyncio.sleep(pause)
            holding.cancel()
            await asyncio.wait({holding})
            async with asyncio.timeout(5):
                await say("hi")


async def test_sessions_that_are_not_there() -> None:
    """Reading an unknown session is NotFound; asking makes it."""
    async with talk(Bot(_plain)) as say:
        with pytest.raises(NotFound):
            await say.runtime.messages("nobody")
        await say.runtime.ask("user 42", "hi")
        assert len(await say.runtime.messages("user 42")) == 2


async def test_a_runtime_that_does_not_run() -> None:
    """Using it is a clear error; so is a store that no URL names."""
    with pytest.raises(ConfigurationError):
        await Runtime(Bot(_plain), "sqlite:///x.db").ask("s", "hi")
    with pytest.raises(ConfigurationError):
        Runtime(Bot(_plain), "mongodb://x")


async def test_the_scripted_model() -> None:
    """It says its replies in order, remembers its prompts, and raises what is to be raised."""
    model = ScriptedModel(["one two", TurnError("over", code="quota")])
    async with talk(model) as say:
        assert (await say("a")).text == "one two"
        with pytest.raises(TurnError) as caught:
            await say("b")
        assert caught.value.code == "quota"
    assert [[m.text for m in prompt] for prompt in model.prompts] == [["a"], ["a", "one two", "b"]]


async def test_lifespans_are_around_the_worker() -> None:
    """Entered before the first turn is taken, left after the last one, in reverse; one that cannot
    be entered leaves the others, and the runtime does not start."""
    told: list[str] = []
    bot = Bot()

    @bot.reply
    async def reply(turn: Turn) -> str:
        told.append("turn")
        return "ok"

    @bot.lifespan
    async def first() -> AsyncIterator[None]:
        told.append("first")
        yield
        told.append("first ends")

    @bot.lifespan
    async def second() -> AsyncIterator[None]:
        told.append("second")
        if len(told) > 6:
            raise ValueError("cannot")
        yield
        told.append("second ends")

    async with talk(bot) as say:
        await say("hi")
    assert told == ["first", "second", "turn", "second ends", "first ends"]
    with pytest.raises(ValueError, match="cannot"):
        async with talk(bot):
            pass
    assert told[5:] == ["first", "second", "first ends"]
    with pytest.raises(ConfigurationError):
        bot.lifespan(lambda: None)  # type: ignore[type-var]
