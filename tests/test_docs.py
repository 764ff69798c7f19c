"""The documentation says what is: settings, events, errors, verbs, states, and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import turnwise
from turnwise import errors
from turnwise.cli.commands import app
from turnwise.conversation import OPEN, TRANSITIONS, events
from turnwise.settings import Settings

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text()


def diagram() -> str:
    """The states of a turn as a Mermaid diagram, drawn from the table."""
    lines = ["stateDiagram-v2", "    [*] --> queued: submit"]
    for status, acts in TRANSITIONS.items():
        for target in dict.fromkeys(acts.values()):
            names = ", ".join(act for act, to in acts.items() if to == target)
            lines.append(f"    {status} --> {target}: {names}")
    lines += [f"    {status} --> [*]" for status in TRANSITIONS if status not in OPEN]
    return "\n".join(lines)


def test_the_states_are_drawn_from_the_table() -> None:
    """The diagram in the guarantees is the table's."""
    assert diagram() in page("guarantees.md"), diagram()


def test_every_setting_has_a_line() -> None:
    """With its variable."""
    for name in Settings.model_fields:
        assert f"`TURNWISE_{name.upper()}`" in page("reference/settings.md")


def test_every_event_has_a_heading() -> None:
    """All ten, and no others."""
    headings = re.findall(r"^## (.+)$", page("reference/events.md"), re.M)
    assert sorted(headings) == sorted(events.TYPES)


def test_every_error_of_a_request_has_a_line() -> None:
    """Each code that a client can meet is explained."""
    from turnwise.channels import bodies
    from turnwise.gateway.hub import TooManyStreams

    classes = [c for c in vars(errors).values() if isinstance(c, type)]
    classes += [c for c in vars(bodies).values() if isinstance(c, type)] + [TooManyStreams]
    codes = {c.code for c in classes if issubclass(c, errors.Rejected)} | {"store_unavailable"}
    for code in codes:
        assert f"`{code}`" in page("reference/errors.md"), code


def test_every_verb_has_a_heading() -> None:
    """The command line's verbs."""
    verbs = [command.callback.__name__ for command in app.registered_commands if command.callback]
    verbs += [group.name for group in app.registered_groups if isinstance(group.name, str)]
    for verb in (*verbs, "sessions"):
        assert f"## turnwise {verb}" in page("reference/settings.md"), verb


def test_every_public_name_is_in_the_map() -> None:
    """What `from turnwise import` offers."""
    for name in turnwise.__all__:
        assert name in page("reference/python.md"), name


def test_the_promises_name_tests_that_exist() -> None:
    """A test that holds a promise cannot be renamed away."""
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", page("guarantees.md"))
    assert len(named) > 15
    for file, test in named:
        path = (
            ROOT / ("src/turnwise/testing" if file.startswith("conformance/") else "tests") / file
        )
        assert f"def {test}(" in path.read_text(), test


def test_the_threats_name_tests_that_exist() -> None:
    """What is said to be shown by a file of tests has that file."""
    named = set(re.findall(r"`(test_\w+\.py)`", page("security.md")))
    assert len(named) > 15
    for file in named:
        assert (ROOT / "tests" / file).exists(), file


def test_every_dependency_has_its_reason() -> None:
    """One line each, the extras' too."""
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    for name in re.findall(r'"([a-z0-9-]+)[\[>]', block):
        assert name in page("dependencies.md"), name


def test_links_lead_somewhere() -> None:
    """Relative links of README and docs."""
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+\.md)[^)]*\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


@pytest.mark.parametrize("name", ["quickstart.md", "README.md"])
async def test_the_first_bot_works(name: str) -> None:
    """The bot that newcomers copy does what it says."""
    from turnwise.testing import talk

    text = (ROOT / name if name == "README.md" else DOCS / name).read_text()
    code = re.search(r"```python[^\n]*\n(from turnwise import Bot, Turn.+?)```", text, re.S)
    assert code
    space: dict[str, turnwise.Bot] = {}
    exec(code[1], space)
    async with talk(space["bot"]) as say:
        await say("hi")
        assert (await say("hello")).text == "You said: hello (message 2)"
