"""Metrics, spans and logs. None of them ever holds a message's text or a token."""

from __future__ import annotations

import logging
import os
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from functools import cache
from typing import Any, Protocol

import orjson
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    multiprocess,
    start_http_server,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from turnwise.errors import ConfigurationError

CONTENT_TYPE = CONTENT_TYPE_LATEST
REGISTRY = CollectorRegistry()
"""Turnwise's metrics; a host application may expose them together with its own."""

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
"""The buckets of times, in seconds."""

TURNS = Counter(
    "turnwise_turns", "Attempts at turns that ended, by outcome.", ["outcome"], registry=REGISTRY
)
QUEUE_WAIT = Histogram(
    "turnwise_queue_wait_seconds",
    "Seconds from a message's arrival to its attempt.",
    buckets=BOUNDS,
    registry=REGISTRY,
)
TURN_TIME = Histogram(
    "turnwise_turn_seconds", "Seconds an attempt took.", buckets=BOUNDS, registry=REGISTRY
)
FIRST_DELTA = Histogram(
    "turnwise_first_delta_seconds",
    "Seconds from the start of an attempt to its first delta in the log.",
    buckets=BOUNDS,
    registry=REGISTRY,
)
FEEDBACK = Counter(
    "turnwise_feedback", "People's feedback on messages.", ["value"], registry=REGISTRY
)
PIECES = Counter(
    "turnwise_messenger_pieces", "Pieces of replies to messengers, by what has become of them.",
    ["platform", "state"], registry=REGISTRY,
)  # fmt: skip
SKIPPED = Counter(
    "turnwise_messenger_updates_skipped", "Updates that could not be read.", ["platform"],
    registry=REGISTRY,
)  # fmt: skip
STREAMS = Gauge(
    "turnwise_open_streams",
    "Readers following a session.",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
WAITING = Gauge(
    "turnwise_waiting_turns",
    "Turns in the store that are ready and wait for a worker, at most one per session.",
    multiprocess_mode="livemax",
    registry=REGISTRY,
)
HELD_UP = Counter(
    "turnwise_loop_held_seconds",
    "Seconds for which the event loop was blocked, counted above one second.",
    registry=REGISTRY,
)
RUNNING = Gauge(
    "turnwise_running_turns",
    "Turns being answered.",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
BATCH = Histogram(
    "turnwise_store_batch_size",
    "Acts that shared a transaction of the store.",
    buckets=_SIZES,
    registry=REGISTRY,
)
BATCH_SIZE = Histogram(
    "turnwise_batch_size", "Items in a batch.", ["name"], buckets=_SIZES, registry=REGISTRY
)
BATCH_WAIT = Histogram(
    "turnwise_batch_wait_seconds",
    "Seconds that a batch's first item waited.",
    ["name"],
    buckets=BOUNDS,
    registry=REGISTRY,
)
BATCH_TIME = Histogram(
    "turnwise_batch_seconds", "Seconds a batch took.", ["name"], buckets=BOUNDS, registry=REGISTRY
)
BATCH_REASON = Counter(
    "turnwise_batches", "Batches by start reason.", ["name", "reason"], registry=REGISTRY
)


class Sized(Protocol):
    """The part of a batch that is used here."""

    @property
    def size(self) -> int: ...


def turn_ended(outcome: str, *, queued: float, took: float, first: float | None) -> None:
    """Count an attempt; times in seconds, `first` None if no delta preceded the commit."""
    _outcome(outcome).inc()
    QUEUE_WAIT.observe(queued)
    TURN_TIME.observe(took)
    if first is not None:
        FIRST_DELTA.observe(first)


@cache
def _outcome(outcome: str) -> Counter:
    return TURNS.labels(outcome)


def batch(found: Sized) -> None:
    """Count a transaction of the store."""
    BATCH.observe(found.size)


def named_batch(name: str, size: int, waited: float, took: float, reason: str) -> None:
    """Count a batch of a named batcher; times in seconds."""
    BATCH_SIZE.labels(name).observe(size)
    BATCH_WAIT.labels(name).observe(waited)
    BATCH_TIME.labels(name).observe(took)
    BATCH_REASON.labels(name, reason).inc()


def figures() -> dict[str, Any]:
    """What this process has counted since it began: attempts by outcome, and for each of some times
    how many of them were in which of the BOUNDS, or beyond."""
    turns = {
        sample.labels["outcome"]: int(sample.value)
        for metric in TURNS.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }
    times = {"wait": QUEUE_WAIT, "first": FIRST_DELTA, "took": TURN_TIME}
    return {"turns": turns, **{name: _buckets(one) for name, one in times.items()}}


def _buckets(histogram: Histogram) -> list[int]:
    """How many observations were in each bucket, the last one without a bound."""
    upto = [
        int(sample.value)
        for metric in histogram.collect()
        for sample in metric.samples
        if sample.name.endswith("_bucket")
    ]
    return [count - before for before, count in zip([0, *upto], upto, strict=False)]


def exposition() -> bytes:
    """All metrics in Prometheus's text format, of all processes of this server."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    everyone = CollectorRegistry()
    multiprocess.MultiProcessCollector(everyone)  # type: ignore[no-untyped-call]
    return generate_latest(everyone)


def serve_metrics(port: int) -> None:
    """Serve the metrics of this process on a separate port, at every path. Raises
    ConfigurationError if the port is in use."""
    try:
        start_http_server(port, registry=REGISTRY)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot serve metrics on port {port}: {error.strerror}."
        ) from None


def named(session: str) -> str:
    """A session's id for logs and spans, in the form that commands accept; without its token it
    gives no access. Quoted and escaped, so that it cannot forge a log line."""
    return repr(session)


trace: Any
try:
    from opentelemetry import trace
except ImportError:
    trace = None
NO_SPAN: AbstractContextManager[Any] = nullcontext()


def traced() -> bool:
    """Whether the `telemetry` extra is installed and the program has set up a tracer provider."""
    return trace is not None and not isinstance(
        trace.get_tracer_provider(), trace.ProxyTracerProvider
    )


def span(name: str, *, session: str, turn: int) -> AbstractContextManager[Any]:
    """An OpenTelemetry span around the block."""
    attributes = {"turnwise.session": session, "turnwise.turn": turn}
    made: AbstractContextManager[Any] = trace.get_tracer("turnwise").start_as_current_span(
        f"turnwise.{name}", attributes=attributes
    )
    return made


def step_span(kind: str, name: str, id: str) -> AbstractContextManager[Any]:
    """A span around a step, by OpenTelemetry's conventions for generative AI."""
    if not traced():
        return NO_SPAN
    attributes = {"turnwise.step": id, "turnwise.step.kind": kind}
    if kind == "tool":
        attributes |= {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.call.id": id,
        }
    made: AbstractContextManager[Any] = trace.get_tracer("turnwise").start_as_current_span(
        f"execute_tool {name}" if kind == "tool" else f"{kind} {name}", attributes=attributes
    )
    return made


class JSONLines(logging.Formatter):
    """Each record is a line of JSON, for programs that gather logs."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


def setup_logging(level: str, form: str = "text") -> None:
    """Lines on standard error for the command line's servers, for people or as JSON."""
    logging.basicConfig(
        level=level.upper(),
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
    )
    if form == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JSONLines())
    for noisy in ("httpx", "httpx2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
