"""States: what a thread holds behind each of its turns; a turn is a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from turnwise.conversation import Session, TurnRecord, iso
from turnwise.gateway.gateway import Gateway
from turnwise.protocols.door import name_of
from turnwise.protocols.langgraph.fold import NODE
from turnwise.protocols.langgraph.ids import checkpoint_id
from turnwise.protocols.langgraph.messages import interrupt, shown
from turnwise.protocols.past import Exchange

RUN_STATUSES = {
    "queued": "pending", "running": "running", "completed": "success", "failed": "error",
    "cancelled": "interrupted", "merged": "success",
}  # fmt: skip


async def waiting(gateway: Gateway, session_id: str) -> set[str]:
    """The ids of the session's asks that wait for an answer."""
    return set((await gateway.history(session_id, limit=1)).asks)


def interrupts_of(exchanges: Sequence[Exchange], asks: set[str]) -> list[dict[str, Any]]:
    """The open asks, but for calls of the client's tools, which are a message's."""
    return [
        interrupt(message.ask, message.text)
        for exchange in exchanges
        for message in exchange.replies
        if message.ask is not None and message.ask.id in asks and message.ask.kind != "tool"
    ]


def state(thread: str, exchanges: Sequence[Exchange], asks: set[str]) -> dict[str, Any]:
    """The state behind the last of these turns."""
    last = exchanges[-1] if exchanges else None
    session_id = last.record.session if last is not None else ""
    found = interrupts_of(exchanges, asks)
    values: dict[str, Any] = {"messages": shown(exchanges)}
    if found:
        values["__interrupt__"] = found
    is_open = last is not None and last.record.open
    task = {"id": "1", "name": NODE, "interrupts": found, "checkpoint": None, "state": None}
    before = exchanges[-2].n if len(exchanges) > 1 else 0
    at = None if last is None else last.record.finished_at or last.record.queued_at
    return {
        "values": values,
        "next": [NODE] if is_open or found else [],
        "tasks": [{**task, "error": None}] if found else [],
        "interrupts": found,
        "metadata": {"source": "loop", "step": last.n if last is not None else 0},
        "created_at": iso(at) if at is not None else None,
        "checkpoint": _checkpoint(thread, session_id, last.n if last is not None else 0),
        "parent_checkpoint": None if last is None else _checkpoint(thread, session_id, before),
    }


def states(
    thread: str, exchanges: Sequence[Exchange], asks: set[str], before: int | None, limit: int
) -> list[dict[str, Any]]:
    """The states behind each turn, the newest first, down to the one before all: so many, of the
    turns before one. Each holds all messages, so no more are made than are shown."""
    places = [i for i, one in enumerate(exchanges) if before is None or one.n < before]
    found = [
        state(thread, exchanges[: i + 1], asks if i + 1 == len(exchanges) else set())
        for i in places[::-1][:limit]
    ]
    if exchanges and len(found) < limit:
        first = state(thread, [], set())
        first["checkpoint"] = _checkpoint(thread, exchanges[0].record.session, 0)
        found.append(first)
    return found


def _checkpoint(thread: str, session_id: str, n: int) -> dict[str, Any]:
    return {
        "thread_id": thread, "checkpoint_ns": "", "checkpoint_id": checkpoint_id(session_id, n),
        "checkpoint_map": {},
    }  # fmt: skip


def thread(session: Session, values: dict[str, Any] | None, found: Sequence[Any]) -> dict[str, Any]:
    """A session as a thread."""
    status = "busy" if session.status != "idle" else "interrupted" if found else "idle"
    return {
        "thread_id": name_of(session),
        "created_at": iso(session.created_at),
        "updated_at": iso(session.used_at or session.created_at),
        "metadata": session.metadata,
        "status": status,
        "config": {},
        "values": values,
        "interrupts": {one["id"]: [one] for one in found},
    }


def run(thread_id: str, record: TurnRecord, id: str) -> dict[str, Any]:
    """A turn as a run."""
    note = record.note
    status = record.answered if record.status == "merged" else record.status
    return {
        "run_id": id,
        "thread_id": thread_id,
        "assistant_id": note.get("assistant", "turnwise"),
        "created_at": iso(record.queued_at),
        "updated_at": iso(record.finished_at or record.started_at or record.queued_at),
        "status": RUN_STATUSES[status],
        "metadata": note.get("metadata", {}),
        "kwargs": {},
        "multitask_strategy": note.get("strategy", "enqueue"),
    }
