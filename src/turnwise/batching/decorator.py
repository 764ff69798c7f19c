"""`@batched`: a function of lists as a batcher of single items."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable
from typing import Any, Generic, Protocol, TypedDict, TypeVar, Unpack, overload

from turnwise.batching.batcher import Answer, Batcher
from turnwise.batching.stats import Batch

Item = TypeVar("Item")
Result = TypeVar("Result")
Owner = TypeVar("Owner")

Function = Callable[[list[Item]], Answer[Result]]
Method = Callable[[Any, list[Item]], Answer[Result]]


class Options(TypedDict, total=False):
    """The options that `@batched` passes to its Batcher; see Batcher's docstring."""

    max_size: int
    max_wait: float
    min_size: int
    concurrency: int
    timeout: float | None
    isolate: bool
    max_queue: int | None
    key: Callable[[Any], Hashable] | None
    cost: Callable[[Any], float] | None
    max_cost: float | None
    padded: bool
    dedup: bool
    process: bool
    ageing: float
    name: str | None
    observe: Callable[[Batch], None] | None


class BatchedMethod(Generic[Item, Result]):
    """A method decorated with `@batched`: each instance gets its own batcher."""

    def __init__(self, fn: Method[Item, Result], options: Options) -> None:
        self._fn = fn
        self._options = options
        self._name = fn.__name__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> BatchedMethod[Item, Result]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Batcher[Item, Result]: ...

    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is None:
            return self
        bound = functools.partial(self._fn, instance)
        made: Batcher[Item, Result] = Batcher(bound, **self._options)
        instance.__dict__[self._name] = made  # found first from now on
        return made


class Decorator(Protocol):
    """`@batched(...)`, which keeps the types of what it decorates."""

    @overload
    def __call__(self, fn: Function[Item, Result], /) -> Batcher[Item, Result]: ...

    @overload
    def __call__(self, fn: Method[Item, Result], /) -> BatchedMethod[Item, Result]: ...


@overload
def batched(fn: Function[Item, Result], /) -> Batcher[Item, Result]: ...


@overload
def batched(fn: Method[Item, Result], /) -> BatchedMethod[Item, Result]: ...


@overload
def batched(**options: Unpack[Options]) -> Decorator: ...


def batched(fn: Any = None, /, **options: Any) -> Any:
    """A decorator that turns a function of lists into a Batcher: `await upper("cat")`.

    `options` are those of Batcher. On a method, each instance gets its own batcher.
    """
    if fn is None:
        return lambda decorated: _made(decorated, options)
    return _made(fn, options)


def _made(fn: Any, options: Any) -> Any:
    parameters = list(inspect.signature(fn).parameters)
    if parameters[:1] == ["self"]:
        return BatchedMethod(fn, options)
    return functools.update_wrapper(Batcher(fn, **options), fn)
