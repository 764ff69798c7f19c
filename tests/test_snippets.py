"""Every snippet of README and docs runs as it stands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml
from typer.main import get_command

from conftest import Process
from test_clients import HERE, installed
from turnwise.cli.commands import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```([a-z]+)([^\n]*)\n(.+?)^```$", re.M | re.S)


SERVED = ' title="against turnwise serve"'


def snippets(language: str, about: str = "") -> list[object]:
    found: list[object] = []
    for page in PAGES:
        for number, (kind, more, text) in enumerate(FENCE.findall(page.read_text()), 1):
            if kind == language and (more == SERVED) == (about == SERVED):
                found.append(pytest.param(text, id=f"{page.relative_to(ROOT)}-{number}"))
    return found


@pytest.mark.parametrize("text", snippets("python"))
def test_python_snippets_run(text: str, tmp_path: Path) -> None:
    """Imports included, in an empty folder, without a warning."""
    environment = {**os.environ, "OPENAI_API_KEY": "sk-none"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of `turnwise serve` on this machine, without keys."""
    process = Process(tmp_path_factory.mktemp("served"), "bots:clients")
    process.start()
    yield process.url
    process.kill()


@pytest.mark.parametrize("text", snippets("python", SERVED))
def test_python_clients_run(text: str, served: str, tmp_path: Path) -> None:
    """Programs that talk to a server that runs on this machine."""
    text = text.replace("http://127.0.0.1:8000", served)
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("text", snippets("js", SERVED))
def test_javascript_clients_run(text: str, served: str) -> None:
    """The same in JavaScript."""
    program = text.replace("http://127.0.0.1:8000", served)
    done = subprocess.run(
        ["node", "--input-type=module"], input=program, cwd=installed(HERE), capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


COMMAND = re.compile(r"(?:^|/|&& |: )(turnwise [a-z][^#\n&]*)", re.M)


def commands() -> list[str]:
    """The `turnwise ...` lines of all shell snippets, and those that other snippets run."""
    found: list[str] = []
    for page in PAGES:
        for _, _, text in FENCE.findall(page.read_text()):
            found += COMMAND.findall(text)
    for place in (ROOT / "deploy").iterdir():
        found += COMMAND.findall(place.read_text())
    return found


def test_commands_exist() -> None:
    """Each command line of the docs parses: its verb, its flags, its arguments."""
    whole = get_command(app)
    lines = commands()
    assert len(lines) >= 10
    for line in lines:
        _, *arguments = shlex.split(line)
        context = typer.Context(whole, info_name="turnwise")
        command = whole
        while hasattr(command, "commands"):
            name, arguments = arguments[0], arguments[1:]
            assert name in command.commands, line
            command = command.commands[name]
        command.make_context(command.name, arguments, parent=context, resilient_parsing=False)


@pytest.mark.parametrize("text", snippets("yaml"))
def test_yaml_snippets_parse(text: str) -> None:
    """Scripts and compose files are valid YAML."""
    assert yaml.safe_load(text)
