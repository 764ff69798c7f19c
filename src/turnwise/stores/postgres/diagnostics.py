"""Diagnostics: the version, settings and size of a PostgreSQL, and its durability in words."""

from __future__ import annotations

from dataclasses import dataclass, field

from turnwise.stores.postgres.driver import PostgresDriver

OLDEST = 140000
SETTINGS = """
SELECT current_setting('server_version'), current_setting('server_version_num')::int,
    current_setting('synchronous_commit'), current_setting('fsync'),
    current_setting('full_page_writes'), current_setting('synchronous_standby_names'),
    current_database(), pg_size_pretty(pg_database_size(current_database())),
    (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'turnwise'),
    current_setting('max_connections'),
    (SELECT max(extract(epoch FROM clock_timestamp() - xact_start)) FROM pg_stat_activity
        WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid())
"""
FEW = 10_000
"""Sessions that are counted one by one."""
LONG = 60.0
"""Seconds after which an open transaction of anybody holds up the tables' cleaning."""


@dataclass
class Found:
    """The result of examining a PostgreSQL. `facts` are for `turnwise check`."""

    durability: str
    facts: dict[str, str]
    warnings: list[str] = field(default_factory=list)


async def look(driver: PostgresDriver) -> Found:
    """Ask the server. Raises Lost."""
    (
        (version, number, commit, fsync, pages, standbys, database, size, ours, most, oldest),
    ) = await driver.writer.fetch(SETTINGS)
    ((few, many),) = await driver.fetch("count", FEW)
    found = Found(
        _durability(commit, fsync, pages, standbys),
        {
            "store": f"PostgreSQL {version}",
            "database": f"{database}, schema {driver.address.schema}, {size}",
            "synchronous_commit": commit,
            "sessions": str(few) if few < FEW else f"about {max(few, many):,}",
            "connections": f"{ours} of {most}",
            "pooler": "yes, in transaction mode" if driver.address.pooled else "none seen",
        },
    )
    if number < OLDEST:
        found.warnings.append(f"PostgreSQL {version} is older than 14, which Turnwise needs.")
    if fsync == "off" or commit == "off":
        found.warnings.append(found.durability)
    if oldest is not None and oldest > LONG:
        found.warnings.append(
            f"A transaction has been open for {oldest:.0f} s: until it ends, old rows cannot be "
            "removed and every turn costs more."
        )
    if found.warnings:
        found.facts["warning"] = "\n".join(found.warnings)
    return found


def _durability(commit: str, fsync: str, pages: str, standbys: str) -> str:
    """How durable acknowledged data is, as a text."""
    if fsync == "off":
        return (
            "fsync off: what was acknowledged survives the death of our processes; a power cut may "
            "destroy the whole database."
        )
    if commit == "off":
        return (
            "synchronous_commit off: what was acknowledged survives the death of our processes; "
            "when PostgreSQL itself dies, up to the last second is lost."
        )
    more = " A promoted standby may lack the latest turns."
    if standbys and commit in ("on", "remote_apply", "remote_write"):
        more = " A synchronous standby has it as well."
    torn = "" if pages == "on" else " full_page_writes off: a power cut may damage the database."
    return f"synchronous_commit {commit}: what was acknowledged survives a power cut.{more}{torn}"
