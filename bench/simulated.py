"""A simulation of servers, workers and a store, by discrete events: what a plan does to them.

What costs CPU is a job in the line of its process, one at a time; the processes of a machine share
its cores. A message is received by a server, stored, claimed by a worker with a free place, whose
turn it is by owners, answered, stored and delivered. A killed worker's turns are claimed again when
its lease has ended. The costs are the measured slopes; `Habits` are the waits that cost no CPU.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from plan import Answered, Arrival, Plan

Then = Callable[[], None]


@dataclass(frozen=True)
class Costs:
    """Seconds of CPU, and how a turn divides them."""

    web: float
    worker: float
    store: float
    delta_worker: float = 0.0
    delta_store: float = 0.0
    delta_web: float = 0.0
    client: float = 0.0
    """Of the one who asks, where that one is on the same machine."""


@dataclass(frozen=True)
class Habits:
    """Seconds that are not CPU: how long things take that wait."""

    hint: float = 0.001
    """Until a worker hears of a message."""
    look: float = 1.0
    """At most until somebody sees that a lease has ended."""
    boot: float = 2.0
    """Of CPU until a process that was started is ready."""
    retry: float = 0.3
    """Until a client whose server has gone asks again."""
    rest: float = 0.0
    """What a turn takes beside all that, also when it is alone: sockets, loops, timers."""


class Clock:
    """The time of the world, and what is to happen."""

    def __init__(self) -> None:
        self.now = 0.0
        self._line: list[tuple[float, int, Then]] = []
        self._numbers = count()

    def after(self, delay: float, then: Then) -> None:
        heapq.heappush(self._line, (self.now + delay, next(self._numbers), then))

    def run(self) -> None:
        while self._line:
            self.now, _, then = heapq.heappop(self._line)
            then()


class Machine:
    """Cores that the processes of a machine share."""

    def __init__(self, clock: Clock, cores: int) -> None:
        self.clock = clock
        self._free = cores
        self._waiting: deque[Process] = deque()

    def wants(self, process: Process) -> None:
        self._waiting.append(process)
        self._begin()

    def _begin(self) -> None:
        while self._free and self._waiting:
            self._free -= 1
            process = self._waiting.popleft()
            cost, then = process.jobs.popleft()
            process.busy += cost
            self.clock.after(cost, lambda p=process, t=then: self._ended(p, t))  # type: ignore[misc]

    def _ended(self, process: Process, then: Then) -> None:
        self._free += 1
        process.running = False
        then()
        process.go_on()
        self._begin()


class Process:
    """One thread that works off its jobs, on a machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.jobs: deque[tuple[float, Then]] = deque()
        self.running = False
        self.alive = True
        self.busy = 0.0
        """Seconds of CPU that it has used."""

    def do(self, cost: float, then: Then) -> None:
        self.jobs.append((cost, then))
        self.go_on()

    def go_on(self) -> None:
        if self.jobs and not self.running:
            self.running = True
            self.machine.wants(self)


@dataclass
class Turn:
    """A message on its way."""

    arrival: Arrival
    attempt: int = 0


@dataclass(eq=False)
class Worker:
    """A process with places for turns."""

    process: Process
    free: int
    open: bool = True
    running: dict[int, Turn] = field(default_factory=dict)
    """Its attempts by their numbers; one that is not in here any more has been lost."""


class Mailboxes:
    """Which turns may begin: one of a session at a time, and owners in turns."""

    def __init__(self) -> None:
        self._sessions: dict[int, deque[Turn]] = {}
        self._owners: deque[str] = deque()
        self._ready: dict[str, deque[Turn]] = {}

    def __bool__(self) -> bool:
        return bool(self._owners)

    def add(self, turn: Turn) -> None:
        line = self._sessions.setdefault(turn.arrival.session, deque())
        line.append(turn)
        if len(line) == 1:
            self.ready(turn)

    def ready(self, turn: Turn) -> None:
        waiting = self._ready.setdefault(turn.arrival.owner, deque())
        if not waiting:
            self._owners.append(turn.arrival.owner)
        waiting.append(turn)

    def take(self) -> Turn:
        owner = self._owners.popleft()
        waiting = self._ready[owner]
        turn = waiting.popleft()
        if waiting:
            self._owners.append(owner)
        else:
            del self._ready[owner]
        return turn

    def done(self, turn: Turn) -> None:
        line = self._sessions[turn.arrival.session]
        line.popleft()
        if line:
            self.ready(line[0])
        else:
            del self._sessions[turn.arrival.session]


class World:
    """All of it. `together`: everything shares so many cores of one machine; else each process has
    a core of its own. `nodes`: servers of the store, among which the sessions are divided."""

    def __init__(
        self, plan: Plan, costs: Costs, habits: Habits, *, nodes: int = 1, together: int = 0
    ) -> None:
        self.plan, self.costs, self.habits = plan, costs, habits
        self.clock = Clock()
        self.chance = random.Random(plan.seed)
        one = Machine(self.clock, together) if together else None

        def process() -> Process:
            return Process(one or Machine(self.clock, 1))

        self.client = process()
        self.store = [process() for _ in range(nodes)]
        self.servers = [process() for _ in range(plan.servers)]
        self.workers = [Worker(process(), plan.slots) for _ in range(plan.workers)]
        self.boxes = Mailboxes()
        self.answered: list[Answered] = []
        self.again = 0
        """Attempts that were made anew."""
        self._attempts = count()

    def run(self) -> list[Answered]:
        """Go through the plan to its end; all that was answered."""
        for arrival in self.plan.arrivals():
            self.clock.after(arrival.at, lambda a=arrival: self._arrive(Turn(a)))  # type: ignore[misc]
        for trouble in self.plan.troubles:
            then = lambda t=trouble: self._trouble(t.what, t.number)  # type: ignore[misc]  # noqa: E731
            self.clock.after(trouble.at, then)
        self.clock.run()
        return self.answered

    # A turn

    def _node(self, turn: Turn) -> Process:
        return self.store[turn.arrival.session % len(self.store)]

    def _arrive(self, turn: Turn) -> None:
        server = self._server()
        if server is None:
            self.clock.after(self.habits.retry, lambda: self._arrive(turn))
            return
        web, kept = self.costs.web / 2, self.costs.store / 3
        self.client.do(
            self.costs.client,
            lambda: server.do(web, lambda: self._node(turn).do(kept, lambda: self._stored(turn))),
        )

    def _server(self) -> Process | None:
        alive = [one for one in self.servers if one.alive]
        return self.chance.choice(alive) if alive else None

    def _stored(self, turn: Turn) -> None:
        self.boxes.add(turn)
        self.clock.after(self.habits.hint, self._assign)

    def _assign(self) -> None:
        """Workers with a free place ask for a turn, as many as there are turns."""
        while self.boxes:
            able = [one for one in self.workers if one.open and one.free]
            if not able:
                return
            worker = self.chance.choice(able)
            worker.free -= 1
            self._claim(worker, self.boxes.take())

    def _claim(self, worker: Worker, turn: Turn) -> None:
        number = next(self._attempts)
        worker.running[number] = turn
        turn.attempt += 1
        mine, kept = self.costs.worker / 2, self.costs.store / 3

        def claimed() -> None:
            self.clock.after(turn.arrival.seconds, handled)

        def handled() -> None:
            if number in worker.running:
                deltas = self.plan.deltas
                cost = mine + deltas * self.costs.delta_worker
                worker.process.do(cost, lambda: keep(deltas * self.costs.delta_store))

        def keep(more: float) -> None:
            self._node(turn).do(kept + more, lambda: self._finish(worker, number, turn))

        worker.process.do(mine, lambda: self._node(turn).do(kept, claimed))

    def _finish(self, worker: Worker, number: int, turn: Turn) -> None:
        if number not in worker.running:
            return  # it was claimed again in the meantime
        del worker.running[number]
        worker.free += 1
        self.boxes.done(turn)
        self._assign()
        cost = self.costs.web / 2 + self.plan.deltas * self.costs.delta_web
        self.clock.after(self.habits.rest, lambda: self._deliver(turn, cost))

    def _deliver(self, turn: Turn, cost: float) -> None:
        server = self._server()
        if server is None:
            self.clock.after(self.habits.retry, lambda: self._deliver(turn, cost))
            return
        server.do(cost, lambda: self._note(turn))

    def _note(self, turn: Turn) -> None:
        came = turn.arrival
        took = self.clock.now - came.at
        self.answered.append(Answered(came.at, came.owner, came.seconds, took))

    # Trouble

    def _trouble(self, what: str, number: int) -> None:
        if what == "kill":
            self._kill(self.workers[number])
        elif what == "start":
            self._start(self.workers[number])
        elif what == "deploy":
            self._replace([*self.workers], [*self.servers])

    def _kill(self, worker: Worker) -> None:
        """Its turns are claimed again when the lease, which was renewed within its last third, has
        ended and somebody has seen that."""
        worker.open = False
        for turn in worker.running.values():
            left = self.plan.lease * self.chance.uniform(2 / 3, 1)
            self._put_back(turn, left + self.chance.uniform(0, self.habits.look))
        worker.running.clear()
        worker.free = self.plan.slots

    def _put_back(self, turn: Turn, delay: float) -> None:
        def back() -> None:
            self.again += 1
            self.boxes.ready(turn)
            self._assign()

        self.clock.after(delay, back)

    def _start(self, worker: Worker) -> None:
        def opened() -> None:
            worker.open = True
            self._assign()

        worker.process.do(self.habits.boot, opened)

    def _replace(self, workers: list[Worker], servers: list[Process]) -> None:
        """One after the other; a worker may finish what runs, and gives back what takes longer."""
        if workers:
            worker = workers.pop(0)
            worker.open = False
            self._await_rest(worker, self.clock.now + self.plan.grace, workers, servers)
        elif servers:
            server = servers.pop(0)
            server.alive = False

            def up() -> None:
                server.alive = True
                self._replace([], servers)

            server.do(self.habits.boot, up)

    def _await_rest(
        self, worker: Worker, until: float, workers: list[Worker], servers: list[Process]
    ) -> None:
        if worker.running and self.clock.now < until:
            again = lambda: self._await_rest(worker, until, workers, servers)  # noqa: E731
            self.clock.after(0.05, again)
            return
        for turn in worker.running.values():
            self._put_back(turn, 0.0)
        worker.running.clear()
        worker.free = self.plan.slots

        def up() -> None:
            worker.open = True
            self._assign()
            self._replace(workers, servers)

        worker.process.do(self.habits.boot, up)
