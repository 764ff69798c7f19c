"""The table of what tests in faults/ did, printed when all are over."""

from __future__ import annotations

from typing import Any

import pytest

COLUMNS = ("injected", "acknowledged", "lost", "doubled", "reordered", "gaps unannounced")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What each fault did, as a table in Markdown."""
    rows: list[tuple[str, str, dict[str, int]]] = []
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            given = dict(report.user_properties)
            if "fault" in given and report.when == "call":
                rows.append((given["fault"], given["store"], given["counts"]))
    if not rows:
        return
    write = terminalreporter.write_line
    write("")
    write(f"| fault | store | {' | '.join(COLUMNS)} |")
    write(f"|---|---|{'---:|' * len(COLUMNS)}")
    for name, store, counts in sorted(rows, key=lambda row: row[:2]):
        cells = " | ".join(f"{counts[column]:,}" for column in COLUMNS)
        write(f"| {name} | {store} | {cells} |")
    totals = [sum(counts[column] for _, _, counts in rows) for column in COLUMNS]
    write(f"| **all** | | {' | '.join(f'**{total:,}**' for total in totals)} |")
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        given = dict(report.user_properties)
        if "before" in given and report.when == "call":
            write(f"in use before and after, {given['store']}: {given['before']}, {given['after']}")


@pytest.fixture
def row(record_property: Any) -> Any:
    """`row(fault, store, verdict, injected)` puts a row into the table."""

    def put(fault: str, store: str, verdict: Any, injected: int) -> None:
        record_property("fault", fault)
        record_property("store", store)
        found = (injected, verdict.acknowledged, verdict.lost, verdict.doubled, verdict.reordered)
        record_property("counts", dict(zip(COLUMNS, (*found, verdict.gaps), strict=True)))

    return put
