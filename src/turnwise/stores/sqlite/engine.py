"""The engine under the SQLite store: connections and transactions.

How it works, and why:

- All statements run on the event loop's thread, only COMMIT (which waits for the disk) in a
  separate thread. A statement takes microseconds; in a second thread each would wait for the
  interpreter's lock, up to 5 ms per statement while the loop is busy.
- Deleted data is overwritten (secure_delete), and a second later the write-ahead log is emptied.
- Acts that arrive during a COMMIT share the next transaction (group commit), so one wait for the
  disk serves many turns.
- If several processes write, they write one after another (write_queue.py). Then COMMIT runs on the
  loop if the disk is fast: a thread would keep the lock while it waits for the interpreter. BEGIN
  IMMEDIATE never waits inside SQLite: if the lock is taken nevertheless, the loop retries every
  millisecond.
- What other processes write, tail.py reads, every 10 ms.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import apsw

from turnwise.batching import Batch, Batcher
from turnwise.errors import StoreUnavailable, TurnwiseError
from turnwise.stores.notices import Listener, Listeners
from turnwise.stores.sqlite import diagnostics
from turnwise.stores.sqlite.acts import SQLiteActs
from turnwise.stores.sqlite.files import StoreFiles
from turnwise.stores.sqlite.liveness import Liveness
from turnwise.stores.sqlite.locks import LockFile
from turnwise.stores.sqlite.readings import SQLiteReadings
from turnwise.stores.sqlite.schema import STATEMENTS, prepare
from turnwise.stores.sqlite.tail import Tail
from turnwise.stores.sqlite.write_queue import WriteQueue

T = TypeVar("T")
log = logging.getLogger("turnwise.store")
Act = Callable[[SQLiteActs], Any]

TAIL_PERIOD = 0.01
"""Seconds between two checks for other processes' writes."""
COMPANY = 1.0
"""Seconds after another process's write during which we queue to write."""
BRISK = 0.001
"""COMMIT runs on the loop only if the disk usually needs less than this many seconds."""
CHECKPOINT = 4000
"""Pages in the write-ahead log at which a checkpoint copies them into the file."""
HELD_UP = 4
"""Times CHECKPOINT at which the log is called held up by a reader that does not end."""
WORDS = 60.0
"""Seconds between two warnings of that."""
ERASE_DELAY = 1.0
"""Seconds until deleted data is erased from all files, unless a reader still runs."""
WATCH = 1.0
"""Seconds between two checks for outside changes to the files."""
LOCK_PATIENCE = 1.5
"""Seconds to wait for another process's write lock before raising StoreUnavailable."""


class Engine:
    """One process's access to the file at `path`.

    `clock` returns seconds since 1970; `observe` is called for each transaction; `settle(act,
    result)` is called for each act after its transaction, with its result or its error, even if
    no caller waits any longer.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float],
        observe: Callable[[Batch], None] | None,
        settle: Callable[[Act, Any], None],
    ) -> None:
        self.path = path
        self._clock = clock
        self._observe = observe
        self._settle = settle
        self._origin = 0
        """This process's random number among those that share the file, chosen on opening."""
        self._listeners = Listeners()
        self.followed: Counter[str] = Counter()
        """The number of followers per session: they receive what other processes append."""
        self._next_check: asyncio.TimerHandle | None = None
        self._committing = False
        self._locked_at = 0.0
        self._disk = self._took = self._ended = 0.0
        self._wal_pages = 0
        self._erase_at = 0.0
        self._erasing: asyncio.Future[None] | None = None
        self._files = StoreFiles(path)
        self._locks = LockFile(path.with_name(f"{path.name}-pulse"), beside=path)
        self._locked_out = False
        self._next_look = self._next_watch = self._next_word = 0.0

    # Life

    async def start(self) -> None:
        """Open the file and bring its schema up to this version. Raises StoreUnavailable."""
        self._batcher: Batcher[Act, Any] = Batcher(
            self._commit, max_size=256, observe=self._observe
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="turnwise-commit")
        self._origin = secrets.randbits(31)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._locks.open(trusted=self._files.make_private())
            self._writer = await self._connect()
            self._reader = await self._connect()
            self._writer.set_wal_hook(self._grown)
            self._tail = Tail(
                self._writer, self._reader, self._listeners, self.followed,
                origin=self._origin, restored=self._restored,
            )  # fmt: skip
        except BaseException as error:
            self._locks.close()
            self._thread.shutdown(wait=False)
            if isinstance(error, apsw.Error | OSError):
                raise StoreUnavailable(
                    f"Cannot open {self.path}: {diagnostics.words(error)}"
                ) from error
            raise
        self._liveness, self._queue = Liveness(self._locks, self._origin), WriteQueue(self._locks)
        self._liveness.start()
        self._acts = SQLiteActs(self._writer, STATEMENTS, self._clock, self._origin)
        self._reading = SQLiteReadings(self._reader, STATEMENTS, self._clock)
        self._files.remember()
        self._follow_others()

    async def _connect(self) -> apsw.Connection:
        """A connection on an up-to-date schema. Setting up waits for other processes' locks."""
        db = apsw.Connection(os.fspath(self.path))
        await asyncio.get_running_loop().run_in_executor(
            self._thread, prepare, db, self._locks.shared
        )
        db.set_busy_timeout(0)
        return db

    async def stop(self) -> None:
        """Finish the pending acts and close the file."""
        if self._next_check is not None:
            self._next_check.cancel()
        await self._batcher.aclose()
        if self._erase_at:  # what was deleted must not stay in the log when nobody is here
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, self._erase)
        self._thread.shutdown(wait=True)
        self._reader.close()
        self._writer.close()
        self._queue.close()
        self._locks.close()

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` for every notice until the returned function is called."""
        return self._listeners.add(listener)

    # Writing

    async def act(self, act: Callable[[SQLiteActs], T]) -> T:
        """Run `act` in a transaction; once started, it completes even if its caller gives up."""
        result: T = await self._batcher.submit(act)
        return result

    def submit(self, act: Act) -> asyncio.Future[Any]:
        """The same as a future, for callers that need to know about its cancellation."""
        return self._batcher.submit(act)

    async def _commit(self, acts: list[Act]) -> list[Any]:
        """Run the acts of a batch, and settle each."""
        results = await self._run(acts)
        for act, result in zip(acts, results, strict=True):
            try:
                self._settle(act, result)
            except Exception:  # the commit is not affected
                log.exception("cannot settle an act")
        return results

    async def _run(self, acts: list[Act]) -> list[Any]:
        """One transaction for all acts; if one of them breaks it, one for each."""
        try:
            return await self._transact(acts)
        except StoreUnavailable as error:
            return [error] * len(acts)
        except Exception as error:
            if len(acts) == 1:
                return [_unavailable(error) if isinstance(error, apsw.Error) else error]
        return [result for act in acts for result in await self._run([act])]

    async def _transact(self, acts: list[Act]) -> list[Any]:
        notices = self._acts.notices = []
        self._acts.last_entry = 0
        try:
            await self._begin()
            self._acts.begun()
            results = [self._answer(act) for act in acts]
            if self._brisk():
                self._end_here()
            else:
                self._committing = True
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._thread, self._end_in_thread)
        except BaseException:
            self._acts.failed()
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise
        finally:
            self._committing = False
            self._ended = time.monotonic()
            self._queue.leave()
        self._tail.appended(self._acts.last_entry)
        if self._acts.erased:
            self._acts.erased = False
            self._erase_at = self._erase_at or time.monotonic() + ERASE_DELAY
        self._listeners.tell(notices)
        return results

    def _brisk(self) -> bool:
        """Whether to COMMIT on the loop: other processes write too, the disk is fast, and other
        tasks could run since the last one."""
        now = time.monotonic()
        chores = self._wal_pages >= CHECKPOINT or self._erase_is_due()
        rested = now - self._ended > self._took
        return self._in_company(now) and self._disk < BRISK and rested and not chores

    def _in_company(self, now: float) -> bool:
        """Whether other processes write as well."""
        last: float = max(self._tail.heard, self._locked_at)
        return now - last < COMPANY

    def _end_here(self) -> None:
        """COMMIT on the loop, and measure how long the disk takes."""
        began, worked = time.monotonic(), time.thread_time()
        self._end_transaction()
        self._took = time.monotonic() - began
        self._disk += (self._took - (time.thread_time() - worked) - self._disk) / 8

    def _end_in_thread(self) -> None:
        """COMMIT in the thread, and run the slower tasks."""
        self._end_transaction()
        self._disk *= 0.99  # now and then the loop tries the disk again
        if self._erase_is_due():
            self._erase()
        elif self._wal_pages >= CHECKPOINT:
            with suppress(apsw.Error):  # then the next commit does it
                self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)")
        self._queue.leave()

    def _end_transaction(self) -> None:
        """COMMIT, and let the next process write: in the thread, because the loop may learn of the
        commit much later. Not yet, if this process would then never catch up with the others."""
        self._writer.execute("COMMIT")
        if self._wal_pages < 2 * CHECKPOINT and not self._erase_is_due():
            self._queue.leave()

    def _grown(self, db: apsw.Connection, name: str, pages: int) -> int:
        """Called by SQLite after each COMMIT with the number of pages in the write-ahead log."""
        self._wal_pages = pages
        if pages > HELD_UP * CHECKPOINT and time.monotonic() > self._next_word:
            self._next_word = time.monotonic() + WORDS
            log.warning(
                "%s: the write-ahead log has grown to %d MB, because another program has been "
                "reading for long and does not let it be emptied; turnwise check names the file",
                self.path, pages * 4096 // 1_000_000,
            )  # fmt: skip
        return apsw.SQLITE_OK

    def _erase_is_due(self) -> bool:
        return 0 < self._erase_at < time.monotonic()

    def _erase(self) -> None:
        """Empty the write-ahead log: its old pages still contain deleted text."""
        try:
            busy = self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0][0]
        except apsw.Error:  # the commits are not affected
            busy = True
        self._erase_at = time.monotonic() + ERASE_DELAY if busy else 0.0

    def _answer(self, act: Act) -> Any:
        try:
            return act(self._acts)
        except TurnwiseError as error:  # raised before the act wrote anything
            return error

    async def _begin(self) -> None:
        now = time.monotonic()
        self._files.check()
        if self._in_company(now):
            await self._queue.enter()
        patience = now + LOCK_PATIENCE
        while True:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                self._locked_out = False
                if now - self._tail.looked > TAIL_PERIOD:
                    self._tail.look()
                return
            except apsw.BusyError:
                self._locked_at = time.monotonic()
                # Acts queued behind a locked-out batch fail at once.
                if self._locked_out or time.monotonic() > patience:
                    self._locked_out = True
                    raise StoreUnavailable("Another process holds the store's lock.") from None
            await asyncio.sleep(random.uniform(0.001, 0.002))

    # Other processes' writes

    def _follow_others(self) -> None:
        loop = asyncio.get_running_loop()
        self._next_check = loop.call_later(TAIL_PERIOD, self._follow_others)
        if not self._committing:  # else the next transaction checks when it starts
            self._tail.look()
            if self._erase_is_due():
                self._erase_soon()
        if self._tail.looked >= self._next_watch:
            self._next_watch = self._tail.looked + WATCH
            self._watch()

    def _watch(self) -> None:
        """Check for outside changes to the files."""
        self._locks.renew()
        with suppress(StoreUnavailable):  # it is logged once, and every act is refused
            self._files.check()

    def _erase_soon(self) -> None:
        """An empty transaction, at whose end the write-ahead log is emptied."""
        if self._erasing is None or self._erasing.done():
            self._erasing = self._batcher.submit(lambda acts: None)
            self._erasing.add_done_callback(asyncio.Future.exception)

    def _restored(self) -> None:
        log.warning("%s holds less than before: it was restored from a backup.", self.path)
        self._acts.incarnation += 1

    # Reading

    def read(self, read: Callable[[SQLiteReadings], T], *, together: bool = True) -> T:
        """Read, also on the loop, because readers never wait for writers.

        One snapshot, unless `together` is false: for a reading that is correct without one.
        """
        try:
            if not together:
                return read(self._reading)
            self._reader.execute("BEGIN")
            try:
                return read(self._reading)
            finally:
                self._reader.execute("COMMIT")
        except apsw.Error as error:
            raise _unavailable(error) from error

    def dead(self) -> list[int]:
        """The dead processes that hold leases, checked at most twice a second."""
        now = time.monotonic()
        if now < self._next_look:
            return []
        self._next_look = now + 0.45
        holders = self.read(lambda rows: rows.holders(), together=False)
        return [holder for holder in holders if not self._liveness.alive(holder)]

    def now(self) -> float:
        """The store's time, in seconds since 1970."""
        return self._clock()

    def check_space(self) -> None:
        """Raises StoreUnavailable when the disk is full."""
        self._files.check_space()

    async def facts(self) -> dict[str, str]:
        """Versions, sizes, settings and the result of an integrity check, for people."""
        found = diagnostics.facts(self._reader, self.path)
        check = partial(diagnostics.quick_check, self.path)
        loop = asyncio.get_running_loop()
        return {**found, "integrity": await loop.run_in_executor(self._thread, check)}


def _unavailable(error: Exception) -> StoreUnavailable:
    if isinstance(error, StoreUnavailable):
        return error
    unavailable = StoreUnavailable(f"The store does not answer: {diagnostics.words(error)}")
    unavailable.__cause__ = error
    return unavailable
