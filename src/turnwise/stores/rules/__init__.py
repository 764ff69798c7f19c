"""Rules: every act of a store, once. Pure: no SQL, no Lua, no clock, no await.

An act is a generator. It yields what it must know of ONE session (a tuple of asks), and is sent the
answers; with its first answers come the session's header and the store's time. It returns Changes,
or raises the error of the request. A store (stores/ruled.py) drives it, and commits the changes
only if the header is still the one they were computed from; otherwise the act is run anew, with a
header that is decoded anew, because an act changes the header it was given.

The asks, and their answers:

    ("key", key)                      what an idempotency key stands for, or None
    ("parts",)                        all larger parts, by their names, in order
    ("tally", owner)                  how many turns of an owner's sessions are open, and running
    ("state", number)                 the state that was the session's `number`-th, or None
    ("part", name)                    a larger part of the session, or None
    ("open", first, limit)            entries of acceptance of turns that have not ended, in order
    ("turn", n)                       the entries of acceptance and end of one turn
    ("ended", after, before, kinds, limit, latest)
                                      entries of ended turns with after < n < before, in order
    ("messages", after, before, limit, latest)
                                      the same, by the seq of their messages
    ("log", first, limit)             entries whose last event is `first` or later, in order, but
                                      none of the memory
    ("memory", after, before, limit, latest)
                                      memory entries with after < n < before, in order
    ("keys",)                         all keys and what they stand for, in order
    ("horizon",)                      the number of the newest event that retention has removed

Each status changes in `move`, by the table of a turn's states, and nowhere else.
"""

from turnwise.stores.rules.claims import (
    cancel,
    change,
    fence,
    forget,
    hold,
    lapse,
    release,
    renew,
    save,
    stop,
)
from turnwise.stores.rules.files import attach, files, forget_files
from turnwise.stores.rules.finishing import append, finish
from turnwise.stores.rules.memory import forget_memory, memory, remember
from turnwise.stores.rules.moving import fork, put, whole
from turnwise.stores.rules.outbox import deliver, delivered, leave, readdress, turn_down
from turnwise.stores.rules.readings import history, log, state, turn, turns, view
from turnwise.stores.rules.scheduling import schedule, timers, unschedule
from turnwise.stores.rules.sessions import (
    create,
    delete,
    expire,
    judge,
    own,
    reset,
    rotate,
    update,
)
from turnwise.stores.rules.starting import claim
from turnwise.stores.rules.submitting import submit
from turnwise.stores.rules.work import (
    NOTHING,
    STATES,
    Ask,
    Changes,
    Op,
    Rule,
    Shows,
    busy,
    failed_at,
    index,
    kept,
    listed,
)

__all__ = [
    "NOTHING",
    "STATES",
    "Ask",
    "Changes",
    "Op",
    "Rule",
    "Shows",
    "append",
    "attach",
    "busy",
    "cancel",
    "change",
    "claim",
    "create",
    "delete",
    "deliver",
    "delivered",
    "expire",
    "failed_at",
    "fence",
    "files",
    "finish",
    "forget",
    "forget_files",
    "forget_memory",
    "fork",
    "history",
    "hold",
    "index",
    "judge",
    "kept",
    "lapse",
    "leave",
    "listed",
    "log",
    "memory",
    "own",
    "put",
    "readdress",
    "release",
    "remember",
    "renew",
    "reset",
    "rotate",
    "save",
    "schedule",
    "state",
    "stop",
    "submit",
    "timers",
    "turn",
    "turn_down",
    "turns",
    "unschedule",
    "update",
    "view",
    "whole",
]
