"""Cache-aside: read Redis first, fall back to the database, keep a copy with a TTL.

Problem: the same expensive read is asked for again and again. The application looks
into Redis first; on a miss it loads from the database and leaves a copy for the next
reader. A write changes the database, then deletes the copy. The trap is the stale
set: a reader misses and loads the old row, a writer changes it and deletes the copy,
and then the reader stores the old row, which stays until its TTL ends. A lease closes
it: a miss hands out a random token, a write deletes it, and a store counts only while
its token still stands.

Keys
    value   string, the encoded row; `null` for a row that does not exist.
            TTL `ttl_ms` plus up to `jitter`, or `missing_ttl_ms`.
    lease   string, a random token. TTL `lease_ms`. Same {group} as its value.

Commands
    hit         1 round trip   EVALSHA fetch: GET, O(1)
    miss        2 round trips  EVALSHA fetch: GET, GET, SET
                               EVALSHA store: GET, SET, DEL
    invalidate  1 round trip   DEL value lease, O(1)

Guarantees: after `invalidate` has returned, no reader gets a value loaded before the
write. A value and its TTL are set in one step. A value that cannot be decoded, or a
key of another type, is a miss and is removed. A row that does not exist is cached
too, shortly.

Limits: between the database commit and `invalidate`, readers may still get the old
value. A writer that dies in between needs its own record of what to delete (an
outbox). Many who miss at once all load (see stampede protection). Redis down: fails
open; the value comes from `load`, and nothing is kept. The writer sees the error.

Source: https://redis.io/docs/latest/develop/use-cases/ and "Scaling Memcache at
Facebook", NSDI 2013, section 3.2.1 (leases).
"""

import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import redis
from redis.exceptions import RedisError, ResponseError

from webapp.scripts import load as load_script

T = TypeVar("T")

_fetch = load_script("cache_aside/fetch")
_store = load_script("cache_aside/store")

_MISSING = b"null"


@dataclass(frozen=True)
class Entry:
    """The two keys of one cached row, in one slot."""

    value: str  # "rpl:catalog:product:{1042}"
    lease: str  # "rpl:catalog:lease:{1042}"


@dataclass(frozen=True)
class Fetched:
    payload: bytes | None  # the cached bytes; None on a miss
    lease: bytes | None  # the token to store with; None on a hit


@dataclass(frozen=True)
class Read(Generic[T]):
    value: T | None  # None: there is no such row
    outcome: Literal["hit", "miss", "bypass"]  # bypass: Redis did not answer
    stored: bool = False  # whether this read left a copy behind


@dataclass(frozen=True)
class CacheAside:
    """The parameters of one cache; times in ms."""

    ttl_ms: int = 3_600_000
    jitter: float = 0.10  # TTLs are longer by up to this share, so they end apart
    missing_ttl_ms: int = 30_000
    lease_ms: int = 10_000

    def read(
        self,
        client: redis.Redis,
        entry: Entry,
        *,
        load: Callable[[], T | None],
        encode: Callable[[T], bytes],
        decode: Callable[[bytes], T],
    ) -> Read[T]:
        """Answer the cached row, or load it and leave a copy.

        `decode` raises ValueError for bytes that `encode` did not make; such a value
        is removed and counts as a miss (one round trip more). `load` runs at most
        once, and its errors propagate.
        """
        try:
            fetched = self.fetch(client, entry)
            if fetched.payload == _MISSING:
                return Read(None, "hit")
            if fetched.payload is not None:
                try:
                    return Read(decode(fetched.payload), "hit")
                except ValueError:
                    self.invalidate(client, entry)
                    fetched = self.fetch(client, entry)
        except RedisError:
            return Read(load(), "bypass")
        row = load()
        payload = _MISSING if row is None else encode(row)
        return Read(row, "miss", self._keep(client, entry, fetched.lease, payload))

    def fetch(self, client: redis.Redis, entry: Entry) -> Fetched:
        """Answer the value, or a lease to load with (one script, one round trip).

        Keys that hold another type are removed first (two round trips more).
        """
        try:
            return self._ask(client, entry)
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
        self.invalidate(client, entry)
        return self._ask(client, entry)

    def _ask(self, client: redis.Redis, entry: Entry) -> Fetched:
        token = secrets.token_hex(8)
        reply = _fetch(client, [entry.value, entry.lease], [token, self.lease_ms])
        if isinstance(reply, bytes):
            return Fetched(payload=reply, lease=None)
        return Fetched(payload=None, lease=reply[0])

    def store(
        self, client: redis.Redis, entry: Entry, *, lease: bytes, payload: bytes
    ) -> bool:
        """Store if the lease still stands; False: a write took it away (one script)."""
        ttl_ms = self.missing_ttl_ms if payload == _MISSING else self.spread_ttl_ms()
        return bool(
            _store(client, [entry.value, entry.lease], [lease, payload, ttl_ms])
        )

    def invalidate(self, client: redis.Redis, entry: Entry) -> int:
        """Delete value and lease (one command); returns how many there were."""
        return int(client.delete(entry.value, entry.lease))

    def _keep(
        self, client: redis.Redis, entry: Entry, lease: bytes | None, payload: bytes
    ) -> bool:
        """Store after a miss. The reader has its row, so an outage is no error here."""
        try:
            return lease is not None and self.store(
                client, entry, lease=lease, payload=payload
            )
        except RedisError:
            return False

    def spread_ttl_ms(self) -> int:
        """The TTL plus up to its jitter, so that values end apart."""
        return round(self.ttl_ms * random.uniform(1, 1 + self.jitter))
