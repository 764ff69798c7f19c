"""Programs in a real pseudo-terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
PROMPT = "you \N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK} "


class Terminal:
    """A program in a pseudo-terminal: type and wait for what it prints."""

    def __init__(self, *arguments: str, cwd: Path) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.environ.update(PYTHONPATH=str(HERE), TERM="xterm", COLUMNS="100")
            os.execv(sys.executable, [sys.executable, "-m", "turnwise", *arguments])
        self.text = ""

    def wait_for(self, pattern: str, patience: float = 20.0) -> str:
        """What was printed up to and including `pattern`."""
        seen = self._seen(pattern, patience)
        assert seen is not None, f"no {pattern!r} in {self.text!r}"
        return seen

    def _seen(self, pattern: str, patience: float) -> str | None:
        until = time.monotonic() + patience
        while not (found := re.search(pattern, self.text)):
            if time.monotonic() > until:
                return None
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    data = os.read(self.fd, 65536).decode("utf-8", "replace")
                except OSError:
                    data = ""
                self.text += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data)
        seen, self.text = self.text[: found.end()], self.text[found.end() :]
        return seen

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def press(self, key: str, pattern: str) -> None:
        """Type `key` until `pattern` comes: the prompt stands before the line editor reads keys."""
        for _ in range(20):
            self.type(key)
            if self._seen(pattern, 1.0) is not None:
                return
        raise AssertionError(f"no {pattern!r} in {self.text!r}")

    def end(self) -> int:
        """Type Ctrl-D until the program has ended; its exit status."""
        for _ in range(200):
            with contextlib.suppress(OSError):  # it may have gone
                self.type("\x04")
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self.fd)
                return os.waitstatus_to_exitcode(status)
            self._seen("(?!)", 0.1)
        raise AssertionError("the program does not end")
