"""Virtual time: an event loop whose clock jumps from timer to timer.

When nothing is ready, it jumps to the time of the next timer, so an hour of waiting takes no time
and a test gives the same result every time. Functions for an executor's thread run in place,
because a thread's time does not jump.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that starts at `start` seconds of its own clock."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        selector = selectors.DefaultSelector()
        super().__init__(selector)
        wait = selector.select

        def select(timeout: float | None = None) -> list[Any]:
            found = wait(0 if timeout is not None else None)
            if not found and timeout:
                self._now += timeout
            return found

        selector.select = select  # type: ignore[method-assign]

    def time(self) -> float:
        """Seconds of this loop's own clock."""
        return self._now

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """A future of `func(*args)`, which has run already."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def run(main: Coroutine[Any, Any, T], *, start: float = 0.0) -> T:
    """What `main` returns, run on virtual time."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(start)) as runner:
        return runner.run(main)
