"""`@batched`: a function of lists as a batcher of single items."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, overload

from turnwise.batching.batcher import Batcher


class BatchedMethod:
    """What `@batched` makes of a method: each instance gets a batcher of its own."""

    def __init__(self, fn: Callable[..., Any], options: dict[str, Any]) -> None:
        self._fn = fn
        self._options = options
        self._name = fn.__name__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        made: Batcher[Any, Any] = Batcher(functools.partial(self._fn, instance), **self._options)
        instance.__dict__[self._name] = made  # found first from now on
        return made


@overload
def batched(fn: Callable[..., Any], /) -> Batcher[Any, Any]: ...


@overload
def batched(**options: Any) -> Callable[[Callable[..., Any]], Batcher[Any, Any]]: ...


def batched(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """A decorator that makes a Batcher of a function of lists: `await upper("cat")`.

    `options` are those of Batcher. On a method, each instance gets a batcher of its own.
    """
    if fn is None:
        return lambda decorated: _made(decorated, options)
    return _made(fn, options)


def _made(fn: Callable[..., Any], options: dict[str, Any]) -> Any:
    parameters = list(inspect.signature(fn).parameters)
    if parameters[:1] == ["self"]:
        return BatchedMethod(fn, options)
    return functools.update_wrapper(Batcher(fn, **options), fn)
