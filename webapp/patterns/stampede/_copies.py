"""The cached copy of a value: read it, store it."""

import random
from contextlib import suppress

import redis
from redis.exceptions import RedisError

from webapp.patterns.stampede import MISSING, Entry

_MISSING_TTL_MS = 30_000
_JITTER = 0.10  # TTLs are longer by up to this share, so they end apart


def look(client: redis.Redis, entry: Entry) -> tuple[bytes | None, int]:
    """The payload, and the ms that are left of it (one pipeline).

    A value that is stored in between has more time left than the one that was read:
    that one is served once more, which does no harm.
    """
    with client.pipeline(transaction=False) as pipeline:
        pipeline.get(entry.value)
        pipeline.pttl(entry.value)
        payload, left_ms = pipeline.execute()
    return payload, int(left_ms)


def get(client: redis.Redis, entry: Entry) -> bytes | None:
    payload = client.get(entry.value)
    return payload if isinstance(payload, bytes) else None


def keep(
    client: redis.Redis, entry: Entry, payload: bytes, ttl_ms: int, before: bytes = b""
) -> bool:
    """Store after a load. The reader has its payload, so an outage is no error here."""
    px = spread(payload, ttl_ms)
    with suppress(RedisError):
        return bool(client.set(entry.value, before + payload, px=px))
    return False


def spread(payload: bytes, ttl_ms: int) -> int:
    """The TTL plus up to its jitter, so that values end apart."""
    if payload == MISSING:
        ttl_ms = min(ttl_ms, _MISSING_TTL_MS)
    return round(ttl_ms * random.uniform(1, 1 + _JITTER))
