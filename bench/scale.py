"""How far it goes: `python bench/scale.py`, after bench/slopes.py, prints the tables of
docs/scale.md and draws docs/images/scale.svg.

First what loads need, computed from the slopes. Then a plan with trouble, played by two servers,
four workers and a Redis on this machine, beside the simulation of it. Then the simulation alone, of
loads that this machine cannot carry.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from chart import Chart, Line, charts
from plan import Answered, Plan, Trouble, share
from play import RETRY, Played, play
from simulated import Costs, Habits, World

HERE = Path(__file__).parent
SLOPES: dict[str, dict[str, float]] = json.loads((HERE / "slopes.json").read_text())
PICTURE = HERE.parent / "docs" / "images" / "scale.svg"
BUSY = 0.5
"""How busy a core may be on average: what is above comes and goes with the load."""
HEARTBEAT = 15.0
"""Seconds between two comments to a reader who waits."""
GB = 1e9
CORES = os.cpu_count() or 1


# What a load needs


@dataclass(frozen=True)
class Load:
    """Turns a second at the peak, events of a reply, seconds of a handler, turns a day, readers."""

    name: str
    turns: float
    deltas: int
    handler: float
    a_day: float = 0.0
    readers: int = 0


LOADS = (
    Load("1 million sessions a day, 10 turns each", 1e7 / 86400 * 4, 60, 4.0, a_day=1e7),
    Load("10,000 turns/s, answered at once", 10_000, 0, 0.0),
    Load("10,000 turns/s, streamed for 4 s", 10_000, 60, 4.0),
    Load("1 million readers who wait", 0, 0, 0.0, readers=1_000_000),
)


def needs(load: Load, store: str) -> list[str]:
    """Cores of servers, of workers and of the store; turns at once; memory; what a day adds."""
    one = SLOPES[store]
    web = load.turns * (one["turn_web"] + load.deltas * one["event_reader"])
    web += load.readers / HEARTBEAT * one["event_reader"]
    work = load.turns * (one["turn_worker"] + load.deltas * one["delta_server"])
    kept = load.turns * (one["turn_store"] + load.deltas * one["delta_store"])
    cores = [f"{math.ceil(µs / 1e6 / BUSY):,}" if µs else "" for µs in (web, work, kept)]
    at_once = f"{load.turns * load.handler:,.0f}" if load.handler else ""
    memory = f"{load.readers * one['reader_bytes'] / GB:,.0f} GB" if load.readers else ""
    a_day = f"{load.a_day * one['turn_bytes'] / GB:,.0f} GB" if load.a_day else ""
    return [load.name, store, *cores, at_once, memory, a_day]


# The same plan, played and simulated

LADDER = (50.0, 100.0, 200.0, 260.0, 300.0)
TROUBLED = Plan(
    rate=120.0,
    seconds=70.0,
    troubles=(
        Trouble(10, "kill", 0),
        Trouble(16, "start", 0),
        Trouble(24, "deploy"),
        Trouble(54, "flood", 400),
    ),
)
WINDOWS = (
    ("quiet", 0, 9), ("a worker killed", 9, 16), ("it is started again", 16, 24),
    ("all replaced", 24, 54), ("an owner sends 400 at once", 54, 62), ("quiet again", 62, 70),
)  # fmt: skip


def costs_here(client: float) -> Costs:
    """On Redis, without streams; `client`: seconds of CPU of the one who asks, a turn."""
    one = SLOPES["redis"]
    return Costs(one["turn_web"] / 1e6, one["turn_worker"] / 1e6, one["turn_store"] / 1e6,
                 client=client)  # fmt: skip


def simulate_here(plan: Plan, played: Played) -> World:
    """The same plan, on as many cores as this machine has."""
    costs = costs_here(played.client)
    rest = played.alone - costs.web - costs.worker - costs.store - costs.client
    habits = Habits(boot=played.boot or 2.0, retry=RETRY, rest=max(0.0, rest))
    world = World(plan, costs, habits, together=CORES)
    world.run()
    return world


def waits(answered: list[Answered], start: float, end: float, flood: bool) -> list[float]:
    """Milliseconds beyond the handler's, of what came in a window."""
    return [
        1000 * (one.seconds - one.handler)
        for one in answered
        if start <= one.at < end and (one.owner == "flood") == flood
    ]


def spread(times: list[float]) -> str:
    return " / ".join(f"{share(times, part):,.0f}" for part in (0.5, 0.95, 0.99))


def compared(played: list[Answered], simulated: list[Answered]) -> Iterator[list[str]]:
    """Window by window: p50 / p95 / p99."""
    for name, start, end in WINDOWS:
        for flood in (False, True):
            found = [waits(some, start, end, flood) for some in (played, simulated)]
            if found[0]:
                who = f"{name}: that owner" if flood else name
                yield [who, f"{len(found[0]):,}", *map(spread, found)]


async def ladder() -> tuple[list[list[str]], list[Chart]]:
    """Without trouble, at more and more load."""
    rows, real, predicted = [], [], []
    for rate in LADDER:
        plan = Plan(rate=rate, seconds=15.0)
        played = await play(plan)
        world = simulate_here(plan, played)
        found = [waits(some, 3, 15, flood=False) for some in (played.answered, world.answered)]
        rows.append([f"{rate:,.0f}", *map(spread, found)])
        real.append((rate, share(found[0], 0.95)))
        predicted.append((rate, share(found[1], 0.95)))
    lines = [Line("measured", real), Line("simulated", predicted)]
    return rows, [Chart("ms beyond the handler (p95)", "turns a second", lines, even=True)]


async def troubled() -> tuple[list[list[str]], list[Chart]]:
    played = await play(TROUBLED)
    world = simulate_here(TROUBLED, played)
    lines = [
        Line(name, [(at, worst(some, at)) for at in range(0, 70, 2)])
        for name, some in (("measured", played.answered), ("simulated", world.answered))
    ]
    rows = list(compared(played.answered, world.answered))
    rows.append(["attempts made anew", "", f"{played.again}", f"{world.again}"])
    return rows, [Chart("ms beyond the handler (p95)", "second", lines, even=True)]


def worst(answered: list[Answered], at: float) -> float:
    """The p95 of two seconds; all but the flood's own."""
    return share(waits(answered, at, at + 2, flood=False), 0.95)


# Loads that this machine cannot carry


def large(store: str, rate: float, nodes: int, **more: object) -> tuple[Plan, Costs, int]:
    """A plan of so many turns a second, with the processes that `needs` gives it."""
    one = SLOPES[store]
    deltas = 60
    web = one["turn_web"] + deltas * one["event_reader"]
    work = one["turn_worker"] + deltas * one["delta_server"]
    plan = Plan(
        rate=rate, seconds=40.0, handler=4.0, sessions=1_000_000, owners=10_000, deltas=deltas,
        servers=math.ceil(rate * web / 1e6 / BUSY), workers=math.ceil(rate * work / 1e6 / BUSY),
        lease=30.0, grace=10.0,
    )  # fmt: skip
    slots = math.ceil(1.5 * rate * 4.0 / plan.workers)
    costs = Costs(
        one["turn_web"] / 1e6, one["turn_worker"] / 1e6, one["turn_store"] / 1e6,
        one["delta_server"] / 1e6, one["delta_store"] / 1e6, one["event_reader"] / 1e6,
    )  # fmt: skip
    return replace(plan, slots=slots, **more), costs, nodes


def predicted() -> Iterator[list[str]]:
    """Waits in large worlds: quiet, with a worker that dies, with a flood."""
    stories: dict[str, tuple[Trouble, ...]] = {
        "quiet": (),
        "a worker dies": (Trouble(10, "kill", 0),),
        "an owner sends 20,000 at once": (Trouble(10, "flood", 20_000),),
    }
    for story, troubles in stories.items():
        plan, costs, nodes = large("redis-cluster", 2_000, 16, troubles=troubles)
        world = World(plan, costs, Habits(), nodes=nodes)
        answered = world.run()
        others = waits(answered, 5, 40, flood=False)
        busiest = max(one.busy for one in world.store) / world.clock.now
        processes = f"{plan.servers} + {plan.workers} + {nodes}"
        flood = spread(waits(answered, 0, 40, flood=True)) if "owner" in story else ""
        yield [story, processes, spread(others), flood, f"{busiest:.0%}", f"{world.again}"]


def table(titles: list[str], rows: list[list[str]]) -> None:
    for row in (titles, ["---"] * len(titles), *rows):
        print("| " + " | ".join(row) + " |")
    print(flush=True)


def slope_rows() -> list[list[str]]:
    """The slopes, for people: without those that are only computed with."""
    shown: list[tuple[str, Callable[[dict[str, float]], str]]] = [
        ("a turn: the server, µs", lambda one: f"{one['turn_server']:,.0f}"),
        ("… apart: server + worker, µs",
         lambda one: f"{one['turn_web']:,.0f} + {one['turn_worker']:,.0f}"),
        ("… the store's own, µs", lambda one: f"{one['turn_store']:,.0f}"),
        ("a delta: the process, µs", lambda one: f"{one['delta_server']:,.0f}"),
        ("… the store's own, µs", lambda one: f"{one['delta_store']:,.0f}"),
        ("an event to one more reader, µs", lambda one: f"{one['event_reader']:,.1f}"),
        ("a reader who waits, kB", lambda one: f"{one['reader_bytes'] / 1e3:,.1f}"),
        ("a session nobody uses: in a process, bytes",
         lambda one: f"{one['session_memory']:,.0f}"),
        ("… in the store, bytes", lambda one: f"{one['session_bytes']:,.0f}"),
        ("a stored turn, 100 characters each way, bytes",
         lambda one: f"{one['turn_bytes']:,.0f}"),
    ]  # fmt: skip
    return [[name, *(show(one) for one in SLOPES.values())] for name, show in shown]


async def main() -> None:
    table(["", *SLOPES], slope_rows())
    rows = [needs(load, store) for load in LOADS for store in SLOPES if store != "sqlite"]
    titles = ["load", "store", "servers", "workers", "the store's", "turns at once",
              "memory of readers", "a day adds"]  # fmt: skip
    table(titles, rows)
    steps, first = await ladder()
    table(["turns/s", "measured: p50 / p95 / p99 ms", "simulated"], steps)
    windows, second = await troubled()
    table(["", "turns", "measured: p50 / p95 / p99 ms", "simulated"], windows)
    titles = ["", "servers + workers + nodes", "p50 / p95 / p99 ms", "that owner's",
              "the busiest node", "anew"]  # fmt: skip
    table(titles, list(predicted()))
    PICTURE.write_text(charts([*first, *second]))


if __name__ == "__main__":
    asyncio.run(main())
