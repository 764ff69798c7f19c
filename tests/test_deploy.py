"""What is in deploy/: the container's lines run in an empty venv, and units and files parse."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from conftest import free_port
from turnwise.settings import Settings

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
BOT = "from turnwise import Bot\n\nbot = Bot(lambda turn: turn.text)\n"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's lines: the instruction, and what it is given."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    found = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    return [(name, given) for name, _, given in found]


@pytest.mark.slow
def test_the_container_runs(tmp_path: Path) -> None:
    """RUN, ENV and CMD in an empty venv, with this tree in the place of the package."""
    venv, app, data = tmp_path / "venv", tmp_path / "app", tmp_path / "data"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    app.mkdir()
    (app / "module.py").write_text(BOT)
    port = free_port()
    environment = {"PATH": f"{venv / 'bin'}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    steps = dict.fromkeys(name for name, _ in instructions())
    assert next(iter(steps)) == "FROM"
    for name, given in instructions():
        here = given.replace("/data", str(data)).replace("/app", str(app))
        if name == "RUN" and "pip install" in given:
            here = here.replace("'turnwise[", f"'{ROOT}[")
            assert here != given
        if name == "RUN":
            here = here.replace(f" && chown 65534 {data}", "")
            subprocess.run(here, shell=True, check=True, env={**os.environ, **environment})
        elif name == "ENV":
            environment |= dict(part.split("=", 1) for part in shlex.split(here))
        elif name == "CMD":
            environment |= {"TURNWISE_PORT": str(port), "TURNWISE_HOST": "127.0.0.1"}
            server = subprocess.Popen(json.loads(given), cwd=app, env=environment)
            try:
                until = time.monotonic() + 60
                while True:
                    try:
                        ready = httpx.get(f"http://127.0.0.1:{port}/health/ready")
                        break
                    except httpx.TransportError:
                        assert time.monotonic() < until
                        time.sleep(0.1)
                assert ready.status_code == 200
                assert (data / "turnwise.db").exists()
            finally:
                server.terminate()
                assert server.wait(20) in (0, -15)


@pytest.mark.parametrize("name", ["sqlite", "redis", "postgres"])
def test_compose_files(name: str) -> None:
    """Every command of ours exists, every variable is a setting, every volume is declared."""
    found: dict[str, Any] = yaml.safe_load((DEPLOY / f"compose.{name}.yaml").read_text())
    settings = {f"TURNWISE_{field.upper()}" for field in Settings.model_fields}
    for service in found["services"].values():
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in found["volumes"]
        if service.get("build") != ".":
            continue
        program, verb, *_ = shlex.split(service["command"])
        assert (program, verb in ("serve", "work")) == ("turnwise", True)
        assert set(service.get("environment", {})) <= settings
        assert service["stop_grace_period"] == "30s"


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("*.service")), ids=lambda path: path.name)
def test_units(path: Path) -> None:
    """A unit stops its program in time, starts it again, and runs a command that there is."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(path.read_text())
    service = parser["Service"]
    assert service["Restart"] == "always"
    assert int(service["TimeoutStopSec"]) > 20
    assert re.match(r"/opt/bot/.venv/bin/turnwise (serve|work) ", service["ExecStart"])
