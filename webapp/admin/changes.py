"""Deleting keys and setting TTLs: planned first, bounded, only under our namespace."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from webapp import keys
from webapp.admin.scan import LARGEST_STEP, Place, Row, family_of, rows

MOST_KEYS = 10_000  # of one change
BATCH = 100  # keys a pipeline
LONGEST_TTL_MS = 30 * 86_400_000
_SHOWN = 9
_MOST_PAGES = 1000  # of SCAN: about a million keys


@dataclass(frozen=True)
class Wanted:
    """Which keys: those named, or all that match."""

    names: tuple[bytes, ...] = ()
    pattern: str = ""  # looked at only where no key is named
    type: str = ""
    spare_forever: bool = False  # leave out keys without expiry


@dataclass(frozen=True)
class Plan:
    names: list[bytes]
    memory_bytes: int
    forever: dict[str, int]  # by "page:part": how many have no expiry
    forever_count: int
    shown: list[Row]
    limit_ms: int  # the longest TTL that all their families allow
    is_more: bool  # others match too; one change takes no more

    @property
    def count(self) -> int:
        return len(self.names)

    @property
    def batches(self) -> int:
        return -(-self.count // BATCH)


def plan(client: redis.Redis, place: Place, wanted: Wanted) -> Plan:
    """What a change would meet now. Raises redis.RedisError."""
    named, is_more = list(wanted.names), False
    if not named:
        named, is_more = _matching(client, place.namespace, wanted)
    mine = [name for name in named if _may_change(place.namespace, name)]
    found = [row for batch in _batches(mine) for row in rows(client, place, batch)]
    if wanted.spare_forever:
        found = [row for row in found if row.ttl_ms is not None]
    forever: dict[str, int] = {}
    for row in found:
        if row.ttl_ms is None:
            kind = f"{row.family.page}:{row.family.part}" if row.family else "unknown"
            forever[kind] = forever.get(kind, 0) + 1
    limits = [row.family.ttl_ms for row in found if row.family and row.family.ttl_ms]
    return Plan(
        names=[row.name for row in found],
        memory_bytes=sum(row.memory_bytes or 0 for row in found),
        forever=forever,
        forever_count=sum(forever.values()),
        shown=found[:_SHOWN],
        limit_ms=min([LONGEST_TTL_MS, *limits]),
        is_more=is_more,
    )


def delete(client: redis.Redis, named: Sequence[bytes]) -> int:
    """UNLINK them, a pipeline for each batch; returns how many there were."""
    gone = 0
    for batch in _batches(named):
        pipeline = client.pipeline(transaction=False)
        for name in batch:
            pipeline.unlink(name)
        gone += sum(pipeline.execute())
    return gone


def set_ttl(client: redis.Redis, named: Sequence[bytes], ttl_ms: int) -> int:
    """PEXPIRE them, a pipeline for each batch; returns how many there were."""
    changed = 0
    for batch in _batches(named):
        pipeline = client.pipeline(transaction=False)
        for name in batch:
            pipeline.pexpire(name, ttl_ms)
        changed += sum(pipeline.execute())
    return changed


def _may_change(namespace: str, name: bytes) -> bool:
    """Ours, and not the record of what admins did."""
    is_ours = name.startswith(f"{namespace}:".encode())
    return is_ours and family_of(namespace, name) is not keys.AUDIT


def _matching(
    client: redis.Redis, namespace: str, wanted: Wanted
) -> tuple[list[bytes], bool]:
    """Our keys that match, at most MOST_KEYS; and whether there are others."""
    found: dict[bytes, None] = {}
    cursor = 0
    for _ in range(_MOST_PAGES):
        reply: Any = client.scan(
            cursor,
            match=wanted.pattern or None,
            count=LARGEST_STEP,
            _type=wanted.type or None,
        )
        cursor, page = reply
        found.update((n, None) for n in page if _may_change(namespace, n))
        if cursor == 0 or len(found) > MOST_KEYS:
            break
    is_more = cursor != 0 or len(found) > MOST_KEYS
    return list(found)[:MOST_KEYS], is_more


def _batches(named: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for at in range(0, len(named), BATCH):
        yield named[at : at + BATCH]
