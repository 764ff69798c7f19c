"""The house keeps its floors: what may import what, read from the code itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import turnwise

ROOT = Path(turnwise.__file__).parent

FLOORS = [
    {"errors", "identity", "callables", "threads", "timers"},
    {"limits", "urls", "tokens", "telemetry", "conversation"},
    {"settings", "batching", "files"},
    {"media", "memory", "stores"},
    {"turn", "roll_call"},
    {"handlers", "models", "gateway"},
    {"services", "script", "worker"},
    {"bot"},
    {"asking", "channels"},
    {"runtime"},
    {"messengers", "protocols", "testing"},
    {"server"},
    {"__init__"},
    {"cli"},
    {"__main__"},
]
"""The rooms, from the ground up. A room imports only rooms of the floors beneath it."""

NEVER = {
    "worker": {"channels", "gateway", "bot"},
    "channels": {"stores", "worker", "bot", "runtime"},
    "script": {"stores", "models"},
    "stores": {"turn"},
    "bot": {"stores", "worker"},
    "gateway": {"worker", "bot"},
    "turn": {"stores"},
}
"""What a room must not import although it is beneath it."""


def imports() -> dict[str, set[str]]:
    """Every module of the package and the modules of the package it imports, typing-only too."""
    found: dict[str, set[str]] = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        targets = found.setdefault(name, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("turnwise"):
                base = (node.module or "").removeprefix("turnwise").lstrip(".")
                for alias in node.names:
                    inner = f"{base}.{alias.name}".lstrip(".")
                    is_module = (ROOT / (inner.replace(".", "/") + ".py")).exists()
                    targets.add(inner if is_module else base)
    return found


def test_no_circles() -> None:
    """No module reaches itself through what it imports."""
    graph = imports()
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"circle: {' -> '.join((*path, name))}"
        if name in done:
            return
        for target in graph.get(name, ()):
            visit(target, (*path, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def rooms() -> dict[str, set[str]]:
    """Every room (a package or a module at the top) and the rooms it imports."""
    found: dict[str, set[str]] = {}
    for name, targets in imports().items():
        room = name.split(".")[0] or "__init__"
        found.setdefault(room, set()).update(
            target.split(".")[0] or "__init__" for target in targets
        )
    return {room: targets - {room} for room, targets in found.items()}


def test_floors() -> None:
    """Imports go down only, and every room has its floor."""
    floor = {room: n for n, beside in enumerate(FLOORS) for room in beside}
    assert set(rooms()) == set(floor)
    for room, targets in rooms().items():
        up = {target for target in targets if floor[target] >= floor[room]}
        assert not up, f"{room} must not import {up}"


def test_nevers() -> None:
    """The two towers meet at the store and nowhere else."""
    for room, forbidden in NEVER.items():
        assert not rooms()[room] & forbidden, f"{room} imports {rooms()[room] & forbidden}"


def test_files_open_with_a_sentence() -> None:
    """Each file says what lives there before anything else."""
    for path in ROOT.rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def test_public_names() -> None:
    """What the package offers is a closed list, and all of it is there."""
    expected = {"Attachment", "Bot", "Message", "Refusal", "Reply", "Runtime", "Turn"}
    expected |= {
        "TurnError",
        "TurnwiseError",
        "router",
        "page",
        "admin",
        "install",
        "Batcher",
        "batched",
    }
    expected |= {"Event", "ReplyTimeout", "Settings", "StreamEnded", "Answer", "Ask"}
    assert set(turnwise.__all__) == expected
    assert all(hasattr(turnwise, name) for name in turnwise.__all__)


def test_a_worker_brings_no_web_framework() -> None:
    """Nor does a command: FastAPI is a third of the time to start."""
    program = """
import sys
import turnwise.cli.commands
loaded = {name for name in ("fastapi", "starlette", "uvicorn") if name in sys.modules}
assert not loaded, loaded
assert turnwise.router.__module__ == "turnwise.server.app"
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
