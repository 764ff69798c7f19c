"""A wall clock that jumps: time.time() of this process is ahead by what the file CLOCK says."""

import os
import time
from pathlib import Path

_CLOCK = Path(os.environ["CLOCK"])
_true = time.time


def _jumping() -> float:
    return _true() + float(_CLOCK.read_text() or 0)


time.time = _jumping
