"""Strategies that change a valid JSON body into one that a careless or hostile client sends."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MANY = int(os.environ.get("EXAMPLES", "0"))
FUZZ: Any = settings(
    max_examples=MANY or 40,
    deadline=None,
    derandomize=not MANY,
    database=None,
    suppress_health_check=list(HealthCheck),
)
ODD_TEXTS = [
    "", " ", "\x00", "\ud800", "\u202e", "a/b", "../../etc/passwd", "__proto__", "x" * 300, "|",
    ":", "null", "-1", "1e999", "data:,", "data:text/plain;base64,*", "javascript:0", "http://[",
    "\r\n: x",
]  # fmt: skip
ODD_NUMBERS = [0, -1, 1.5, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**400, 1e308]
ODD: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(ODD_TEXTS),
    st.sampled_from([*ODD_NUMBERS, float("inf"), float("nan")]),
    st.sampled_from([None, True, False, [], {}, [[]], [None], {"": None}, ["x"], {"id": 7}, [{}]]),
    st.text(max_size=12),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
        ),
        max_leaves=6,
    ),
)
"""Values that fit nowhere."""


def _odd(draw: st.DrawFn) -> Any:
    """An odd value of one's own, that may be changed again."""
    return copy.deepcopy(draw(ODD))


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Each container within a value, with each key or index of it."""
    found: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            found += [(value, key), *_places(value[key])]
    return found


@st.composite
def mutated(draw: st.DrawFn, body: Any) -> Any:
    """The body with one to three changes: a value that is odd, gone, in a list, twice, or added."""
    body = copy.deepcopy(body)
    for _ in range(draw(st.integers(1, 3))):
        places = _places(body)
        if not places or draw(st.integers(0, 30)) == 0:
            return _odd(draw)
        container, key = places[draw(st.integers(0, len(places) - 1))]
        match draw(st.sampled_from(["odd", "odd", "gone", "wrapped", "twice", "added"])):
            case "odd":
                container[key] = _odd(draw)
            case "gone":
                del container[key]
            case "wrapped":
                container[key] = [container[key]]
            case "twice" if isinstance(container, list):
                container.append(copy.deepcopy(container[key]))
            case _ if isinstance(container, dict):
                container[draw(st.sampled_from(["id", "type", "text", "x", ""]))] = _odd(draw)
    return body


def fuzz(strategy: Any, call: Callable[[Any], None]) -> None:
    """Call with many values of a strategy; Hypothesis reports the smallest with which it fails."""
    many: Any = given(strategy)
    FUZZ(many(lambda value: call(value)))()
