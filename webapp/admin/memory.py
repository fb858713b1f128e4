"""Which namespaces hold the memory, from a sample that says how large it is."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import redis

from webapp import keys
from webapp.admin.scan import family_of

SAMPLES = (1000, 5000, 20_000)
_STEP = 1000
OTHER = "other apps"


@dataclass(frozen=True)
class Group:
    name: str  # "catalog:product"; for keys of no family, or of others, words
    pattern: str  # that finds its keys; empty: none does
    count: int  # in the sample
    memory_bytes: int  # in the sample
    scale: float  # from the sample to all keys; 1: all were read

    @property
    def keys_about(self) -> int:
        return round(self.count * self.scale)

    @property
    def memory_about(self) -> int:
        return round(self.memory_bytes * self.scale)


@dataclass(frozen=True)
class Sample:
    groups: list[Group]  # largest first
    sampled: int
    keys_count: int  # in the whole database

    @property
    def is_whole(self) -> bool:
        return self.sampled >= self.keys_count


def sample(client: redis.Redis, namespace: str, size: int) -> Sample:
    """The first keys that SCAN finds, which is in the order of their hashes.

    Two round trips for each thousand of them. Raises redis.RedisError.
    """
    counts: Counter[tuple[str, str]] = Counter()
    memory: Counter[tuple[str, str]] = Counter()
    seen: set[bytes] = set()
    cursor = 0
    for _ in range(-(-size // _STEP)):
        reply: Any = client.scan(cursor, count=_STEP)
        cursor, page = reply
        fresh = [name for name in page if name not in seen]
        seen.update(fresh)
        for name, used in zip(fresh, _usage(client, fresh), strict=True):
            group = _group(namespace, name)
            counts[group] += 1
            memory[group] += used
        if cursor == 0:
            break
    total = len(seen) if cursor == 0 else max(int(client.dbsize()), len(seen))
    scale = total / len(seen) if seen else 1.0
    groups = [Group(*g, counts[g], used, scale) for g, used in memory.most_common()]
    return Sample(groups, len(seen), total)


def _usage(client: redis.Redis, page: list[bytes]) -> list[int]:
    if not page:
        return []
    pipeline = client.pipeline(transaction=False)
    for name in page:
        pipeline.memory_usage(name)
    replies = pipeline.execute(raise_on_error=False)
    return [reply if isinstance(reply, int) else 0 for reply in replies]


def _group(namespace: str, name: bytes) -> tuple[str, str]:
    """A name for people, and the pattern that finds the group's keys."""
    if family := family_of(namespace, name):
        return _of_family(namespace, family)
    if name.startswith(f"{namespace}:".encode()):
        return f"{namespace}, no family", f"{namespace}:*"
    return OTHER, ""


def _of_family(namespace: str, family: keys.Family) -> tuple[str, str]:
    return f"{family.page}:{family.part}", pattern_of(namespace, family)


def pattern_of(namespace: str, family: keys.Family) -> str:
    return f"{namespace}:{family.page}:{family.part}:*"
