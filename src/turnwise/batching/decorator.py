"""`@batched`: a function of lists as a batcher of single items."""

from __future__ import annotations

import functools
import inspect
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, Protocol, TypedDict, TypeVar, Unpack, cast, overload

from turnwise.batching.batcher import Answer, Batcher
from turnwise.batching.stats import Batch
from turnwise.errors import ConfigurationError

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


KEPT = 1000
"""Objects without a `__dict__` whose batchers are kept."""


class _Kept:
    """An object's batcher, as it is kept with the object. A copy of the object, or what is
    unpickled of it, has none yet."""

    def __init__(self, owner: object = None, batcher: Batcher[Any, Any] | None = None) -> None:
        self.owner = owner
        self.batcher = batcher

    def __reduce__(self) -> tuple[type[_Kept], tuple[()]]:
        return _Kept, ()


class BatchedMethod(Generic[Item, Result]):
    """A method decorated with `@batched`: each instance gets its own batcher."""

    def __init__(self, fn: Method[Item, Result], options: Options) -> None:
        self._fn = fn
        self._options = options
        # By the function: a subclass's own method, and that of its base, have one each.
        self._name = f"batched {fn.__module__}.{fn.__qualname__}"
        self._elsewhere: OrderedDict[int, _Kept] = OrderedDict()
        functools.update_wrapper(self, fn)

    def __call__(self, instance: Any, item: Item, **options: Any) -> Any:
        """As a decorator above this one calls it."""
        return self.__get__(instance, type(instance))(item, **options)

    @overload
    def __get__(self, instance: None, owner: type) -> BatchedMethod[Item, Result]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Batcher[Item, Result]: ...

    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is None:
            return self
        place: Any = getattr(instance, "__dict__", None)
        at: Any = self._name
        if not isinstance(place, dict):  # it has slots, or is a class
            place, at = self._elsewhere, id(instance)
        kept = place.get(at)
        if kept is None or kept.owner is not instance:
            bound = functools.partial(self._fn, instance)
            kept = place[at] = _Kept(instance, Batcher(bound, **self._options))
            if len(self._elsewhere) > KEPT:
                self._elsewhere.popitem(last=False)
        return kept.batcher


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
    """A batcher for a function of items, a method for one that takes its object before them."""
    if isinstance(fn, classmethod):
        return classmethod(cast(Any, BatchedMethod(fn.__func__, options)))
    if isinstance(fn, staticmethod):
        return staticmethod(_made(fn.__func__, options))
    if not callable(fn):
        raise ConfigurationError("@batched decorates a function (items) -> results.")
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    every = inspect.signature(fn).parameters.values()
    needed = [one for one in every if one.default is one.empty and one.kind in places]
    if len(needed) > 2:
        names = ", ".join(one.name for one in needed)
        raise ConfigurationError(f"A batched function takes its items and nothing else: ({names}).")
    if len(needed) == 2:
        return BatchedMethod(fn, options)
    return functools.update_wrapper(Batcher(fn, **options), fn)
