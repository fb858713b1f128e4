"""Stale while revalidate: an old value is served while one reader has it loaded anew.

Problem: even with one load, everyone else waits for it. If a value may be old for a
while, nobody has to: it has a soft TTL, after which it is served still, and the first
who sees that starts a load beside the readers.

Keys
    value   string, the encoded row. TTL `fresh_ms` and `stale_ms` plus up to a tenth;
            the soft TTL is over when `stale_ms` are left. `null`, a row that does not
            exist, 30 s.
    lock    the three keys of a distributed lock: who loads. In one slot with the value.

Commands
    hit     1 round trip    GET and PTTL in a pipeline, O(1)
    stale   2 round trips   the same, EVALSHA acquire; beside it GET and PTTL again,
                            EVALSHA store
    miss    as a locked flight, after GET and PTTL

Guarantees: nobody waits while there is a value. Few refresh it: one at a time. What was
loaded before a write is not stored after it, if the write deletes value and lock.

Limits: a stale value is served once more after its row has changed, unless the writer
deletes it. Nobody is told of an error of the load: it is logged, the value stays, and
the next reader starts another. A thread runs beside the reader. Redis down: RedisError
reaches the caller.

Source: https://www.rfc-editor.org/rfc/rfc5861 (stale-while-revalidate, of HTTP)
"""

import contextvars
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import redis

from webapp.patterns.distributed_lock import DistributedLock, Lease
from webapp.patterns.stampede import Entry, Load, Read
from webapp.patterns.stampede._copies import look
from webapp.patterns.stampede.locked_flight import BRIEF, LockedFlight

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StaleWhileRevalidate:
    """Fresh for `fresh_ms`, then for `stale_ms` served while somebody loads it anew."""

    fresh_ms: int = 3_600_000
    stale_ms: int = 600_000
    lock: DistributedLock = BRIEF
    start: Callable[[Callable[[], None]], object] = field(
        default_factory=lambda: in_a_thread
    )  # how to do something beside the reader

    @cached_property
    def flight(self) -> LockedFlight:
        """How it is loaded: beside the readers, or where there is nothing to serve."""
        return LockedFlight(ttl_ms=self.fresh_ms + self.stale_ms, lock=self.lock)

    def read(self, client: redis.Redis, entry: Entry, *, load: Load) -> Read:
        """Answer what is there, however old; the first to see that it is starts."""
        payload, left_ms = look(client, entry)
        if payload is None:
            return self.flight.read(client, entry, load=load)
        if left_ms > self.stale_ms:
            return Read(payload, "hit")
        if lease := self.lock.acquire(client, entry.lock):
            self.start(lambda: self._refresh(client, entry, lease, load))
        return Read(payload, "stale")

    def _refresh(
        self, client: redis.Redis, entry: Entry, lease: Lease, load: Load
    ) -> None:
        """Nobody waits for this, so nobody else can be told of an error."""
        try:
            # The refresher before this one may have stored after we looked.
            if look(client, entry)[1] > self.stale_ms:
                self.lock.release(client, entry.lock, lease)
            else:
                self.flight.load_locked(client, entry, lease, load)
        except Exception:
            log.exception("%s stays as old as it is", entry.value)


def in_a_thread(work: Callable[[], None]) -> None:
    """Do it beside the caller, and on the same tape."""
    run = contextvars.copy_context().run
    threading.Thread(target=run, args=(work,), daemon=True).start()
