"""No protection: plain cache-aside, what the others are measured against.

Problem: who misses loads and stores. With a slow load and many readers, all who come
between the miss of the first and its store do the same.

Keys
    value   string, the encoded row. TTL `ttl_ms` plus up to a tenth; `null`, a row that
            does not exist, 30 s.

Commands
    hit     1 round trip    GET, O(1)
    miss    2 round trips   GET, SET PX, O(1)

Guarantees: value and TTL are set in one step.

Limits: as many loads as readers who miss at once. It stores whatever it loaded, also
what a write has replaced meanwhile. Redis down: RedisError reaches the caller; a reader
who has loaded has its value, and nothing is kept.

Source: https://redis.io/docs/latest/develop/use-cases/
"""

from dataclasses import dataclass

import redis

from webapp.patterns.stampede import Entry, Load, Read
from webapp.patterns.stampede._copies import get, keep


@dataclass(frozen=True)
class Unprotected:
    """Plain cache-aside, without a lease."""

    ttl_ms: int = 3_600_000

    def read(self, client: redis.Redis, entry: Entry, *, load: Load) -> Read:
        """Answer it, or load and store it, however many others do just that."""
        payload = get(client, entry)
        if payload is not None:
            return Read(payload, "hit")
        payload = load()
        return Read(payload, "miss", keep(client, entry, payload, self.ttl_ms))
