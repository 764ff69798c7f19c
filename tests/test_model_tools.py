"""`OpenAIChat` with tools: through the real client, against a server that speaks its protocol."""

from __future__ import annotations

import asyncio
import functools
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Annotated, Any, Literal

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from conftest import serving
from turnwise import Bot, Reply, Runtime, Settings, Turn, TurnError
from turnwise.errors import ConfigurationError
from turnwise.models import OpenAIChat, Tool
from turnwise.testing import talk

Round = list[dict[str, Any]] | Callable[[dict[str, Any]], list[dict[str, Any]]]


def says(text: str) -> dict[str, Any]:
    return {"delta": {"content": text}}


def thinks(text: str) -> dict[str, Any]:
    return {"delta": {"reasoning_content": text}}


def calls(
    name: str, arguments: Any, place: int = 0, id: str | None = "auto"
) -> list[dict[str, Any]]:
    """A call, its arguments in two pieces, as OpenAI sends it."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    head = {
        "index": place,
        "id": f"call_{name}_{place}" if id == "auto" else id,
        "type": "function",
    }
    half = len(text) // 2
    return [
        {"delta": {"tool_calls": [{**head, "function": {"name": name, "arguments": text[:half]}}]}},
        {"delta": {"tool_calls": [{"index": place, "function": {"arguments": text[half:]}}]}},
    ]


class Server:
    """Answers each request with the next round; `seen` are the requests."""

    def __init__(self, *rounds: Round) -> None:
        self.rounds = list(rounds)
        self.seen: list[dict[str, Any]] = []
        self.hold = asyncio.Event()
        self.hold.set()

    @asynccontextmanager
    async def model(self, *tools: Any, **more: Any) -> AsyncIterator[OpenAIChat]:
        app = FastAPI()
        app.post("/v1/chat/completions")(self.complete)
        async with serving(app) as url:
            yield OpenAIChat("m", base_url=f"{url}/v1", api_key="k", tools=tools, **more)

    async def complete(self, request: Request) -> StreamingResponse:
        self.seen.append(await request.json())
        given = self.rounds.pop(0)
        chunks = given(self.seen[-1]) if callable(given) else given

        async def body() -> AsyncIterator[str]:
            for chunk in chunks:
                choice = {"index": 0, "finish_reason": None, **chunk}
                yield f"data: {json.dumps({'id': 'x', 'model': 'm-1', 'choices': [choice]})}\n\n"
                await self.hold.wait()
            called = any("tool_calls" in chunk.get("delta", {}) for chunk in chunks)
            end = {"index": 0, "delta": {}, "finish_reason": "tool_calls" if called else "stop"}
            usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
            yield f"data: {json.dumps({'choices': [end]})}\n\n"
            yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n"

        return StreamingResponse(body(), media_type="text/event-stream")


def roles(prompt: list[dict[str, Any]]) -> list[str]:
    return [message["role"] for message in prompt]


async def get_weather(
    city: Annotated[str, Field(min_length=2)], unit: Literal["C", "F"] = "C"
) -> Any:
    """The weather in a city.

    It is made up.

    Args:
        city: The city's name.
        unit (str): Celsius or Fahrenheit.
    """
    return {"city": city, "degrees": 20, "unit": unit}


def send_mail(to: str, text: str) -> str:
    """Send a mail."""
    SENT.append((to, text))
    return f"sent to {to}"


SENT: list[tuple[str, str]] = []


@pytest.fixture(autouse=True)
def nothing_sent() -> None:
    SENT.clear()


async def test_a_tool_is_called() -> None:
    """Schema from types and docstring; the call is a step; its result goes back; usage adds up; and
    in the next turn the model sees calls and results in their places."""
    server = Server(
        [says("Let me see. "), *calls("get_weather", {"city": "Paris"})],
        [says("It is 20 °C.")],
        [says("You are welcome.")],
    )
    async with server.model(get_weather) as model, talk(model) as say:
        reply = await say("Weather in Paris?")
        assert reply.text == "Let me see. It is 20 °C."
        assert [(s.name, s.status, s.input) for s in reply.steps] == [
            ("get_weather", "completed", {"city": "Paris"})
        ]
        assert reply.steps[0].output == {"city": "Paris", "degrees": 20, "unit": "C"}
        assert reply.usage == {
            "model": "m-1", "input_tokens": 20, "output_tokens": 10, "total_tokens": 30,
        }  # fmt: skip
        (tool,) = server.seen[0]["tools"]
        assert tool["function"]["description"] == "The weather in a city."
        parameters = tool["function"]["parameters"]
        assert parameters["required"] == ["city"]
        assert parameters["properties"]["city"] == {
            "type": "string", "minLength": 2, "description": "The city's name.",
        }  # fmt: skip
        assert parameters["properties"]["unit"]["enum"] == ["C", "F"]
        second = server.seen[1]["messages"]
        assert roles(second) == ["user", "assistant", "tool"]
        assert second[1]["content"] == "Let me see. "
        assert json.loads(second[2]["content"])["degrees"] == 20
        assert second[2]["tool_call_id"] == second[1]["tool_calls"][0]["id"]
        await say("Thanks")
        third = server.seen[2]["messages"]
        assert roles(third) == ["user", "assistant", "tool", "assistant", "user"]
        assert third[3]["content"] == "Let me see. It is 20 °C."


async def test_several_at_once_and_their_errors() -> None:
    """Calls of one round run side by side, sync ones too; wrong arguments, an unknown tool and an
    exception are returned to the model, and the turn goes on."""

    async def slow(n: int) -> int:
        await asyncio.sleep(0.3)
        return n

    def slow_too(n: int) -> int:
        time.sleep(0.3)
        return n

    def broken() -> None:
        raise RuntimeError("out of order")

    def refusing() -> None:
        raise TurnError("Not on Sundays.")

    server = Server(
        [
            *calls("slow", {"n": 1}, 0), *calls("slow", {"n": 2}, 1),
            *calls("slow_too", {"n": 3}, 2),
            *calls("slow", {"n": "x"}, 3), *calls("slow", "{bad", 4), *calls("nothing", {}, 5),
            *calls("broken", {}, 6), *calls("refusing", "", 7), *calls("slow", {"n": 1, "m": 2}, 8),
        ],
        [says("done")],
    )  # fmt: skip
    async with server.model(slow, slow_too, broken, refusing) as model, talk(model) as say:
        began = time.monotonic()
        reply = await say("go")
        assert time.monotonic() - began < 0.8
        results = [m["content"] for m in server.seen[1]["messages"] if m["role"] == "tool"]
        assert results[:3] == ["1", "2", "3"]
        assert [result.split(":")[0] for result in results[3:]] == ["Error"] * 6
        for result, words in zip(
            results[3:],
            (
                "n: Input",
                "Invalid JSON",
                "no tool 'nothing'",
                "out of order",
                "Sundays",
                "m: Extra",
            ),
            strict=True,
        ):
            assert words in result
        assert [step.status for step in reply.steps].count("failed") == 6
        assert {step.error.message for step in reply.steps if step.error} >= {"Not on Sundays."}


async def test_rounds_have_an_end() -> None:
    """After the last round the model has to answer; one that calls on ends the turn."""
    server = Server(
        *[calls("get_weather", {"city": f"c{i}"}, id=f"a{i}") for i in range(3)],
        [says("enough")],
        *[calls("get_weather", {"city": f"c{i}"}, id=f"b{i}") for i in range(4)],
    )
    async with server.model(get_weather, rounds=3) as model, talk(model) as say:
        assert (await say("go")).text == "enough"
        assert server.seen[3]["tool_choice"] == "none"
        with pytest.raises(TurnError) as caught:
            await say("again")
        assert caught.value.code == "model_rounds"


async def asked(say: Any) -> Reply:
    reply: Reply = await say("Mail Bob.")
    assert SENT == []
    return reply


MAIL = {"to": "Bob", "text": "hi"}


async def test_an_approval() -> None:
    """A call that needs it is asked for with its arguments, and run once it is allowed, in a turn
    of its own; the model never sees the question."""
    server = Server([*calls("send_mail", MAIL)], [says("It is sent.")])
    async with server.model(approve=[send_mail]) as model, talk(model) as say:
        (ask,) = (await asked(say)).asks
        assert (ask.name, ask.choices) == ("send_mail", ["yes", "no"])
        assert ask.data == {"tool": "send_mail", "arguments": MAIL}
        reply = await say.answer(ask, "yes")
        assert reply.text == "It is sent."
        assert SENT == [("Bob", "hi")]
        assert [step.name for step in reply.steps] == ["send_mail"]
        assert roles(server.seen[1]["messages"]) == ["user", "assistant", "tool"]
        assert server.seen[1]["messages"][2]["content"] == "sent to Bob"


@pytest.mark.parametrize("answer", ["no", None])
async def test_what_is_not_allowed(answer: str | None) -> None:
    """A refusal, or another message instead of an answer: it is not run, and the model hears so."""
    server = Server(calls("send_mail", MAIL), [says("Then not.")])
    async with server.model(approve=[send_mail]) as model, talk(model) as say:
        (ask,) = (await asked(say)).asks
        reply = await (say("What is the time?") if answer is None else say.answer(ask, answer))
        assert (reply.text, SENT) == ("Then not.", [])
        prompt = server.seen[1]["messages"]
        assert prompt[2]["content"].startswith("Not allowed")
        assert roles(prompt)[3:] == (["user"] if answer is None else [])


async def test_a_message_that_came_before_the_question() -> None:
    """It leaves the question open: the model hears that the call waits, and a later yes runs it."""
    gate = asyncio.Event()

    def wait(request: dict[str, Any]) -> list[dict[str, Any]]:
        return calls("send_mail", MAIL)

    server = Server(wait, [says("Hello.")], [says("Now it is sent.")])
    async with server.model(approve=[send_mail]) as model:

        async def reply(turn: Turn) -> AsyncIterator[Any]:
            if turn.n == 1:
                await gate.wait()
            async for piece in model(turn):
                yield piece

        async with talk(reply) as say:
            gateway = say.runtime.gateway
            await gateway.submit("test", "Mail Bob.", create=True)
            await gateway.submit("test", "hello")
            gate.set()
            assert (await gateway.wait("test", 2, 10.0)).reply.text == "Hello."  # type: ignore[union-attr]
            first = await say.runtime.turn("test", 1)
            assert first.reply is not None
            prompt = server.seen[1]["messages"]
            assert prompt[2]["content"].startswith("Not run yet")
            assert (await say.answer(first.reply.asks[0], "yes")).text == "Now it is sent."
            assert SENT == [("Bob", "hi")]
            prompt = server.seen[2]["messages"]
            assert prompt[2]["content"] == "sent to Bob"
            assert prompt[-1] == {"role": "user", "content": "yes"}


async def test_several_approvals_are_waited_for() -> None:
    """The model is asked again when all are answered."""
    two = [*calls("send_mail", MAIL, 0), *calls("send_mail", {**MAIL, "to": "Eve"}, 1)]
    server = Server([*two, *calls("get_weather", {"city": "Rome"}, 2)], [says("One is sent.")])
    async with server.model(get_weather, approve=[send_mail]) as model, talk(model) as say:
        first, second = (await asked(say)).asks
        assert (await say.answer(second, "yes")).messages == []
        assert SENT == [("Eve", "hi")]
        assert (await say.answer(first, "no")).text == "One is sent."
        assert SENT == [("Eve", "hi")]
        results = [m["content"] for m in server.seen[1]["messages"] if m["role"] == "tool"]
        assert (results[0][:11], results[1]) == ("Not allowed", "sent to Eve")


async def test_stopped_in_a_call() -> None:
    """What was done before the stop is seen in the next turn, and what was not has no result."""
    begun = asyncio.Event()

    async def hang() -> None:
        begun.set()
        await asyncio.sleep(60)

    server = Server(
        calls("get_weather", {"city": "Paris"}), calls("hang", {}), [says("I was stopped.")]
    )
    async with server.model(get_weather, hang) as model, talk(model) as say:
        gateway = say.runtime.gateway
        await gateway.submit("test", "go", create=True)
        await begun.wait()
        await gateway.cancel("test", 1)
        assert (await say("and?")).text == "I was stopped."
        prompt = server.seen[2]["messages"]
        assert roles(prompt) == ["user", "assistant", "tool", "assistant", "tool", "user"]
        assert json.loads(prompt[2]["content"])["city"] == "Paris"
        assert prompt[4]["content"].startswith("No result")


async def test_the_next_attempt_runs_no_call_again(tmp_path: Any) -> None:
    """A process that dies after a tool has run: another goes on with the result."""
    runs: list[str] = []
    begun = asyncio.Event()

    def once(name: str) -> str:
        runs.append(name)
        return f"ran {name}"

    server = Server(calls("once", {"name": "a"}), [says("x")], [says("It has run.")])
    url = f"sqlite:///{tmp_path / 'a.db'}"
    async with server.model(once) as model:

        async def reply(turn: Turn) -> AsyncIterator[Any]:
            async for piece in model(turn):
                if turn.attempt == 1:
                    begun.set()
                    await asyncio.sleep(60)
                yield piece

        settings = Settings(_env_file=None, grace=0.1)
        async with Runtime(Bot(reply), url, settings=settings) as first:
            await first.gateway.submit("s", "go", create=True)
            await begun.wait()
        async with Runtime(Bot(model), url, settings=settings) as second:
            async with asyncio.timeout(20):
                while (turn := await second.turn("s", 1)).open:
                    await asyncio.sleep(0.05)
        assert turn.reply is not None
        assert (turn.reply.text, runs) == ("It has run.", ["a"])
        assert [(step.name, step.status) for step in turn.steps] == [("once", "completed")]


async def test_reasoning_is_a_step() -> None:
    """As a field of its own, or in `<think>` at the start of the text, however it is cut."""
    server = Server(
        [thinks("First "), thinks("this."), says("Answer")],
        [says(piece) for piece in ("<th", "ink>Hm", "m.</thi", "nk>\n\nAns", "wer")],
        [says("<thinly veiled>")],
    )
    async with server.model() as model, talk(model) as say:
        for thought in ("First this.", "Hmm."):
            reply = await say("Why?")
            assert reply.text == "Answer"
            (step,) = reply.steps
            assert (step.kind, step.text, step.status) == ("reasoning", thought, "completed")
        assert (await say("Why?")).text == "<thinly veiled>"


class Order(BaseModel):
    pizza: str
    size: Literal["small", "large"]


async def test_structured_output() -> None:
    """The form is asked for, checked, asked for once more if it is wrong, and in the metadata."""
    good = '{"pizza": "Funghi", "size": "large"}'
    server = Server(
        [says(good[:9]), says(good[9:])],
        [says('{"pizza": 1}')], [says(f"```json\n{good}\n```")],
        [says("no")], [says("still no")],
    )  # fmt: skip
    async with server.model(output=Order) as model, talk(model) as say:
        for _ in range(2):
            (message,) = (await say("A large Funghi")).messages
            assert message.metadata["output"] == {"pizza": "Funghi", "size": "large"}
        wanted = server.seen[0]["response_format"]["json_schema"]
        assert (wanted["name"], set(wanted["schema"]["properties"])) == ("Order", {"pizza", "size"})
        assert "pizza" in server.seen[2]["messages"][-1]["content"]
        with pytest.raises(TurnError) as caught:
            await say("?")
        assert caught.value.code == "model_output"


async def test_oddities_of_servers() -> None:
    """Calls without ids or places, whole in one message, arguments as an object."""
    whole = {
        "message": {
            "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Rome"}}}]
        }
    }
    pieces = [
        {"delta": {"tool_calls": [{"function": {"name": "get_weather", "arguments": '{"city":'}}]}},
        {"delta": {"tool_calls": [{"function": {"arguments": ' "Oslo"}'}}]}},
        {
            "delta": {
                "tool_calls": [
                    {"function": {"name": "get_weather", "arguments": '{"city": "Bern"}'}}
                ]
            }
        },
    ]
    server = Server([whole], [says("a")], pieces, [says("b")])
    async with server.model(get_weather) as model, talk(model) as say:
        assert [step.input for step in (await say("x")).steps] == [{"city": "Rome"}]
        steps = (await say("y")).steps
        assert [step.input for step in steps] == [{"city": "Oslo"}, {"city": "Bern"}]
        ids = [m["tool_call_id"] for m in server.seen[3]["messages"] if m["role"] == "tool"]
        assert len(set(ids)) == 3


async def test_calls_stay_behind_their_questions() -> None:
    """Those of turns that are out of the window are left out, a prompt never begins with calls, and
    the question stays however large a result is."""

    def large(n: int) -> str:
        return "x" * 5000

    rounds: list[Round] = []
    for i in range(4):
        rounds += [calls("large", {"n": i}, id="call_0"), [says(f"a{i}")]]
    server = Server(*rounds)
    async with server.model(large, history=3, max_prompt=2000, system="sys") as model:
        async with talk(model) as say:
            for i in range(4):
                assert (await say(f"q{i}")).text == f"a{i}"
        last = server.seen[-1]["messages"]
        assert roles(last) == ["system", "user", "assistant", "tool"]
        assert last[1]["content"] == "q3"
        ids = {
            m["tool_call_id"]
            for seen in server.seen
            for m in seen["messages"]
            if "tool_call_id" in m
        }
        assert len(ids) == 4, "a server that counts from nought repeats its ids"


async def test_tools_that_misbehave() -> None:
    """One that would end the program or its thread fails; a result that is not JSON is its text."""

    def leaves() -> None:
        raise SystemExit(3)

    def stops() -> None:
        next(iter([]))

    def odd() -> Any:
        return {2024: 2**70, "order": Order(pizza="a", size="small")}

    server = Server(
        [*calls("leaves", {}, 0), *calls("stops", {}, 1), *calls("odd", {}, 2)], [says("ok \ud83d")]
    )
    async with server.model(leaves, stops, odd) as model, talk(model) as say:
        assert (await say("go")).text.startswith("ok")
        results = [m["content"] for m in server.seen[1]["messages"] if m["role"] == "tool"]
        assert [result[:5] for result in results[:2]] == ["Error", "Error"]
        assert "2024" in results[2]


async def test_a_tool_with_the_turn() -> None:
    """A parameter of type Turn is not told to the model."""

    async def note(turn: Turn, text: str) -> str:
        """Take a note."""
        await turn.memory.add({"note": text})
        return turn.session.id

    server = Server(calls("note", {"text": "x"}), [says("noted")])
    async with server.model(note) as model, talk(model) as say:
        await say("note x")
        assert list(server.seen[0]["tools"][0]["function"]["parameters"]["properties"]) == ["text"]
        assert server.seen[1]["messages"][2]["content"] == "test"


def test_partials_and_objects_are_tools() -> None:
    """They have the name, the types and the description of what they run."""

    def send(to: str, text: str) -> str:
        """Send it."""
        return to + text

    class Finder:
        """Not this."""

        async def __call__(self, word: str) -> str:
            """Find it."""
            return word

    for function, name, described in (
        (functools.partial(send, text="x"), "send", "Send it."),
        (Finder(), "Finder", "Find it."),
    ):
        schema: Any = Tool(function).schema["function"]
        assert (schema["name"], schema["description"]) == (name, described)


def test_what_is_not_a_tool() -> None:
    """It is refused where it is written."""

    def variable(*names: str) -> None:
        pass

    def without_schema(call: Callable[[], int]) -> None:
        pass

    for bad in ([variable], [lambda x: x], [send_mail, send_mail], [without_schema]):
        with pytest.raises(ConfigurationError):
            OpenAIChat("m", api_key="k", tools=bad)


async def test_a_tool_with_a_schema() -> None:
    """What another program describes, such as an MCP server, and checks; it may come later."""

    async def anything(**arguments: Any) -> str:
        if "bad" in arguments:
            raise TurnError("bad is not known")
        return f"took {arguments}"

    parameters = {"type": "object", "properties": {"x": {"type": "number"}}}
    server = Server(
        [*calls("remote", {"x": 1}), *calls("remote", {"bad": 1}, 1), *calls("remote", "[]", 2)],
        [says("done")],
    )
    async with server.model() as model, talk(model) as say:
        model.add_tool(Tool(anything, name="remote", description="far", parameters=parameters))
        assert (await say("go")).text == "done"
        (told,) = server.seen[0]["tools"]
        assert told["function"] == {
            "name": "remote", "description": "far", "parameters": parameters,
        }  # fmt: skip
        results = [m["content"] for m in server.seen[1]["messages"] if m["role"] == "tool"]
        assert results[:2] == ["took {'x': 1}", "Error: bad is not known"]
        assert "JSON object" in results[2]


async def test_plain_tools_do_not_wait_for_each_other() -> None:
    """Each call has a thread of its own, in the caller's context: forty that hang hold up neither
    the next one nor whatever else uses the loop's threads, and one that is given up holds up
    nobody."""
    together, going = threading.Barrier(41), threading.Event()
    caller: ContextVar[str] = ContextVar("caller", default="nobody")

    def hang(name: str) -> str:
        together.wait(20)
        going.wait(20)
        return f"{name} {caller.get()}"

    tool = Tool(hang)
    turn: Any = None  # no tool here asks for it
    caller.set("me")
    calls = [asyncio.ensure_future(tool.run(turn, {"name": f"{n}"})) for n in range(40)]
    await asyncio.to_thread(together.wait, 20)
    calls[0].cancel()
    assert await Tool(quick).run(turn, {}) == "quick"
    going.set()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert found[1:] == [f"{n} me" for n in range(1, 40)]
    assert isinstance(found[0], asyncio.CancelledError)


def quick() -> str:
    """Answers at once."""
    return "quick"
