"""Bloom filter: say of what does not exist that it does not, without asking.

Problem: somebody asks for ids that do not exist, each another one. No cache helps: each
is a miss, each a query, and each leaves a remembered "not found" behind. A bitmap in
which every existing id has set a few bits answers for them: if one bit of an id is 0,
the id was never added. If all are 1 it probably was, and the reader goes on as always.
The trap is a filter that is lost: its bits read as 0, so everything that exists would
be denied.

Keys
    filter  string, a bitmap of `bits` and one more: the mark, set in a whole filter.
            TTL `ttl_ms`, after which it is built anew.

Commands (K hashes)
    has     1 round trip   BITFIELD GET for each bit and the mark, O(K)
    add     1 round trip   EVALSHA add: GETBIT, SETBIT for each bit, O(K)
    build   1 round trip   SET with all bits at once, O(bits)

Guarantees: an id that was added is never denied. A filter is there whole or not at all,
because it is made beside Redis and set in one step; a lost one has no mark, and is told
apart from an empty one. With `sized` for n ids, about `error_rate` of the ids that do
not exist pass.

Limits: nothing is removed from it, so what is deleted passes until the next build. It
does not grow: with more ids than it was sized for, more pass. An id that is created
while a build reads the others is added after that build. Every read pays a round trip.
Redis down: RedisError reaches the caller, who had better read on (fail open).

Source: https://en.wikipedia.org/wiki/Bloom_filter and Kirsch and Mitzenmacher, "Less
Hashing, Same Performance", ESA 2006.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from webapp.scripts import load as load_script

_add = load_script("bloom_filter/add")


@dataclass(frozen=True)
class BloomFilter:
    bits: int
    hashes: int  # bits an id sets
    ttl_ms: int = 86_400_000

    @classmethod
    def sized(cls, ids_count: int, *, error_rate: float) -> "BloomFilter":
        """The smallest for so many ids: 9.6 bits each for 0.01, 14.4 for 0.001.

        Raises ValueError for an error rate that is not between 0 and 1.
        """
        if not 0 < error_rate < 1:
            raise ValueError("error_rate: between 0 and 1")
        each = -math.log(error_rate) / math.log(2) ** 2
        bits = math.ceil(max(ids_count, 1) * each)
        return cls(bits=bits, hashes=max(1, round(each * math.log(2))))

    def error_rate(self, ids_count: int) -> float:
        """What share of ids that do not exist passes, with so many in it."""
        zero = math.exp(-self.hashes * ids_count / self.bits)
        return (1 - zero) ** self.hashes

    def has(self, client: redis.Redis, key: str, id: str) -> bool | None:
        """False: never added. True: probably added. None: there is no filter."""
        return self.has_each(client, key, [id])[0]

    def has_each(
        self, client: redis.Redis, key: str, ids: Sequence[str]
    ) -> list[bool | None]:
        """The same for several (one pipeline)."""
        with client.pipeline(transaction=False) as pipeline:
            for id in ids:
                gets = [("GET", "u1", place) for place in (*self.places(id), self.bits)]
                flat = [part for get in gets for part in get]
                pipeline.execute_command("BITFIELD", key, *flat)
            replies: list[Any] = pipeline.execute()
        return [all(bits) if mark else None for *bits, mark in replies]

    def add(self, client: redis.Redis, key: str, id: str) -> bool:
        """Add one id (one script). False: there is no filter to add it to."""
        places = " ".join(map(str, self.places(id)))
        return bool(_add(client, [key], [self.bits, places]))

    def build(self, client: redis.Redis, key: str, *, ids: Iterable[str]) -> int:
        """Put a new filter in place (one SET); returns its bytes."""
        bitmap = bytearray(self.bits // 8 + 1)
        for id in ids:
            for place in self.places(id):
                _set(bitmap, place)
        _set(bitmap, self.bits)
        client.set(key, bytes(bitmap), px=self.ttl_ms)
        return len(bitmap)

    def places(self, id: str) -> list[int]:
        """The bits of an id: two halves of one hash make as many as are wanted."""
        digest = hashlib.blake2b(id.encode(), digest_size=16).digest()
        first, step = (int.from_bytes(digest[i : i + 8]) for i in (0, 8))
        return [(first + i * (step | 1)) % self.bits for i in range(self.hashes)]


def _set(bitmap: bytearray, place: int) -> None:
    """As SETBIT does: the first bit is the highest of the first byte."""
    bitmap[place >> 3] |= 0x80 >> (place & 7)
