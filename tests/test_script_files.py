"""Scripts as files: what they come to, what is told of a wrong one, pictures, rehearsals."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest

from conftest import Opener
from terminals import PROMPT, Terminal
from test_examples import EXAMPLES, client, running
from test_models import model_server
from test_script import TOY
from test_websocket import frames, open_socket, send
from turnwise import Bot, Runtime
from turnwise.errors import ConfigurationError
from turnwise.script import Context, Group, RegexpSlot, Script, diagram
from turnwise.script.context import Label
from turnwise.script.schema import schema
from turnwise.testing import talk

WHOLE = """
start: f/start
fallback: f/fb
timeout: 2
slots:
  name: {regexp: 'i am (\\w+)'}
  pizza:
    group:
      size: {regexp: large|small}
      kind: {call: kind}
global:
  transitions:
    - {to: f/bye, when: {has: BYE}, ignore_case: true, priority: 9}
flows:
  f:
    LOCAL:
      pre_transition:
        look: {extract: [name, pizza]}
    start:
      transitions:
        - {to: two, when: {all: [{regexp: 'i am'}, {not: {slots: [pizza.size]}}]}}
        - {to: '@forward', when: {any: [{exact: next}, {call: never}]}}
    two:
      response: Hello {name}.
      transitions:
        - {to: {call: somewhere}, when: {exact: jump}}
        - {to: {history: -2}, when: {exact: back}}
        - {to: done, when: {slots: [pizza.size, pizza.kind]}}
        - {to: '@current'}
    done: {response: 'A {pizza.size} {pizza.kind}.'}
    bye: {response: {choice: [Bye.]}}
    called: {response: {call: answer}}
    fb: {response: {message: {text: Ooops, metadata: {x: 1}}}}
"""


def kind(context: Context) -> str | None:
    return "funghi" if "funghi" in context.text else None


FUNCTIONS = {
    "kind": kind,
    "never": lambda _: False,
    "somewhere": lambda _: "called",
    "answer": lambda context: f"You are {context.slot('name')}.",
}


async def test_a_file_with_everything(tmp_path: Path) -> None:
    """Slots, conditions of each kind, jumps, functions, GLOBAL and LOCAL."""
    path = tmp_path / "whole.yaml"
    path.write_text(WHOLE)
    async with talk(Bot(Script.load(path, FUNCTIONS))) as say:
        for asked, said in (
            ("what", "Ooops"),
            ("goodbye", "Bye."),
        ):
            assert (await say(asked)).text == said
    async with talk(Bot(Script.load(path, FUNCTIONS))) as say:
        for asked, said in (
            ("i am Ada", "Hello Ada."),
            ("hm", "Hello Ada."),
            ("a small one, no, large", "Hello Ada."),
            ("funghi", "A small funghi."),
        ):
            assert (await say(asked)).text == said
    async with talk(Bot(Script.load(path, FUNCTIONS))) as say:
        assert (await say("next")).text == "Hello ."
        assert (await say("i am Bo")).text == "Hello Bo."
        assert (await say("jump")).text == "You are Bo."


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("flows: [\n", ":2: "),
        ("flows: {}\n", ":1: start: Field required"),
        ("start: f/a\nflows:\n  f:\n    a:\n      respnse: x\n", ":5: f/a: respnse"),
        ("start: f/b\nflows:\n  f:\n    a: {response: x}\n", ":1: start: there is no node 'f/b'"),
        (
            "start: f/a\nflows:\n  f:\n    a:\n      transitions:\n        - to: b\n",
            ":6: f/a: transitions.0.to: there is no node 'b'",
        ),
        (
            "start: f/a\nflows:\n  f:\n    a:\n      transitions:\n"
            "        - to: a\n          when: {has: x, exact: y}\n",
            ":7: f/a: transitions.0.when: exactly one of: exact",
        ),
        (
            "start: f/a\nflows:\n  f:\n    a:\n      transitions:\n"
            "        - to: a\n          when: {regexp: '('}\n",
            ":7: f/a: transitions.0.when.regexp: '(' is not a regular expression",
        ),
        (
            "start: f/a\nflows:\n  f:\n    a: {response: {call: os.system}}\n",
            ":4: f/a: response.call: no function 'os.system' is registered",
        ),
        ("start: f/a\nflows: {f: {a: {response: !!python/name:os.system ''}}}\n", ":2: "),
        ("- 1\n", ":1: Input should be a valid dictionary"),
    ],
)
def test_a_wrong_file(tmp_path: Path, text: str, words: str) -> None:
    """File, line, flow and node are told; nothing in it is ever imported."""
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as found:
        Script.load(path)
    assert str(found.value).startswith(f"{path}{words}"), found.value


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Told in words."""
    with pytest.raises(ConfigurationError, match="No such file"):
        Script.load(tmp_path / "nothing.yaml")


def test_the_schema() -> None:
    """It describes nodes, and takes nothing unknown."""
    found = schema()
    assert found["additionalProperties"] is False
    assert {"NodeIn", "ConditionIn", "SlotIn"} <= set(found["$defs"])
    assert "global" in found["properties"]


def test_pictures() -> None:
    """Mermaid and SVG hold every node and what leads where; a path is marked."""
    dialog = Script.load(EXAMPLES / "toy_script.yaml").dialog
    path = [Label("greeting_flow", "start_node"), Label("greeting_flow", "node1")]
    drawn = diagram.mermaid(dialog, path)
    assert 'n0 -->|"= Hi"| n1' in drawn
    assert "class n0,n1 went" in drawn
    whole = ElementTree.fromstring(diagram.svg(dialog, path))
    texts = {element.text for element in whole.iter("{http://www.w3.org/2000/svg}text")}
    assert {"start_node", "node4", "fallback_node", "= Let's talk about music."} <= texts
    boxes = [e.get("fill") for e in whole.iter("{http://www.w3.org/2000/svg}rect")]
    assert boxes.count("#ffd54f") == 2


def turnwise(*arguments: str, cwd: Path, status: int = 0) -> str:
    command = [sys.executable, "-m", "turnwise", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def test_the_command_line(tmp_path: Path) -> None:
    """check, draw and test, with a readable difference."""
    for name in ("toy_script.yaml", "toy_script.dialog"):
        (tmp_path / name).write_text((EXAMPLES / name).read_text())
    assert "6 nodes" in turnwise("script", "check", "toy_script.yaml", cwd=tmp_path)
    turnwise("script", "draw", "toy_script.yaml", "-o", "toy.svg", cwd=tmp_path)
    assert (tmp_path / "toy.svg").read_text().startswith("<svg")
    assert "7 replies" in turnwise("script", "test", "toy_script.yaml", cwd=tmp_path)
    wrong = (tmp_path / "toy_script.dialog").read_text().replace("\nbye\n", "\nfarewell\n")
    (tmp_path / "toy_script.dialog").write_text(wrong)
    told = turnwise("script", "test", "toy_script.yaml", cwd=tmp_path, status=1)
    assert "toy_script.dialog:8: > Ok, goodbye." in told
    assert "- farewell" in told
    assert "+ bye" in told
    assert json.loads(turnwise("script", "schema", cwd=tmp_path))["title"] == "ScriptIn"


async def test_the_toy_script_over_http(tmp_path: Path) -> None:
    """Eight users at once, two requests at a time for each: all answered, one after another."""
    with running("toy_script", tmp_path) as url:
        async with client(url) as web:

            async def ask(user: str, text: str) -> str:
                response = await web.post("/chat", params={"user_id": user}, json={"text": text})
                assert response.status_code == 200, response.text
                body = response.json()
                assert body["user_id"] == user
                said: str = body["response"]["text"]
                return said

            async def talks(user: str) -> None:
                assert await ask(user, "Hi") == "Hi, how are you?"
                both = await asyncio.gather(
                    ask(user, "i'm fine, how are you?"), ask(user, "Let's talk about music.")
                )
                # Whichever came first: both were answered, each from where the other left off.
                assert set(both) in (
                    {"Good. What do you want to talk about?", "Ooops"},
                    {
                        "Good. What do you want to talk about?",
                        "Sorry, I can not talk about music now.",
                    },
                    {"Ooops"},
                )
                assert await ask(user, "something") == "Ooops"
                assert await ask(user, "Hi") == "Hi, how are you?"

            await asyncio.gather(*(talks(f"user{i}") for i in range(8)))


async def test_the_toy_script_over_websocket(open_door: Opener) -> None:
    """The happy path, the fallback and the way back, on one socket."""
    async with open_door(Bot(Script.load(EXAMPLES / "toy_script.yaml"))) as door:
        talker = await door.session()
        async with open_socket(door, talker) as socket:
            for asked, said in [*TOY, ("what?", "Ooops"), ("Hi", TOY[0][1])]:
                await send(socket, type="message", text=asked)
                heard = await frames(socket, "turn.completed")
                assert [f["message"]["text"] for f in heard if f["type"] == "message"] == [said]


def test_the_toy_script_in_the_terminal(terminal: Callable[..., Terminal]) -> None:
    """`turnwise chat toy_script.yaml`: the same dialog."""
    chat = terminal("chat", str(EXAMPLES / "toy_script.yaml"))
    for asked, said in [*TOY, ("what?", "Ooops"), ("Hi", TOY[0][1])]:
        chat.wait_for(PROMPT)
        chat.type(f"{asked}\r")
        chat.wait_for(re.escape(said))
    chat.wait_for(PROMPT)
    assert chat.end() == 0


def test_serving_a_file(tmp_path: Path) -> None:
    """`turnwise serve flow.yaml` answers with the script; a wrong file is told at once."""
    from conftest import Process

    process = Process(tmp_path, str(EXAMPLES / "toy_script.yaml"))
    process.start()
    try:
        made = httpx.post(f"{process.url}/sessions", json={}).json()
        headers = {"Authorization": f"Bearer {made['token']}", "Prefer": "wait=20"}
        turns = f"{process.url}/sessions/{made['id']}/turns"
        reply = httpx.post(turns, json={"text": "Hi"}, headers=headers).json()["reply"]
        assert reply["text"] == "Hi, how are you?"
    finally:
        process.stop()
    (tmp_path / "wrong.yaml").write_text("flows: {}\n")
    assert "wrong.yaml:1" in turnwise("serve", "wrong.yaml", cwd=tmp_path, status=1).replace(
        "\n", ""
    )


OLD = """
start: f/s
slots: {street: {regexp: 'to (.+)'}}
flows:
  f:
    s: {transitions: [{to: ask_size}]}
    ask_size: {response: 'size?', pre_response: {e: {extract: [street]}}}
"""
NEW = """
start: f/s
fallback: f/lost
slots: {street: {group: {name: {regexp: 'to (.+)'}}}}
global: {transitions: [{to: f/help, when: {exact: help}, priority: 9}]}
flows:
  f:
    s: {transitions: [{to: size}]}
    size: {response: 'size?'}
    lost: {response: lost}
    help: {response: 'HELP {street.name}', pre_response: {e: {extract: [street]}}}
"""


async def test_a_new_version_meets_sessions_that_exist(tmp_path: Path) -> None:
    """Beforehand the command says at which nodes that are gone they are, and which slots have
    another shape; then they go on: from GLOBAL, and the slot is filled anew."""
    (tmp_path / "old.yaml").write_text(OLD)
    (tmp_path / "new.yaml").write_text(NEW)
    store = f"sqlite:///{tmp_path / 's.db'}"
    async with Runtime(Bot(Script.load(tmp_path / "old.yaml")), store) as runtime:
        for who in ("ada", "bob"):
            await runtime.ask(who, "to Main 1")
    said = turnwise("script", "check", "new.yaml", "--store", store, cwd=tmp_path, status=0)
    assert "2 sessions have begun" in said
    assert "2 of them are at f/ask_size, which is gone" in said
    assert "2 of them have a slot street of another shape" in said
    async with Runtime(Bot(Script.load(tmp_path / "new.yaml")), store) as runtime:
        assert (await runtime.ask("ada", "help")).text == "HELP "


MISTAKES = {
    "there already, in line 6": "    a: {response: first}\n    a: {response: second}\n",
    "needs at least one response": "    a: {response: {choice: []}}\n",
    "no slot 'szie' to extract": "    a: {response: r, pre_response: {e: {extract: [szie]}}}\n",
    "it is empty": "    a: {response: r, transitions: [{to: s, when: {any: []}}]}\n",
    "no flow 'g'": "    a: {transitions: [{to: s, when: {last_labels: {flows: [g]}}}]}\n",
}
SUSPICIOUS = {
    "no slot 'nmae'": "    a: {response: 'Hi {nmae}!'}\n",
    "no slot 'szie'": "    a: {transitions: [{to: s, when: {not: {slots: [szie]}}}]}\n",
    "no slot 'name.first'": "    a: {response: {choice: ['{name.first}']}}\n",
}
HEAD = (
    "start: f/s\nslots: {name: {regexp: 'I am (\\w+)'}}\nflows:\n  f:\n"
    "    s: {pre_transition: {e: {extract: [name]}}, transitions: [{to: a}]}\n"
)


@pytest.mark.parametrize("words", [*MISTAKES, *SUSPICIOUS])
def test_names_that_are_none(tmp_path: Path, words: str) -> None:
    """They are refused, or warned of where a function may fill them, with file, line and node."""
    path = tmp_path / "x.yaml"
    path.write_text(HEAD + (MISTAKES | SUSPICIOUS)[words])
    if words in MISTAKES:
        with pytest.raises(ConfigurationError, match=words) as refused:
            Script.load(path)
        found = refused.value.message
    else:
        (found,) = Script.load(path).warnings
        assert words in found
    assert found.startswith((f"{path}:6: f/a", f"{path}:7"))


@pytest.mark.parametrize(
    ("response", "said"),
    [
        ("{choice: ['Hi {name}!', 'Hi {name}!']}", "Hi Ada!"),
        ("{message: {text: 'Hi {name}!'}}", "Hi Ada!"),
        (
            "'write {{name}} or { name } or {\"name\": 1}'",
            'write {name} or { name } or {"name": 1}',
        ),
    ],
)
async def test_where_slots_stand_for_values(tmp_path: Path, response: str, said: str) -> None:
    """In choices and messages too; two pairs of braces are one pair of braces."""
    path = tmp_path / "x.yaml"
    path.write_text(HEAD + f"    a: {{response: {response}}}\n")
    async with talk(Bot(Script.load(path))) as say:
        assert (await say("I am Ada")).text == said


async def test_the_pizza_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """A form that is filled in any order, small talk by a model in between, and a new order."""
    async with model_server() as (_, model_url):
        monkeypatch.setenv("OPENAI_BASE_URL", f"{model_url}/v1")
        monkeypatch.syspath_prepend(str(EXAMPLES))
        pizza_form = importlib.import_module("pizza_form")
        async with talk(pizza_form.bot) as say:
            for asked, said in (
                ("hello there", "echo: hello there"),
                ("a pizza please", "What size: small, medium or large?"),
                ("funghi, large", "A large funghi. Where to? (to Main Street 5)"),
                ("is it far?", "echo: is it far?"),
                ("to Elm Road 7", "A large funghi to Elm Road 7. Shall I order it?"),
                ("yes please", "Done! It is on its way."),
                ("another pizza: small", "A small one. Which: margherita, funghi or salami?"),
                ("Cancel that", "Cancelled."),
                ("pizza", "What size: small, medium or large?"),
            ):
                assert (await say(asked)).text.strip() == said
            async with say.runtime.session("test") as held:
                assert held.state["orders"][0] == {
                    "size": "large", "kind": "funghi", "street": "Elm Road 7",
                }  # fmt: skip
        await pizza_form.model.aclose()


# Languages


LANGUAGES = """
start: f/s
error_reply: {en: Sorry., de: Verzeihung.}
slots:
  language: {regexp: '\\b(en|de|pt-BR|xx)\\b'}
flows:
  f:
    LOCAL:
      pre_transition: {look: {extract: [language]}}
    s:
      transitions:
        - {to: broken, when: {exact: break}}
        - {to: only, when: {all: [{exact: who}, {speaks: [de]}]}}
        - {to: a}
    a:
      response: {languages: {en: 'Hello {language}', de: {choice: [Hallo]}, pt: Oi, no: Hei}}
      transitions: [{to: s, when: {exact: again}}, {to: '@current'}]
    only:
      response: {languages: {en: English, de: Deutsch}}
    broken: {response: {call: broken}}
"""


def breaks(context: Context) -> str:
    raise RuntimeError("broken")


@pytest.mark.parametrize(
    ("session", "message", "text", "said"),
    [
        ({}, {}, "hi", "Hello "),
        ({"language": "de-AT"}, {}, "hi", "Hallo"),
        ({"language": "DE_at"}, {}, "hi", "Hallo"),
        ({}, {"language": "pt-BR"}, "hi", "Oi"),
        ({"language": "de"}, {"language": "pt"}, "hi", "Hallo"),
        ({"language": "de"}, {}, "pt-BR please", "Oi"),
        ({"language": "tlh"}, {"language": "no"}, "hi", "Hei"),
        ({"language": 7}, {"language": ""}, "hi", "Hello "),
        ({"language": "xx"}, {}, "hi", "Hello "),
        ({"language": "de"}, {}, "who", "Deutsch"),
        ({"language": "fr"}, {}, "who", "Hello "),
        ({"language": "de"}, {}, "break", "Verzeihung."),
    ],
)
async def test_languages(
    tmp_path: Path, session: dict[str, Any], message: dict[str, Any], text: str, said: str
) -> None:
    """The conversation's language is that of the slot, the session or the message; a region may be
    missing; the first text is said where none suits."""
    path = tmp_path / "x.yaml"
    path.write_text(LANGUAGES)
    script = Script.load(path, functions={"broken": breaks})
    async with talk(Bot(script)) as say:
        await say.runtime.create("test", metadata=session)
        assert (await say(text, metadata=message)).text == said


def test_a_language_that_is_missing(tmp_path: Path) -> None:
    """It is a warning of the node that lacks it, with its line."""
    path = tmp_path / "x.yaml"
    path.write_text(LANGUAGES)
    script = Script.load(path, functions={"broken": breaks})
    assert [warning.partition(": ")[2] for warning in script.warnings] == [
        "f/only: it says nothing in 'pt'.",
        "f/only: it says nothing in 'no'.",
    ]
    assert script.warnings[0].startswith(f"{path}:18: f/only")


# Rehearsals of any reply


REPLIES = """
from turnwise import Ask, Message
from turnwise.conversation import Attachment
from turnwise.script import Choice, Node, Regexp, Script, To

def reply(context):
    match context.text:
        case "quote": return "> quoted\\n# head\\n--- line\\n\\\\ back\\n|\\n@home"
        case "file": return Message("see", [Attachment("image/png", "https://x.org/a.png", "a")])
        case "order": return Ask("Which?", choices=["small", "large"])
        case "form": return Ask("Who?", kind="form", name="address")
        case "empty": return "text\\n\\n"
        case "fail": raise RuntimeError("no")
        case "who": return context.request.metadata.get("language", "?")
    return f"Your number is {id(context)}.\\nLine {len(context.text.splitlines())}\\nend"

script = Script(
    {"f": {"s": {"transitions": [To("any", when=Regexp("dice")), To("r")]},
           "r": Node(reply, transitions=[To("any", when=Regexp("dice")), To("r")]),
           "any": Node(Choice(["one", "two\\nlines"]), transitions=[To("r")])}},
    start=("f", "s"),
)
"""

EXCHANGES = """\
@language de
> who
de
> quote
\\> quoted
\\# head
\\--- line
\\\\ back
\\|
@home
> file
see
[image/png: https://x.org/a.png (a)]
> order
Which?
[choices: small | large]
> 2
Your number is [*].
[...]
> form
Who?
[asks: address]
> empty
text

> dice
one
|
two
lines
> fail
Sorry, something went wrong here. Please try again.
> two
>> lines
Your number is [*].
Line 2
end

--- another conversation
> who
?
"""


def test_any_reply_can_be_rehearsed(tmp_path: Path) -> None:
    """Files, choices, forms, failures, chance, ids, and lines that look like the file's own; a
    reply that differs is shown beside the nearest that was expected."""
    (tmp_path / "toy.py").write_text(REPLIES)
    (tmp_path / "toy.dialog").write_text(EXCHANGES)
    told = turnwise("script", "test", "toy:script", "toy.dialog", cwd=tmp_path)
    assert "11 replies as expected" in told
    wrong = EXCHANGES.replace("one\n|\ntwo\nlines", "three\n|\ntwo\nrows")
    (tmp_path / "toy.dialog").write_text(wrong)
    told = turnwise("script", "test", "toy:script", "toy.dialog", cwd=tmp_path, status=1)
    assert "toy.dialog:26: > dice" in told
    assert ("- three" in told and "+ one" in told) or ("- rows" in told and "+ lines" in told)


BOMB = "\n".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}' if i else 'x'] * 9)}]" for i in range(9))
"""Nine lines that stand for hundreds of millions of elements."""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('start: a/b\nflows:\n  a:\n    b: {response: "Hi \x07"}\n', ":4: the character U+0007"),
        ("start: a/b\nflows: &all {a: *all}\n", ":2: an alias stands for what it is in"),
        ("flows: " + "[" * 5000 + "]" * 5000, "more than 100 levels"),
        ("flows: " + "[" * 200 + "]" * 200, ":1: more than 100 levels"),
        (BOMB, "aliases make more than 100,000 elements"),
    ],
    ids=["character", "recursion", "depth", "levels", "bomb"],
)  # fmt: skip
def test_files_that_are_no_script(tmp_path: Path, text: str, words: str) -> None:
    """What no parser takes, or none should, is refused in a line, and quickly."""
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        Script.load(path)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("^(?:abc){e}$", "abx", False),
        ("^(?:abc){e}$", "abc{e}", True),
        (r"^a{2}b{1,}c{,2}d{0,1}$", "aabc", True),
        (r"^\{x}[{]\\{y}$", r"{x}{\{y}", True),
        (r"\N{EURO SIGN}{2}", "€€", True),
        (r"^a{,}b$", "aaab", True),
    ],
)
def test_braces_in_patterns(pattern: str, text: str, found: bool) -> None:
    """They mean what they mean in Python's own patterns."""
    assert (re.search(pattern, text) is not None) is found
    assert (RegexpSlot(pattern).pattern.search(text) is not None) is found


def test_a_large_file_without_aliases(tmp_path: Path) -> None:
    """It is read; what is wrong with it is something else."""
    path = tmp_path / "large.yaml"
    lines = [f"- [{', '.join('abcdefghijklmnopqrst')}]" for _ in range(6000)]
    path.write_text("start: a/b\nflows:\n" + "\n".join(lines))
    with pytest.raises(ConfigurationError, match="flows"):
        Script.load(path)


def test_slots_that_no_template_can_name() -> None:
    """They are allowed, for functions may ask for them, and are warned of; also within groups."""
    dot = RegexpSlot(".")
    slots: Any = {"first name": dot, "of": Group({"a.b": dot, "c-d": dot})}
    script = Script({"a": {"b": {"response": "hi"}}}, start=("a", "b"), slots=slots)
    named = [warning.partition(": a template")[0] for warning in script.warnings]
    assert named == ["slots: first name", "slots: of.a.b"]
