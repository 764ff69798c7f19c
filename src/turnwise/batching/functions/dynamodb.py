"""Items of a DynamoDB table, for a Batcher.

    get = Batcher(get_items(table), max_size=100)       # a key in, its item out (None: not there)
    put = Batcher(put_items(table), max_size=25)        # an item in, True when it is stored

`table` is boto3's Table; its calls block and run in the Batcher's thread. DynamoDB refuses a batch
that contains a key twice, answers in any order, and leaves items unprocessed when it is busy; this
module handles all three. Needs the extra: pip install 'turnwise[dynamodb]'.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from turnwise.errors import TurnwiseError

GET_LIMIT = 100
"""Maximum number of keys in one BatchGetItem."""
PUT_LIMIT = 25
"""Maximum number of items in one BatchWriteItem."""
TRIES = 8
"""Attempts for unprocessed items, with growing pauses between them: about 6 seconds."""

Key = tuple[Any, ...]
Item = Mapping[str, Any]


class Unprocessed(TurnwiseError):
    """DynamoDB is too busy for this item; try again later."""

    code = "unprocessed"
    retryable = True


def get_items(table: Any, **options: Any) -> Callable[[Sequence[Item]], list[Any]]:
    """A batch function: a key (a dict of the key's attributes) in, its item out, or None.

    `options` are passed on, such as `ConsistentRead=True`.
    """
    names = _key_names(table)

    def call(keys: Sequence[Item]) -> list[Any]:
        wanted = {_key(key, names): dict(key) for key in keys}
        found: dict[Key, Any] = {}
        undone = list(wanted.values())
        for pause in _pauses():
            time.sleep(pause)
            left: list[Any] = []
            for part in _parts(undone, GET_LIMIT):
                request = {table.name: {"Keys": part, **options}}
                answer = table.meta.client.batch_get_item(RequestItems=request)
                for item in answer["Responses"].get(table.name, ()):
                    found[_key(item, names)] = item
                left += answer.get("UnprocessedKeys", {}).get(table.name, {}).get("Keys", ())
            undone = left
            if not undone:
                break
        late = {_key(key, names) for key in undone}
        return [
            Unprocessed() if (key := _key(one, names)) in late else found.get(key) for one in keys
        ]

    return call


def put_items(table: Any) -> Callable[[Sequence[Item]], list[Any]]:
    """A batch function that stores items. Of several items with one key the last one is stored, as
    if they had been stored one after another."""
    names = _key_names(table)

    def call(items: Sequence[Item]) -> list[Any]:
        last = {_key(item, names): dict(item) for item in items}
        undone = list(last.values())
        for pause in _pauses():
            time.sleep(pause)
            left: list[Any] = []
            for part in _parts(undone, PUT_LIMIT):
                request = {table.name: [{"PutRequest": {"Item": item}} for item in part]}
                answer = table.meta.client.batch_write_item(RequestItems=request)
                left += [
                    one["PutRequest"]["Item"]
                    for one in answer.get("UnprocessedItems", {}).get(table.name, ())
                ]
            undone = left
            if not undone:
                break
        late = {_key(item, names) for item in undone}
        return [Unprocessed() if _key(item, names) in late else True for item in items]

    return call


def _key_names(table: Any) -> list[str]:
    return [part["AttributeName"] for part in table.key_schema]


def _key(item: Item, names: list[str]) -> Key:
    return tuple(item[name] for name in names)


def _parts(items: list[Any], size: int) -> list[list[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _pauses() -> list[float]:
    """Seconds before each call: none before the first."""
    return [0.0, *(0.05 * 2**n * random.uniform(0.5, 1.0) for n in range(TRIES - 1))]
