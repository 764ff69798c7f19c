"""Determines the kind of a callable."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal

Kind = Literal["async", "async generator", "sync", "generator"]

_TESTS: tuple[tuple[Kind, Callable[[Any], bool]], ...] = (
    ("async", inspect.iscoroutinefunction),
    ("async generator", inspect.isasyncgenfunction),
    ("generator", inspect.isgeneratorfunction),
)


def kind_of(function: Callable[..., Any]) -> Kind:
    """The kind of a function, a bound method, a partial, or an object with `__call__`."""
    looked = (function, type(function).__call__, _unwrapped(function))
    for kind, holds in _TESTS:
        if any(map(holds, looked)):
            return kind
    return "sync"


def _unwrapped(function: Callable[..., Any]) -> Any:
    """The function behind functools.partial and bound methods."""
    while hasattr(function, "func"):
        function = function.func
    return getattr(function, "__func__", function)


def takes_one(function: Callable[..., Any]) -> bool:
    """Whether it can be called with one argument; True if its signature is unknown."""
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        return False
    except ValueError:  # built in
        return True
    return True
