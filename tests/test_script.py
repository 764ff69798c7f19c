"""Scripts: what dialogs as data do, each behaviour by its name."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from turnwise import Bot, Message, Turn
from turnwise.conversation import Attachment
from turnwise.errors import ConfigurationError, TurnError
from turnwise.script import (
    All,
    Always,
    Backward,
    Choice,
    Context,
    Current,
    Exact,
    Extract,
    Fallback,
    Forward,
    FromHistory,
    FunctionSlot,
    Group,
    Has,
    LastLabels,
    Node,
    Not,
    Previous,
    Regexp,
    RegexpSlot,
    Script,
    SlotsExtracted,
    Start,
    Template,
    To,
    Together,
)
from turnwise.script import (
    Any as AnyOf,
)
from turnwise.script.context import Label, NothingSaid
from turnwise.script.engine import choose, holds
from turnwise.testing import ScriptedModel, talk

HI = Exact("hi")


def fails(_: Context) -> Any:
    raise RuntimeError("no")


def script(start: Node, /, fallback: str | None = "fb", **more: Any) -> Script:
    """A script of one flow `f`: a start node, nodes a, b and c that say their names, a fallback."""
    settings = {
        k: more.pop(k) for k in ("slots", "priority", "timeout", "error_reply") if k in more
    }
    nodes: dict[str, Any] = {"start": start, "a": Node("A"), "b": Node("B"), "c": Node("C")}
    nodes |= {"fb": Node("Ooops")}
    flow = {**nodes, **more.pop("nodes", {})}
    label = ("f", fallback) if fallback else None
    return Script({"f": flow, **more}, start=("f", "start"), fallback=label, **settings)


def going(*transitions: To, **more: Any) -> Script:
    return script(Node(transitions=transitions), **more)


def past_of(*nodes: str) -> list[Label]:
    return [Label("f", node) for node in nodes]


def label(script: Script, text: str = "hi", past: tuple[str, ...] = ("start",)) -> str:
    """The node that the engine chooses."""
    context = Context(Message(text, role="user"), past_of(*past))
    node: str = driven(choose(script.dialog, context), context).node
    return node


async def told(script: Script, *texts: str) -> list[str]:
    """What the script says to each of the texts."""
    async with talk(Bot(script)) as say:
        return [(await say(text)).text for text in texts]


async def state_of(script: Script, *texts: str) -> dict[str, Any]:
    """The session's state after the texts."""
    async with talk(Bot(script)) as say:
        for text in texts:
            await say(text)
        async with say.runtime.session("test") as held:
            return held.state


# A dialog


TOY = [
    ("Hi", "Hi, how are you?"),
    ("i'm fine, how are you?", "Good. What do you want to talk about?"),
    ("Let's talk about music.", "Sorry, I can not talk about music now."),
    ("Ok, goodbye.", "bye"),
    ("Hi", "Hi, how are you?"),
]


async def test_the_toy_dialog() -> None:
    """Its happy path, and Ooops from every point, from where only Hi leads on."""
    from test_examples import EXAMPLES

    namespace: dict[str, Any] = {}
    exec((EXAMPLES / "toy_script.py").read_text().partition("runtime =")[0], namespace)
    toy = namespace["script"]
    assert await told(toy, *(asked for asked, _ in TOY)) == [said for _, said in TOY]
    for point in range(len(TOY)):
        asked = [text for text, _ in TOY[:point]]
        answers = await told(toy, *asked, "something else", TOY[1][0], "Hi")
        assert answers[point:] == ["Ooops", "Ooops", "Hi, how are you?"]


# The behaviours, numbered as in the description of what dialogs do


async def test_services_then_the_script_then_services() -> None:
    """1: what is before the script runs before it, and what is after, after."""
    order: list[str] = []

    def respond(_: Context) -> str:
        order.append("script")
        return "A"

    bot = Bot(going(To("x"), nodes={"x": Node(respond)}))

    @bot.service
    async def around(turn: Turn, call_next: Callable[..., Any]) -> None:
        order.append("before")
        await call_next()
        order.append("after")

    async with talk(bot) as say:
        await say("hi")
    assert order == ["before", "script", "after"]


async def test_labels_after_the_first_turn() -> None:
    """2: the start node and the destination, whose response was said."""
    toy = going(To("a", when=HI))
    assert (await state_of(toy, "hi"))["script"]["past"] == [["f", "start"], ["f", "a"]]
    assert await told(toy, "hi") == ["A"]


async def test_nothing_matches() -> None:
    """3: the fallback node and its response."""
    assert await told(going(To("a", when=HI)), "no") == ["Ooops"]


def test_fallback_is_the_start_by_default() -> None:
    """4."""
    assert label(going(To("a", when=HI), fallback=None), "no") == "start"


@pytest.mark.parametrize("wrong", [("f", "nowhere"), ("nowhere", "a"), "a", ("f",), None])
def test_unknown_start_or_fallback(wrong: Any) -> None:
    """5: refused when the script is made."""
    with pytest.raises(ConfigurationError, match="start"):
        Script({"f": {"a": Node("A")}}, start=wrong)
    if wrong is not None:
        with pytest.raises(ConfigurationError, match="fallback"):
            Script({"f": {"a": Node("A")}}, start=("f", "a"), fallback=wrong)


def test_the_default_priority() -> None:
    """6: it counts where none is set."""
    transitions = (To("a"), To("b", priority=2.0))
    assert label(going(*transitions)) == "b"
    assert label(going(*transitions, priority=3.0)) == "a"


def test_equal_priorities() -> None:
    """7: the first listed, in the order node, LOCAL, GLOBAL."""
    nodes = {"LOCAL": Node(transitions=[To("b", when=HI)])}
    everywhere = Node(transitions=[To(("f", "c"))])
    assert label(going(To("a", when=HI), To("b"), nodes=nodes, GLOBAL=everywhere)) == "a"
    assert label(going(nodes=nodes, GLOBAL=everywhere)) == "b"
    assert label(going(nodes=nodes, GLOBAL=everywhere), "no") == "c"


def test_the_highest_priority_wins() -> None:
    """8: whatever the order; numbers by functions count as well."""
    assert label(going(To("a", priority=1), To("b", priority=5), To("c", priority=3))) == "b"
    assert label(going(To("a", priority=1), To("b", priority=lambda _: 5))) == "b"


def test_a_false_condition() -> None:
    """9: the transition is not taken."""
    assert label(going(To("a", when=lambda _: False), To("b"))) == "b"


def test_a_destination_that_does_not_exist_at_run_time() -> None:
    """10: the transition is dropped."""
    assert label(going(To(lambda _: "nowhere"), To("b"))) == "b"


@pytest.mark.parametrize(
    "bad", [To("a", when=fails), To("a", priority=fails), To(fails)], ids=["when", "prio", "to"]
)
def test_an_exception_drops_its_transition_alone(bad: To) -> None:
    """11: in a condition, a priority or a destination."""
    assert label(going(bad, To("b"))) == "b"


def test_priorities_that_are_words() -> None:
    """12: False drops; True and None mean the default; functions may say so too."""
    assert label(going(To("a", priority=False), To("b"))) == "b"
    assert label(going(To("a", priority=lambda _: False), To("b"))) == "b"
    for default in (True, None, lambda _: True, lambda _: None):
        assert label(going(To("a", priority=default), To("b", priority=0.5))) == "a"


def test_a_bare_name_is_of_the_last_flow() -> None:
    """13: whichever flow the conversation is in."""
    flows = {
        "f": {"start": Node(transitions=[To(("g", "one"))]), "two": Node("f")},
        "g": {"one": Node(transitions=[To("two")]), "two": Node("g")},
    }
    two = Script(flows, start=("f", "start"))
    context = Context(Message("hi"), [Label("g", "one")])
    assert driven(choose(two.dialog, context), context) == ("g", "two")


async def test_an_exception_in_the_whole_choice(caplog: pytest.LogCaptureFixture) -> None:
    """14: the fallback, and a line in the log."""
    broken = going(To("a"))
    broken.dialog.priority = None  # type: ignore[assignment]
    broken.dialog.nodes[Label("f", "start")] = None  # type: ignore[assignment]
    assert await told(broken, "hi") == ["Ooops"]
    assert "not in the script any more" in caplog.text


async def test_no_response() -> None:
    """15: an empty message."""
    async with talk(Bot(going(To("x"), nodes={"x": Node()}))) as say:
        reply = await say("hi")
    assert [message.text for message in reply.messages] == [""]


async def test_functions_before_run_in_order_or_together() -> None:
    """17: one after another, or at the same time if asked."""
    order: list[str] = []

    def adds(name: str) -> Callable[[Context], None]:
        return lambda _: order.append(name)

    here, there = asyncio.Event(), asyncio.Event()

    async def meets(_: Context) -> None:
        here.set()
        await there.wait()

    async def comes(_: Context) -> None:
        there.set()
        await here.wait()

    before: Mapping[str, Any] = {"1": adds("1"), "2": adds("2"), "3": Together(meets, comes)}
    node = Node("X", pre_response={"4": adds("4")})
    dialog = script(Node(transitions=[To("x")], pre_transition=before), nodes={"x": node})
    assert await told(dialog, "hi") == ["X"]
    assert order == ["1", "2", "4"]


async def test_texts_and_pairs() -> None:
    """18: a text is a message, a pair of names is a label, from a function too."""
    dialog = going(To(lambda _: ("f", "x")), nodes={"x": Node(lambda _: "text")})
    assert await told(dialog, "hi") == ["text"]


def test_wrong_types_name_the_function(caplog: pytest.LogCaptureFixture) -> None:
    """19: an error that says whose result it was."""

    def odd(_: Context) -> Any:
        return "perhaps"

    caplog.set_level(logging.WARNING)
    assert label(going(To("a", priority=odd), To(odd), To("b"))) == "b"
    assert "odd" in caplog.text


async def test_constant_responses_are_copied() -> None:
    """20: what is done to a reply does not change the script."""
    constant = Message("A", metadata={"x": 1}, attachments=[Attachment("image", "https://a/b")])
    dialog = going(To("x"), nodes={"x": Node(constant, transitions=[To("x")])})
    async with talk(Bot(dialog)) as say:
        first, second = (await say("hi")).messages[0], (await say("hi")).messages[0]
    assert first.id != second.id
    assert first.metadata == {"x": 1}
    assert (constant.seq, constant.turn) == (None, None)


@pytest.mark.parametrize(
    ("wanted", "said", "held"),
    [
        (Message("a"), Message("a", metadata={"x": 1}), True),
        (Message("", metadata={"x": 1}), Message("anything", metadata={"x": 1}), True),
        (Message("a", metadata={"x": 1}), Message("a"), False),
        ("a", Message("a"), True),
        ("a", Message("A"), False),
    ],
)
def test_exact_compares_the_given_fields(wanted: Any, said: Message, held: bool) -> None:
    """21: and no others."""
    assert Exact(wanted).check(Context(said, past_of("start"))) is held


def driven(asking: Any, context: Context) -> Any:
    """What the engine comes to; what it asks for is called at once."""
    try:
        question = next(asking)
        while True:
            try:
                result = question.function(context)
            except Exception as error:
                question = asking.throw(error)
            else:
                question = asking.send(result)
    except StopIteration as found:
        return found.value


def check(condition: Any, text: str = "hi", past: tuple[str, ...] = ("start",)) -> bool:
    context = Context(Message(text), past_of(*past))
    held: bool = driven(holds(condition, context), context)
    return held


def test_regexp_is_a_search() -> None:
    """22: and no text never matches."""
    assert check(Regexp("b+"), "aabb")
    assert not check(Regexp("^b"), "aabb")
    assert not check(Regexp(".*"), "")
    assert check(Has("ab"), "aabb")


def test_members_that_raise() -> None:
    """23: false in Any and All; Not of one that raises is true."""
    assert check(AnyOf(fails, Always()))
    assert not check(AnyOf(fails, fails))
    assert not check(All(Always(), fails))
    assert check(All(Always(), lambda _: True))
    assert check(Not(fails))
    assert not check(Not(Always()))
    assert not check(AnyOf())
    assert check(All())


def test_last_labels() -> None:
    """24: looks back n turns."""
    past = ("a", "b", "c")
    assert check(LastLabels(labels=[("f", "c")]), past=past)
    assert not check(LastLabels(labels=[("f", "b")]), past=past)
    assert check(LastLabels(labels=[("f", "b")], n=2), past=past)
    assert check(LastLabels(flows=["f"]), past=past)
    assert not check(LastLabels(flows=["g"], n=9), past=past)


def test_from_history() -> None:
    """25: -1 is the current node, -2 the one before; out of range drops the transition."""
    past = ("start", "b", "start")
    assert label(going(To(FromHistory(-1))), past=past) == "start"
    assert label(going(To(FromHistory(-2))), past=past) == "b"
    assert label(going(To(Previous())), past=past) == "b"
    assert label(going(To(Current())), past=past) == "start"
    for n in (-4, 0, 1):
        assert label(going(To(FromHistory(n)), To("c")), past=past) == "c"
    assert label(going(To(Start()), To("c"))) == "start"
    assert label(going(To(Fallback()), To("c"))) == "fb"


def test_forward_and_backward() -> None:
    """26: in the order of declaration; dropped at the ends unless looping."""
    assert label(going(To(Forward()))) == "a"
    assert label(going(To(Backward()), To("c"))) == "c"
    assert label(going(To(Backward(loop=True)))) == "fb"
    nodes = {"fb": Node("Ooops", transitions=[To(Forward()), To("c")])}
    assert label(going(nodes=nodes), past=("fb",)) == "c"
    nodes = {"fb": Node("Ooops", transitions=[To(Forward(loop=True))])}
    assert label(going(nodes=nodes), past=("fb",)) == "start"


async def test_inheritance() -> None:
    """27: transitions appended, response where there is none, nearer names win; the originals
    stay as they were."""
    ran: list[str] = []
    everywhere = Node(
        "G", pre_response={"x": lambda _: ran.append("G"), "g": lambda _: ran.append("g")},
        misc={"k": 1},
    )  # fmt: skip
    local = Node("L", pre_response={"x": lambda _: ran.append("L")})
    own = Node(transitions=[To("start")], misc={"m": 2})
    dialog = going(To("x"), nodes={"LOCAL": local, "x": own}, GLOBAL=everywhere)
    assert await told(dialog, "hi") == ["L"]
    assert ran == ["L", "g"]
    assert dialog.dialog.nodes[Label("f", "x")].misc == {"k": 1, "m": 2}
    assert (own.response, list(own.misc), len(own.transitions)) == (None, ["m"], 1)


def test_an_empty_dialog_has_no_last_request() -> None:
    """28: asking for it is a clear error."""
    with pytest.raises(NothingSaid, match="does not contain a message"):
        _ = Context(None, past_of("start")).text


# And none of the faults


def test_conditions_stop_at_the_first_that_holds() -> None:
    """A costly condition of lower priority is not asked."""
    asked: list[str] = []

    def costly(_: Context) -> bool:
        asked.append("costly")
        return True

    everywhere = Node(transitions=[To(("f", "c"), when=costly, priority=0.1)])
    assert label(going(To("a", when=HI), GLOBAL=everywhere)) == "a"
    assert asked == []
    assert label(going(To("a", when=HI), GLOBAL=everywhere), "no") == "c"
    assert asked == ["costly"]


@pytest.mark.parametrize(
    ("flow", "words"),
    [
        ({"a": Node(transitions=[To("nowhere")])}, "f/a: there is no node 'nowhere'"),
        ({"a": {"respnse": "x"}}, "f/a: a node has no respnse"),
        ({"a": Node(transitions=["b"])}, "f/a: a transition is a To"),  # type: ignore[list-item]
        ({"a": Node(7)}, "f/a: 7 is not a response"),  # type: ignore[arg-type]
        ({"a": Node(transitions=[To(7)])}, "f/a: 7 is not a destination"),  # type: ignore[arg-type]
        ({"a": 7}, "f/a: a node is a Node or a dict"),
    ],
)
def test_what_cannot_work_is_refused(flow: Any, words: str) -> None:
    """When the script is made, in words that name flow and node."""
    with pytest.raises(ConfigurationError, match=words):
        Script({"f": flow}, start=("f", "a"))


def test_what_can_hardly_be_meant() -> None:
    """Nodes nothing leads to and transitions never taken are told, and work."""
    dialog = going(To("a"), To("b"))
    assert "f/start: the transition to 'b' is never taken." in dialog.warnings
    assert "f/c: nothing leads to this node." in dialog.warnings
    assert not any("f/a" in warning for warning in dialog.warnings)


async def test_a_response_that_raises() -> None:
    """It is told in words, and the conversation stays where it was."""
    failing = {"x": Node(fails)}
    dialog = going(To("x", when=HI), To("a"), nodes=failing, error_reply="Sorry.")
    assert await told(dialog, "hi", "other") == ["Sorry.", "A"]


async def test_functions_have_a_time() -> None:
    """A condition that hangs drops its transition."""

    async def hangs(_: Context) -> bool:
        await asyncio.Event().wait()
        return True

    began = time.monotonic()
    assert await told(going(To("a", when=hangs), To("b"), timeout=0.1), "hi") == ["B"]
    assert time.monotonic() - began < 5


async def test_pass_through_and_its_guard() -> None:
    """A node may say something and go on at once; a circle of such nodes ends in words."""
    nodes = {"x": Node("one", transitions=[To("a")], pass_through=True)}
    assert await told(going(To("x"), nodes=nodes), "hi") == ["one\nA"]
    nodes = {"x": Node("one", transitions=[To("x")], pass_through=True)}
    async with talk(Bot(going(To("x"), nodes=nodes))) as say:
        with pytest.raises(TurnError, match="circles"):
            await say("hi")


async def test_slots() -> None:
    """Found by patterns, functions and in groups, kept between turns, filled into responses."""

    async def size(context: Context) -> str | None:
        return "large" if "large" in context.text else None

    slots = {
        "name": RegexpSlot(r"I am (\w+)", group=1),
        "pizza": Group({"size": FunctionSlot(size), "kind": RegexpSlot("margherita|funghi")}),
    }
    extract = {"slots": Extract("name", "pizza")}
    done = Node(Template("A {pizza.size} {pizza.kind} for {name}{nothing}."))
    ask = Node(
        "What else?",
        pre_transition=extract,
        transitions=[To("done", when=SlotsExtracted("name", "pizza.size", "pizza.kind")), To("x")],
    )
    start = Node(pre_transition=extract, transitions=[To("x")])
    dialog = script(start, nodes={"x": ask, "done": done}, slots=slots)
    said = await told(dialog, "I am Ada", "a large one", "funghi please")
    assert said == ["What else?", "What else?", "A large funghi for Ada."]
    assert check(Not(SlotsExtracted("name", "b", any=True)))


async def test_a_node_hands_the_turn_to_a_model_and_takes_it_back() -> None:
    """The model streams, with the conversation before it; the next turn is the script's again."""
    model = ScriptedModel(["I talk about anything."])
    nodes = {"chat": Node(model, transitions=[To("a", when=HI), To("chat")])}
    dialog = going(To("chat"), nodes=nodes)
    assert await told(dialog, "what?", "hi") == ["I talk about anything.", "A"]
    assert [message.text for message in model.prompts[0]] == ["what?"]


async def test_responses_stream() -> None:
    """An async generator's pieces are deltas as they come; a choice is one of its options."""

    async def streams(_: Context) -> AsyncIterator[str]:
        for piece in ("one ", "two"):
            yield piece
            await asyncio.sleep(0.05)

    dialog = going(To("x", when=HI), To("y"), nodes={"x": Node(streams), "y": Node(Choice(["Y"]))})
    async with talk(Bot(dialog, coalesce=0.001)) as say:
        events = [event async for event in say.runtime.stream("s", "hi")]
        assert [event.type for event in events].count("delta") == 2
        assert (await say("no")).text == "Y"


async def test_two_at_once_lose_nothing() -> None:
    """Two requests for one dialog are two steps, one after the other."""

    def count(context: Context) -> str:
        context.state["n"] = context.state.get("n", 0) + 1
        return f"{context.state['n']}"

    dialog = going(To("x"), nodes={"x": Node(count, transitions=[To("x")])})
    async with talk(Bot(dialog)) as say:
        replies = await asyncio.gather(*(say("hi") for _ in range(10)))
    assert sorted(int(reply.text) for reply in replies) == list(range(1, 11))


async def test_what_one_person_leaves_no_other_sees() -> None:
    """A node's misc is a turn's own, with the lists in it; what it holds else is shared."""
    shared = object()

    def remember(context: Context) -> None:
        assert isinstance(context.misc, dict)
        context.misc.setdefault("name", context.text)
        context.misc["all"].append(context.text)
        assert context.misc["model"] is shared

    hello = Node(
        lambda c: f"{c.misc['name']} {c.misc['all']}",
        misc={"all": [], "model": shared},
        pre_response={"r": remember},
    )
    script = Script(
        {"f": {"start": Node(transitions=[To("hello")]), "hello": hello}}, start=("f", "start")
    )
    async with talk(Bot(script)) as say:
        assert (await say("Ada", session="ada")).text == "Ada ['Ada']"
        assert (await say("Bo", session="bo")).text == "Bo ['Bo']"


@pytest.mark.parametrize("pattern", [r"^(\w+\s?)+$", r"(a|aa)+$", r"(a*)*b", r"(?:a|a?)+c"])
async def test_a_pattern_that_backtracks_holds_up_nobody(pattern: str) -> None:
    """As a condition and as a slot it does not match, in bounded time."""
    slots = {"x": RegexpSlot(pattern)}
    start = Node(
        transitions=[To("words", when=Regexp(pattern)), To("other")],
        pre_transition={"e": Extract("x")},
    )
    nodes = {"start": start, "words": Node("words"), "other": Node(lambda c: f"{c.slots}")}
    script = Script({"f": nodes}, start=("f", "start"), slots=slots)
    async with talk(Bot(script)) as say:
        began = time.process_time()
        assert (await say("a" * 200 + "!")).text == "{}"
        assert time.process_time() - began < 2


class Priced:
    """An object that is called with the context."""

    def __call__(self, context: Context) -> str:
        return f"{context.slots.get('n', 1)} EUR"


class PricedLater:
    async def __call__(self, context: Context) -> str:
        return f"{context.slots.get('n', 1)} EUR"


class OfTurn:
    def __call__(self, turn: Turn) -> str:
        return f"{turn.n} EUR"


def price(context: Context, currency: str) -> str:
    return f"{context.slots.get('n', 1)} {currency}"


@pytest.mark.parametrize(
    "response",
    [
        Priced(),
        PricedLater(),
        OfTurn(),
        functools.partial(price, currency="EUR"),
        Priced().__call__,
    ],
)
async def test_responses_of_any_kind(response: Any) -> None:
    """Objects, partials and methods get the context, or the turn if they say so."""
    nodes = {"start": Node(transitions=[To("p")]), "p": Node(response)}
    async with talk(Bot(Script({"f": nodes}, start=("f", "start")))) as say:
        assert (await say("price?")).text == "1 EUR"


@pytest.mark.parametrize("where", ["pre_transition", "pre_response", "half"])
async def test_a_step_that_failed_leaves_no_trace(where: str) -> None:
    """Neither in the state nor in the slots: said again, it happens once."""
    tries = 0

    def add(context: Context) -> None:
        context.state.setdefault("cart", []).append(context.text)
        context.slots.setdefault("n", []).append(1)
        if where == "half" and not tries:
            raise ValueError("half done")

    async def receipt(context: Context) -> str:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ConnectionError("the kitchen is away")
        return f"{context.state['cart']} {context.slots['n']}"

    before = {"add": add}
    first = Node(transitions=[To("cart")], pre_transition=before if where != "pre_response" else {})
    cart = Node(receipt, pre_response=before if where == "pre_response" else {})
    script = Script({"f": {"start": first, "cart": cart}}, start=("f", "start"))
    async with talk(Bot(script)) as say:
        assert (await say("pizza")).text.startswith("Sorry")
        assert (await say("pizza")).text == "['pizza'] [1]"


async def test_the_way_back() -> None:
    """Previous goes back the way that was come, and stays at its beginning; what was gone back from
    is not on the way any more."""
    back = Node(transitions=[To(Previous(), when=Exact("back"), priority=5)])
    flow = {
        "LOCAL": back, "a": Node("A", transitions=[To("b")]), "b": Node("B", transitions=[To("c")]),
        "c": Node("C", transitions=[To("c")]),
    }  # fmt: skip
    async with talk(Bot(Script({"f": flow}, start=("f", "a")))) as say:
        said = [(await say(one)).text for one in ("on", "on", "back", "back", "back", "on")]
    assert said == ["B", "C", "B", "A", "A", "B"]


def test_the_same_text_for_a_person() -> None:
    """With ignore_case neither spaces nor the composition of letters count."""
    exact = Exact("caf\u00e9 au lait", ignore_case=True)
    for text in ("Caf\u00e9 au lait ", "cafe\u0301 au\u00a0lait", "CAF\u00c9  AU\nLAIT"):
        assert exact.check(Context(Message(text, role="user"), []))
    assert not Exact("caf\u00e9").check(Context(Message("Caf\u00e9", role="user"), []))


@pytest.mark.parametrize(
    ("given", "held"), [("found", True), ("", False), (None, False), (3, True)]
)
def test_truth_as_python_has_it(given: Any, held: bool) -> None:
    """What a condition returns counts as it does in an `if`."""
    assert check(lambda context: given) is held
