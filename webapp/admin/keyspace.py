"""The keyspace as it is: states of single keys, and removal of a whole namespace."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from webapp import keys

_BATCH = 1000
_LONGEST_SCAN = 100_000  # pages; a bound, not a limit anyone should meet


@dataclass(frozen=True)
class KeyState:
    key: str
    family: keys.Family | None
    slot: int
    ttl_ms: int | None  # None: no expiry
    memory_bytes: int | None  # None: the server cannot tell


def states(client: redis.Redis, namespace: str, names: Sequence[str]) -> list[KeyState]:
    """Those of the keys that exist, in the given order (one round trip).

    PTTL and MEMORY USAGE leave the keys' LRU and LFU figures alone.
    """
    pipeline = client.pipeline(transaction=False)
    for name in names:
        pipeline.pttl(name)
        pipeline.memory_usage(name)
    replies = pipeline.execute(raise_on_error=False)
    return [
        KeyState(
            key=name,
            family=keys.family_of(namespace, name),
            slot=keys.slot(name),
            ttl_ms=ttl if ttl >= 0 else None,
            memory_bytes=memory if isinstance(memory, int) else None,
        )
        for name, ttl, memory in zip(names, replies[::2], replies[1::2], strict=True)
        if ttl != -2  # -2: there is no such key
    ]


def remove_namespace(client: redis.Redis, namespace: str) -> int:
    """Delete every key of this namespace by SCAN and UNLINK; returns how many."""
    return sum(_unlink(client, page) for page in pages(client, f"{namespace}:*"))


def _unlink(client: redis.Redis, page: Sequence[bytes]) -> int:
    """One UNLINK a key: they lie in many slots."""
    pipeline = client.pipeline(transaction=False)
    for name in page:
        pipeline.unlink(name)
    return sum(pipeline.execute())


def pages(client: redis.Redis, pattern: str) -> Iterator[list[bytes]]:
    """The names that match, by SCAN; one may come twice."""
    cursor = 0
    for _ in range(_LONGEST_SCAN):
        reply: Any = client.scan(cursor, match=pattern, count=_BATCH)
        cursor, page = reply
        if page:
            yield page
        if cursor == 0:
            return
