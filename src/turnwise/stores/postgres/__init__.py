"""The PostgreSQL store: one server, several machines."""

from turnwise.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
