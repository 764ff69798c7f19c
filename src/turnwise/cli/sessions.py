"""Commands for stored data: `turnwise sessions ...` and `turnwise check`."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from heapq import nlargest
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import orjson
import typer
from rich.markup import escape
from rich.progress import Progress
from rich.table import Column, Table

from turnwise.channels.terminal import printable
from turnwise.cli.flags import Json, StoreUrl, err, out, settings_with
from turnwise.cli.moving import check_all, import_lines, leave_out, wholes, write_whole
from turnwise.conversation import Session, TurnRecord, iso
from turnwise.errors import ConfigurationError, Damaged, NotFound, TurnwiseError
from turnwise.files import open_files
from turnwise.gateway.listing import listing
from turnwise.stores.base import Store
from turnwise.stores.open import open_store
from turnwise.stores.sqlite.store import SQLiteStore
from turnwise.tokens import SIGNING, active
from turnwise.urls import masked

SLACK = 0.02
"""How much of a session's lifetime may pass before a turn extends it, and a margin."""

app = typer.Typer(no_args_is_help=True, help="List, show, export and delete sessions.")


@asynccontextmanager
async def opened_store(url: str | None) -> AsyncIterator[Store]:
    """The store, which must exist: a mistyped name should not look like an empty store."""
    named = settings_with({"store": url}).store
    store = open_store(named)
    if isinstance(store, SQLiteStore) and not store.path.exists():
        raise ConfigurationError(f"The file {store.path} does not exist (store {masked(named)}).")
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@app.command("list")
def list_sessions(
    store: StoreUrl = None,
    text: Annotated[
        str, typer.Option("--filter", help="Only sessions whose id or name contains this.")
    ] = "",
    owner: Annotated[str | None, typer.Option("--owner", help="Only this owner's.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of sessions to show.")] = 100,
    as_json: Json = False,
) -> None:
    """List the sessions, the most recently used first."""

    async def go() -> tuple[list[tuple[float, Session]], int]:
        async with opened_store(store) as opened:
            if owner is not None:
                page = await listing(opened, owner, limit, None, text)
                count = len(page.sessions) + page.has_more
                return [(one.used_at or 0.0, one) for one in page.sessions], count
            found = [one async for one in _every(opened) if _fits(one, text.lower())]
            return await _latest(opened, found, limit), len(found)

    ranked, count = asyncio.run(go())
    found = [session for _, session in ranked]
    if as_json:
        shown = [session.as_dict() for session in found]
        print(orjson.dumps(shown, option=orjson.OPT_INDENT_2).decode())
        return
    session = Column("session", overflow="fold", min_width=22)
    used_last, expires = Column("last used", no_wrap=True), Column("expires", no_wrap=True)
    columns = (session, "name", "status", "turns", "messages", used_last, expires)
    table = Table(*columns, box=None, padding=(0, 1, 0, 0))
    for used, one in ranked:
        row = [one.id, one.name or "", one.status, str(one.turns), str(one.messages)]
        row += [iso(used)[:16].replace("T", " "), iso(one.expires_at)[:10]]
        table.add_row(*(escape(printable(cell)) for cell in row))
    out.print(table if found else "No sessions.")
    if count > len(found):
        out.print(f"{count - len(found)} more: raise --limit, or use --filter.")


def _fits(session: Session, text: str) -> bool:
    return text in session.id.lower() or text in (session.name or "").lower()


async def _latest(
    store: Store, sessions: Sequence[Session], limit: int
) -> list[tuple[float, Session]]:
    """The `limit` sessions that were used last, each with the time, the latest first.

    A turn extends its session's lifetime, but not each time: the end shows the last use to about
    1 % of the lifetime. Only the sessions that may be among the latest are asked for their turns.
    """
    seen = nlargest(limit, map(_seen, sessions))
    near = [one for one in sessions if _seen(one) + one.ttl * SLACK >= seen[-1]]
    used = [(await _used(store, one), one) for one in near]
    return nlargest(limit, used, key=lambda pair: pair[0])


def _seen(session: Session) -> float:
    """The time of the session's last use, or up to SLACK of its lifetime earlier."""
    return max(session.created_at, session.expires_at - session.ttl)


async def _used(store: Store, session: Session) -> float:
    """When the session's last turn was queued or finished."""
    last, _ = await store.turns(session.id, status=None, before=None, after=None, limit=1)
    return max([_seen(session)] + [turn.finished_at or turn.queued_at for turn in last])


@app.command("show")
def show_session(session: str, store: StoreUrl = None, as_json: Json = False) -> None:
    """Show a session, its last messages, and how its last turns ended."""

    async def go() -> dict[str, Any]:
        async with opened_store(store) as opened:
            return await _whole(opened, session, limit=50)

    found = asyncio.run(go())
    if as_json:
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
        return
    table = Table(show_header=False, box=None)
    for key in ("id", "name", "status", "turns", "messages", "created_at", "expires_at"):
        if found[key] is not None:
            cell = escape(printable(str(found[key])))
            table.add_row(key, cell, style="bold" if key == "id" else "")
    out.print(table)
    ends = {turn["n"]: turn for turn in found["turns_ended"]}
    for message in found["history"]:
        style = "cyan" if message["role"] == "user" else "green"
        out.print(f"{message['created_at'][:19]} {message['role']:>9}: ", style=style, end="")
        out.print(printable(message["text"]), markup=False, highlight=False, soft_wrap=True)
        if ended := message.get("metadata", {}).get("ended"):
            out.print(f"{'':19} {'':>9}  ended: {printable(str(ended))}", style="yellow")
        if message["role"] == "user" and (turn := ends.pop(message["turn"], None)):
            _print_end(turn)
    for turn in ends.values():
        _print_end(turn)
    if found["state"]:
        state = printable(orjson.dumps(found["state"]).decode())
        out.print(f"state: {state}", markup=False, highlight=False, soft_wrap=True)


def _print_end(turn: Mapping[str, Any]) -> None:
    """Print how a turn ended, unless it completed normally."""
    if turn["status"] == "completed":
        return
    error = turn.get("error") or {}
    why = f": {error['code']}, {error['message']}" if error else ""
    words = printable(f"turn {turn['n']} {turn['status']}, attempt {turn['attempt']}{why}")
    line = f"{'':19} {'':>9}  {words}"
    out.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)


@app.command("delete")
def delete_sessions(
    session: Annotated[list[str] | None, typer.Argument(help="The session ids.")] = None,
    store: StoreUrl = None,
    everything: Annotated[bool, typer.Option("--all", help="All sessions.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete sessions with all their data."""
    if not session and not everything:
        raise TurnwiseError("Name the sessions to delete, or use --all.")
    if everything and not yes:
        typer.confirm("Delete ALL sessions?", abort=True)

    async def go() -> tuple[int, int]:
        async with opened_store(store) as opened:
            chosen = [id async for id in every_id(opened)] if everything else list(session or [])
            deleted = left_out = 0
            with Progress(console=err, transient=True, disable=len(chosen) < 20) as progress:
                for one in progress.track(chosen, description="Deleting"):
                    try:
                        deleted += await opened.delete(one)
                    except Damaged:
                        left_out += leave_out(one)
            return deleted, left_out

    deleted, left_out = asyncio.run(go())
    out.print(f"Deleted {deleted} session{'s' if deleted != 1 else ''}.")
    check_all(left_out)
    if session and deleted < len(session):
        raise NotFound(f"{len(session) - deleted} of them did not exist.")


@app.command("export")
def export_sessions(
    session: Annotated[str | None, typer.Argument(help="The session id, or use --all.")] = None,
    store: StoreUrl = None,
    everything: Annotated[bool, typer.Option("--all", help="All sessions.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file.")] = None,
    whole: Annotated[
        bool,
        typer.Option("--whole", help="With all that 'import' needs: keys, cursors, tokens."),
    ] = False,
) -> None:
    """Write sessions as JSON, one per line: all messages, the turns and the state."""
    if session is None and not everything:
        raise TurnwiseError("Name the session to export, or use --all.")

    async def go() -> None:
        if whole:
            await _export_whole(store, session, file)
            return
        async with opened_store(store) as opened:
            chosen = [session] if session else [id async for id in every_id(opened)]
            with Progress(console=err, transient=True, disable=output is None) as progress:
                left_out = 0
                for one in progress.track(chosen, description="Exporting"):
                    try:
                        file.write(orjson.dumps(await _whole(opened, one)) + b"\n")
                    except Damaged:
                        left_out += leave_out(one)
        check_all(left_out)

    with _private(output) if output else os.fdopen(1, "wb", closefd=False) as file:
        asyncio.run(go())


async def _export_whole(url: str | None, session: str | None, file: BinaryIO) -> None:
    """Write sessions as `import` reads them; with all of them the secret that signs tokens."""
    closed = open_store(settings_with({"store": url}).store)
    if (earlier := await closed.earlier()) is not None:
        secret, sessions = earlier
        await write_whole(file, session, [secret], sessions)
        return
    async with opened_store(url) as opened:
        ids = [session] if session else [id async for id in every_id(opened)]
        secrets = active(await opened.secret(), await opened.published(SIGNING))
        await write_whole(file, session, secrets, wholes(opened, ids))


@app.command("import")
def import_sessions(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="What 'export --whole' has written; default: stdin.", exists=True, dir_okay=False
        ),
    ] = None,
    store: StoreUrl = None,
) -> None:
    """Put exported sessions into a store. One that is there already is left alone."""

    async def go(lines: BinaryIO) -> tuple[int, int]:
        opened = open_store(settings_with({"store": store}).store)
        await opened.open()
        try:
            return await import_lines(opened, lines)
        finally:
            await opened.close()

    with Progress(console=err, transient=True) as progress:
        if file is None:
            progress.add_task("Importing", total=None)
            imported, there = asyncio.run(go(sys.stdin.buffer))
        else:
            with progress.open(file, "rb", description="Importing") as lines:
                imported, there = asyncio.run(go(lines))
    out.print(f"Imported {imported} session{'s' if imported != 1 else ''}.")
    if there:
        out.print(f"{there} with the same ids were there already, and were left alone.")


def _private(path: Path) -> BinaryIO:
    """A new file that only its owner can read: it holds every conversation."""
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
    except OSError as error:
        raise TurnwiseError(f"Cannot write {path}: {error.strerror}.") from None


async def _every(store: Store) -> AsyncIterator[Session]:
    after = ""
    while page := await store.sessions(after=after, limit=500):
        for session in page:
            yield session
        after = page[-1].id


async def every_id(store: Store) -> AsyncIterator[str]:
    """All ids: also of sessions that no list shows, and of those that cannot be read."""
    after = ""
    while page := await store.ids(after=after, limit=500):
        for id in page:
            yield id
        after = page[-1]


async def _whole(store: Store, session: str, limit: int | None = None) -> dict[str, Any]:
    """A session with its history (all of it, or the last `limit` messages) and its state."""
    found = await store.session(session)
    if found is None:
        raise NotFound(f"The session {session!r} does not exist.")
    messages: list[Any] = []
    before = None
    while True:
        page = await store.history(session, before=before, limit=limit or 500)
        stretch = [orjson.loads(message) for message in page.messages_json]
        messages = stretch + messages
        if limit is not None or not page.has_more:
            break
        before = stretch[0]["seq"]
    state = orjson.loads(await store.state(session))
    memory = await store.memory(session, limit=limit or 1_000_000)
    return {
        **found.as_dict(),
        "history": messages,
        "turns_ended": await _ends(store, session, limit),
        "state": state,
        "memory": [{"n": m.n, "turn": m.turn, "body": orjson.loads(m.body)} for m in memory],
        "exported_at": iso(time.time()),
    }


async def _ends(store: Store, session: str, limit: int | None) -> list[dict[str, Any]]:
    """The status and error of each turn (or the last `limit`), without message texts."""
    ends: list[dict[str, Any]] = []
    before, more = None, True
    while more and (limit is None or len(ends) < limit):
        page, more = await store.turns(
            session, status=None, before=before, after=None, limit=limit or 500
        )
        if not page:
            break
        before = page[0].n
        ends = [_end(turn) for turn in page] + ends
    return ends


def _end(turn: TurnRecord) -> dict[str, Any]:
    whole: dict[str, Any] = orjson.loads(turn.encode())
    return {key: whole[key] for key in whole if key not in ("session", "message", "reply")}


def check(
    url: Annotated[str | None, typer.Argument(help="A store URL; default: the setting.")] = None,
    as_json: Json = False,
) -> None:
    """Report whether a store can be reached and how durable its acknowledged data is."""

    async def go() -> dict[str, str]:
        async with opened_store(url) as opened:
            await opened.ping()
            beside = opened.path if isinstance(opened, SQLiteStore) else None
            files = open_files(settings_with({}).files, beside)
            kept = "nowhere: set TURNWISE_FILES" if files is None else await files.prove()
            return {**await opened.facts(), "files": kept}

    facts = asyncio.run(go())
    if as_json:
        print(orjson.dumps(facts, option=orjson.OPT_INDENT_2).decode())
        return
    table = Table(show_header=False)
    for key, value in facts.items():
        table.add_row(key, escape(value))
    out.print(table)
    if facts.get("integrity", "ok") != "ok":
        raise TurnwiseError(f"The file is damaged: {facts['integrity']}")
    out.print("[green]The store can keep messages.[/]")
