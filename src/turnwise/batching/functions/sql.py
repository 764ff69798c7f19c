"""Rows into a database with SQLAlchemy, for a Batcher.

    add = Batcher(insert(engine, orders), max_size=500, isolate=True)
    row = await add({"customer": "Ada", "item": "tea"})     # the row as the database has it

A batch is one INSERT in one transaction: all rows or none. With `isolate` only the row that
violates a constraint fails. Needs the extra: pip install 'turnwise[sql]'.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from turnwise.errors import MissingExtra

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Table
    from sqlalchemy.ext.asyncio import AsyncEngine


def insert(
    engine: Engine | AsyncEngine, table: Table
) -> Callable[[Sequence[Mapping[str, Any]]], Any]:
    """A batch function that inserts one row for each item, a dict, and returns the stored row.

    Rows are returned in the order of the items: databases do not guarantee an order of RETURNING,
    so SQLAlchemy matches them. Items with different columns are separate statements of the same
    transaction. Raises MissingExtra.
    """
    try:
        from sqlalchemy import insert as statement
        from sqlalchemy.ext.asyncio import AsyncEngine
    except ImportError:
        raise MissingExtra("SQLAlchemy", "sql") from None
    adding = statement(table).returning(*table.columns, sort_by_parameter_order=True)

    def groups(items: Sequence[Mapping[str, Any]]) -> dict[frozenset[str], list[int]]:
        found: dict[frozenset[str], list[int]] = {}
        for place, item in enumerate(items):
            found.setdefault(frozenset(item), []).append(place)
        return found

    def add(connection: Connection, items: Sequence[Mapping[str, Any]]) -> list[Any]:
        rows: list[Any] = [None] * len(items)
        for places in groups(items).values():
            found = connection.execute(adding, [dict(items[place]) for place in places])
            for place, row in zip(places, found.mappings(), strict=True):
                rows[place] = dict(row)
        return rows

    def call(items: Sequence[Mapping[str, Any]]) -> list[Any]:
        with engine.begin() as connection:  # type: ignore[union-attr]
            return add(connection, items)

    async def call_async(items: Sequence[Mapping[str, Any]]) -> list[Any]:
        async with engine.begin() as connection:  # type: ignore[union-attr]
            rows: list[Any] = await connection.run_sync(add, items)
            return rows

    return call_async if isinstance(engine, AsyncEngine) else call
