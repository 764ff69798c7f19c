"""The Redis store: one server or a Cluster, several machines."""

from turnwise.stores.redis.store import RedisStore

__all__ = ["RedisStore"]
