"""The OpenAPI description is correct and complete: held against the contract and fuzzed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from conftest import Opener, Process
from turnwise import Bot

CONTRACT = {
    ("post", "/sessions"): {"201"},
    ("get", "/sessions"): {"200", "401"},
    ("post", "/sessions/{session_id}/turns/{n}/again"): {"200", "202", "401", "404", "409"},
    ("patch", "/sessions/{session_id}/turns/{n}"): {"200", "401", "404", "409"},
    ("post", "/sessions/{session_id}/stop"): {"200", "401", "404"},
    ("post", "/sessions/{session_id}/fork"): {"201", "401", "404", "409"},
    ("put", "/sessions/{session_id}/messages/{message_id}/feedback"): {"204", "401", "404"},
    ("post", "/sessions/{session_id}/wake"): {"202", "204", "401", "403", "404"},
    ("delete", "/sessions/{session_id}/wake/{key}"): {"204", "401", "403", "404"},
    ("post", "/sessions/{session_id}/owner"): {"200", "401", "403", "404", "409"},
    ("post", "/sessions/{session_id}/files"): {"201", "401", "404", "413", "415", "501"},
    ("get", "/sessions/{session_id}/files/{file_id}"): {"200", "401", "404"},
    ("get", "/sessions/{session_id}"): {"200", "401", "404"},
    ("patch", "/sessions/{session_id}"): {"200", "401", "404"},
    ("delete", "/sessions/{session_id}"): {"204", "401", "404"},
    ("post", "/sessions/{session_id}/token"): {"200", "401", "404"},
    ("post", "/sessions/{session_id}/reset"): {"200", "401", "404"},
    ("get", "/sessions/{session_id}/messages"): {"200", "401", "404"},
    ("get", "/sessions/{session_id}/turns"): {"200", "401", "404"},
    ("post", "/sessions/{session_id}/turns"): {"200", "202", "401", "404", "413", "429"},
    ("get", "/sessions/{session_id}/turns/{n}"): {"200", "401", "404"},
    ("post", "/sessions/{session_id}/turns/{n}/cancel"): {"200", "401", "404"},
    ("get", "/sessions/{session_id}/events"): {"200", "401", "404"},
    ("get", "/health/live"): {"200"},
    ("get", "/health/ready"): {"200", "503"},
    ("get", "/metrics"): {"200"},
}


CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
FEW: Any = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


async def test_every_call_of_the_contract_is_described(open_sqlite_door: Opener) -> None:
    """Each call with its answers, a description, and a schema or example of what goes in."""
    async with open_sqlite_door(Bot(lambda turn: "ok")) as door:
        found: dict[str, Any] = (await door.client.get("/openapi.json")).json()
    described = {(m, path): op for path, ops in found["paths"].items() for m, op in ops.items()}
    assert set(described) == set(CONTRACT)
    for call, statuses in CONTRACT.items():
        assert statuses <= set(described[call]["responses"]), call
        assert described[call]["description"], call
    submit = described[("post", "/sessions/{session_id}/turns")]
    names = {parameter["name"] for parameter in submit["parameters"]}
    assert names == {"session_id", "Prefer", "Idempotency-Key"}
    body = submit["requestBody"]["content"]["application/json"]["schema"]
    assert {"text", "attachments", "metadata"} <= set(body["properties"])
    assert body["examples"]
    assert "text/event-stream" in submit["responses"]["200"]["content"]


def test_fuzzing_finds_no_server_error(serve: Callable[..., Process]) -> None:
    """Schemathesis calls everything with what fits the description and what does not: no 500."""
    server = serve("bots:echo")
    made = httpx.post(f"{server.url}/sessions", json={}).json()
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    headers = {"Authorization": f"Bearer {made['token']}", "Accept": "application/json"}

    def call(case: Any) -> None:
        if case.path_parameters and case.operation.method != "delete":
            case.path_parameters["session_id"] = made["id"]
        if case.query and "wait" in case.query:
            case.query["wait"] = 0
        if case.headers:
            case.headers.pop("Prefer", None)
        response = case.call(headers=headers)
        case.validate_response(response, checks=CHECKS)

    operations: list[Any] = list(schema.get_all_operations())
    assert len(operations) == len(CONTRACT)
    for operation in operations:
        fuzz: Any = given(operation.ok().as_strategy())
        FEW(fuzz(lambda case: call(case)))()
    assert httpx.get(f"{server.url}/health/ready").status_code == 200
