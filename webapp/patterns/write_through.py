"""Write-through: a write stores the new value, so that the next read is a hit.

Problem: after a write that deletes the copy, the next reader waits for the database.
Here the writer stores the new value itself. The trap is the order: two writers commit
one after the other, and reach Redis the other way round; the older value then stays
until its TTL ends. A version closes it. The database raises it with each write, and a
script stores only over an older one. A value that is not there proves nothing (a newer
one may have been stored and evicted), so a write stores only in place of a value. Else
it deletes the lease, as in cache-aside, and the next reader loads.

Keys
    value   string, the encoded row: a JSON object with a number `version`.
            TTL `ttl_ms` plus up to `jitter`. Shared with cache-aside, which reads it.
    lease   string, a random token of cache-aside. Same {group} as its value.

Commands
    write   1 round trip   EVALSHA write: DEL, GET, SET, O(size of the value)
    hit, miss              as in cache-aside

Guarantees: of several writers the newest value stays, in whatever order they arrive.
A reader that loaded before a write cannot store after it. After `write` has returned,
no reader gets an older value. A value that cannot be compared is removed.

Limits: this is not strong consistency. Between the database commit and `write`,
readers still get the old value, and a writer that dies there leaves it until its
outbox record is replayed: that deletes the copy, which is always safe. The writer
pays for the whole encoded value, also where nobody reads it again. Redis down: reads
fail open as in cache-aside; the writer sees the error, and the outbox makes it good.

Source: https://redis.io/docs/latest/develop/use-cases/ and "Scaling Memcache at
Facebook", NSDI 2013, section 3.2.1 (leases).
"""

from dataclasses import dataclass, field
from typing import Literal

import redis

from webapp.patterns.cache_aside import CacheAside, Entry
from webapp.scripts import load as load_script

_write = load_script("write_through/write")

Written = Literal[
    "stored",  # in place of an older value
    "newer",  # a value as new is there, and stays
    "absent",  # nothing to compare with: the next reader loads
]
_OUTCOMES: dict[int, Written] = {1: "stored", 0: "newer", -1: "absent"}


@dataclass(frozen=True)
class WriteThrough:
    """How values are read, and how long written ones live."""

    cache: CacheAside = field(default_factory=CacheAside)

    def write(
        self, client: redis.Redis, entry: Entry, *, version: int, payload: bytes
    ) -> Written:
        """Store the value unless a newer one is there (one script, one round trip).

        `payload` is read after the commit, and `version` is the one in it.
        """
        ttl_ms = self.cache.spread_ttl_ms()
        keys = [entry.value, entry.lease]
        return _OUTCOMES[int(_write(client, keys, [version, payload, ttl_ms]))]
