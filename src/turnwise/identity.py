"""Identity: the numbers that distinguish this process from every other one.

They are generated when the module is imported and again in every child of a fork: servers that load
the application first and fork afterwards (`gunicorn --preload`, Celery's prefork pool,
multiprocessing) would otherwise run several processes with one identity, and one of them could
mistake another's operation for its own.
"""

from __future__ import annotations

import itertools
import os
import random
import secrets

_random = random.Random()
bits = _random.getrandbits
"""`bits(n)`: n random bits, for ids that must be unique but need not be secret."""

_process = ""
_count = itertools.count(1)


def _draw() -> None:
    global _process, _count
    _random.seed(secrets.randbits(256))
    _process = secrets.token_hex(6)
    _count = itertools.count(1)


_draw()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_draw)


def operation() -> str:
    """A unique id for an operation, across all processes. A repetition with it has no effect."""
    return f"{_process}-{next(_count):x}"
