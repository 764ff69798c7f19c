"""What type checkers see of Turnwise: a user's program is accepted, and mistakes are found."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "typing"


def mypy(path: Path, folder: Path) -> set[int]:
    """The lines in which mypy, strict, finds errors."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary"]
    found = run([*command, f"--cache-dir={folder}", str(path)], folder)
    return {int(line) for line in re.findall(r"^[^\n]*?\.py:(\d+): error", found, re.M)}


def pyright(path: Path, folder: Path) -> set[int]:
    """The lines in which pyright, strict, finds errors."""
    settings = {
        "include": [str(path)],
        "typeCheckingMode": "strict",
        "venvPath": str(Path(sys.prefix).parent),
        "venv": Path(sys.prefix).name,
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--level", "error"]
    report = json.loads(run([*command, "-p", str(folder)], folder))
    mine = [one for one in report["generalDiagnostics"] if Path(one["file"]).name == path.name]
    return {one["range"]["start"]["line"] + 1 for one in mine}


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=180,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr + done.stdout
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_a_users_program_is_accepted(
    checker: Callable[[Path, Path], set[int]], tmp_path: Path
) -> None:
    """Handlers, batchers, replies, events and records have the types that one expects."""
    assert checker(PROGRAMS / "program.py", tmp_path) == set()


@pytest.mark.slow
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_a_users_mistakes_are_found(
    checker: Callable[[Path, Path], set[int]], tmp_path: Path
) -> None:
    """What would fail when it runs is an error before."""
    path = PROGRAMS / "mistakes.py"
    lines = path.read_text().splitlines()
    wrong = {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}
    assert checker(path, tmp_path) == wrong
