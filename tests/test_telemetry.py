"""Spans, metrics and what logs may hold."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

from turnwise import telemetry

SPANS = """
import asyncio
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)

from turnwise.testing import talk

async def main():
    async def reply(turn):
        with trace.get_tracer("mine").start_as_current_span("inner"):
            pass
        async with turn.step("look_up", {"word": "canary"}):
            pass
        try:
            async with turn.step("fails", kind="work"):
                raise ValueError
        except ValueError:
            return "ok"
    async with talk(reply) as say:
        await say("a canary")

asyncio.run(main())
inner, tool, work, outer = exporter.get_finished_spans()
assert tool.name == "execute_tool look_up", tool.name
assert tool.parent.span_id == outer.context.span_id
assert tool.attributes["gen_ai.operation.name"] == "execute_tool"
assert tool.attributes["gen_ai.tool.name"] == "look_up"
assert work.name == "work fails" and not work.status.is_ok
assert "canary" not in tool.to_json()
assert outer.name == "turnwise.turn", outer.name
assert inner.parent.span_id == outer.context.span_id
assert outer.attributes["turnwise.turn"] == 1
assert "canary" not in str(outer.to_json())
"""


def run(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_an_attempt_is_a_span() -> None:
    """With a tracer provider each attempt is a span, around the spans of the handler and of its
    steps, which are named by the conventions for generative AI and hold no texts."""
    run(SPANS)


def test_names_in_logs_forge_no_lines() -> None:
    """A session is named as commands take it; control characters in its id are escaped."""
    assert telemetry.named("user 42") == "'user 42'"
    assert telemetry.named("a\nERROR b\x1b[31m") == r"'a\nERROR b\x1b[31m'"


def test_a_turn_is_counted() -> None:
    """By outcome, with its times."""
    before = telemetry.exposition().decode()
    telemetry.turn_ended("completed", queued=0.1, took=0.2, first=0.05)
    after = telemetry.exposition().decode()
    name = 'turnwise_turns_total{outcome="completed"}'

    def count(text: str) -> float:
        lines = [line for line in text.splitlines() if line.startswith(name)]
        return float(lines[0].split()[1]) if lines else 0.0

    assert count(after) == count(before) + 1


def test_logs_for_programs() -> None:
    """Each record is one line of JSON, an exception included."""
    form = telemetry.JSONLines()
    try:
        raise ValueError("two\nlines")
    except ValueError:
        why = sys.exc_info()
    record = logging.LogRecord("turnwise", logging.ERROR, "", 0, "it %s", ("failed",), why)
    (line,) = form.format(record).splitlines()
    found = json.loads(line)
    assert (found["level"], found["logger"], found["message"]) == ("error", "turnwise", "it failed")
    assert "two\nlines" in found["exception"]
