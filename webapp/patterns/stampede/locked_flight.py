"""Locked flight: one load among all processes, and everyone else waits for its store.

Problem: a lock around the load is easily said. Its traps: a loader that dies keeps it;
one that is slower than its TTL loses it, and stores over a newer value; those who wait
ask again and again; a woken crowd asks all at once; and a write in the middle of a load
is overwritten by what was read before it.

Keys
    value   string, the encoded row. TTL `ttl_ms` plus up to a tenth; `null`, a row that
            does not exist, 30 s.
    lock    the three keys of a distributed lock: who loads. In one slot with the value.

Commands
    hit     1 round trip    EVALSHA fetch, O(1)
    load    2 round trips   EVALSHA fetch, EVALSHA store, O(1)
    wait    1 round trip    EVALSHA fetch; one in each process also BLPOP and EVALSHA
                            fetch: a store wakes one of them, who wakes the next

Guarantees: one load, unless it fails or its holder loses the lock. The lock is extended
while its holder works; if that one is killed, it runs out and a waiter takes it. What
was loaded counts only under the loader's own lock, and a write deletes value and lock:
what was read before it is not stored after it, nor told to who asks after it. Nobody
waits for longer than `wait_ms`; who did loads, and keeps that to itself.

Limits: a load that takes longer than `wait_ms` is still a stampede, only a later one.
Who waits holds a thread; one in each process holds a connection, too. Redis down:
RedisError reaches the caller.

Source: https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/ and
"Scaling Memcache at Facebook", NSDI 2013, section 3.2.1 (leases).
"""

import secrets
import time
from contextlib import suppress
from dataclasses import dataclass, field

import redis
from redis.exceptions import RedisError

from webapp.patterns.distributed_lock import DistributedLock, Lease, LockNotOwned
from webapp.patterns.stampede import Entry, Load, Read
from webapp.patterns.stampede._copies import spread
from webapp.patterns.stampede._flights import Flights
from webapp.patterns.stampede._keeper import Keeper
from webapp.scripts import load as load_script

_LISTEN_MS = 250  # for one BLPOP; a wake-up that was lost costs no more

# It ends by itself while there is time for another to load, before who waits gives up.
BRIEF = DistributedLock(ttl_ms=500, keep_ms=60_000)

_fetch = load_script("stampede/fetch")
_store = load_script("stampede/store")
_keeper = Keeper()


@dataclass(frozen=True)
class _Taken:
    """Another loads: what there is instead of a value or a lease."""

    token: bytes  # of its lease, or of a cache-aside reader's
    left_ms: int  # until it ends; -1: never


@dataclass(frozen=True)
class LockedFlight:
    """One load among all processes; in each, one waits for it and tells the others."""

    ttl_ms: int = 3_600_000
    wait_ms: int = 1_000
    lock: DistributedLock = BRIEF
    _flights: Flights = field(
        default_factory=Flights, init=False, repr=False, compare=False
    )

    def read(self, client: redis.Redis, entry: Entry, *, load: Load) -> Read:
        """Answer it, or load it under the lock, or wait for who does."""
        until = time.monotonic() + self.wait_ms / 1000
        found = self._look(client, entry)
        while isinstance(found, _Taken):
            if time.monotonic() >= until:
                return Read(load(), "miss")
            found = self._wait(client, entry, found, until)
        if isinstance(found, Lease):
            return self.load_locked(client, entry, found, load)
        return Read(found, "hit")

    def _wait(
        self, client: redis.Redis, entry: Entry, taken: _Taken, until: float
    ) -> bytes | Lease | _Taken:
        """What there is after this lease, or when the time is up.

        Only those wait together who saw the same lease: a write takes it away, so that
        nobody is told what was read before a write that they asked after.
        """
        found, own = self._flights.share(
            (entry.value, taken.token),
            lambda: self._listen(client, entry, taken, until),
            wait_s=max(0, until - time.monotonic()),
        )
        if found is not None and (own or isinstance(found, bytes)):
            return found
        return self._look(client, entry)  # a lease is for one

    def _listen(
        self, client: redis.Redis, entry: Entry, taken: _Taken, until: float
    ) -> bytes | Lease | _Taken:
        found: bytes | Lease | _Taken = taken
        while isinstance(found, _Taken) and found.token == taken.token:
            left_ms = (until - time.monotonic()) * 1000
            if left_ms <= 0:
                break
            # A lock that another left without a TTL is looked at now and then.
            listen_ms = max(
                1, min(left_ms, _LISTEN_MS, found.left_ms + 1 or _LISTEN_MS)
            )
            woken = bool(client.blpop([entry.lock.wake], timeout=listen_ms / 1000))
            found = self._look(client, entry, woken=woken)
        return found

    def load_locked(
        self, client: redis.Redis, entry: Entry, lease: Lease, load: Load
    ) -> Read:
        """Load under a lock that is held, store, and give it back (one script)."""
        try:
            with _keeper.keeping(
                lambda: self._extend(client, entry, lease),
                every_s=self.lock.ttl_ms / 3000,
            ):
                payload = load()
        except BaseException:
            with suppress(RedisError):
                self.lock.release(client, entry.lock, lease)
            raise
        return Read(payload, "miss", self._store(client, entry, lease, payload))

    def _look(
        self, client: redis.Redis, entry: Entry, *, woken: bool = False
    ) -> bytes | Lease | _Taken:
        """The value, or our lease to load it, or who else has one (one script)."""
        token, own = secrets.token_hex(16), entry.lock
        reply = _fetch(
            client,
            [entry.value, own.lock, own.fence, own.wake],
            [token, self.lock.ttl_ms, self.lock.keep_ms, int(woken)],
        )
        if isinstance(reply, bytes):
            return reply
        is_ours, what, ms = reply
        if is_ours:
            return Lease(token, int(what), taken_ms=int(ms))
        return _Taken(what, int(ms))

    def _store(
        self, client: redis.Redis, entry: Entry, lease: Lease, payload: bytes
    ) -> bool:
        ttls_ms = spread(payload, self.ttl_ms), self.lock.ttl_ms
        keys = [entry.value, entry.lock.lock, entry.lock.wake]
        with suppress(RedisError):  # the reader has its payload, and does not care
            return bool(_store(client, keys, [lease.token, payload, *ttls_ms]))
        return False

    def _extend(self, client: redis.Redis, entry: Entry, lease: Lease) -> None:
        with suppress(RedisError, LockNotOwned):  # there is time for another try
            self.lock.extend(client, entry.lock, lease)
