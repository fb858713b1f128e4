"""Early expiry: each reader decides alone, by chance, to load before the value ends.

Problem: a lock costs those who wait, and a value that may not be old cannot be served
past its end. A popular value is read all the time, so one of its many readers can load
it shortly before: likelier the nearer the end is, and the longer the load takes.

Keys
    value   string, the ms that the load took before the encoded row: `64 {...}`. TTL
            `ttl_ms` plus up to a tenth; `null`, a row that does not exist, 30 s.

Commands
    hit     1 round trip    GET and PTTL in a pipeline, O(1)
    load    2 round trips   the same, SET PX

Guarantees: no reader waits for another. With `beta` 1 a value that is read all the time
is loaded once before its end, on average, about as long before as the load takes.

Limits: it protects a value that is read again and again; at the end itself, and where
many read at the same instant, several load. It stores whatever it loaded, also what a
write has replaced meanwhile. Redis down: RedisError reaches the caller.

Source: Vattani, Chierichetti and Lowenstein, "Optimal Probabilistic Cache Stampede
Prevention", VLDB 2015.
"""

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import redis

from webapp.patterns.stampede import Entry, Load, Read
from webapp.patterns.stampede._copies import keep, look


@dataclass(frozen=True)
class EarlyExpiry:
    """Each reader decides alone, by chance, whether the end is near enough to load.

    With `beta` above 1 they load earlier.
    """

    ttl_ms: int = 3_600_000
    beta: float = 1.0
    chance: Callable[[], float] = random.random  # from 0, below 1

    def read(self, client: redis.Redis, entry: Entry, *, load: Load) -> Read:
        """Answer it, or load it, now and then while it is still there."""
        found, left_ms = look(client, entry)
        took, _, payload = (found or b"").partition(b" ")
        if took.isdigit() and not self.is_due(left_ms, took_ms=int(took[:9])):
            return Read(payload, "hit")
        began = time.perf_counter()
        payload = load()
        took_ms = math.ceil((time.perf_counter() - began) * 1000)
        stored = keep(client, entry, payload, self.ttl_ms, before=b"%d " % took_ms)
        return Read(payload, "miss", stored)

    def is_due(self, left_ms: int, *, took_ms: int) -> bool:
        """Whether to load now: with probability exp(-left_ms / (beta * took_ms)).

        37 % with as much time left as the last load took, 0.7 % with five times that.
        """
        return -self.beta * took_ms * math.log(1 - self.chance()) >= left_ms
