"""Redlock: a lock on a majority of independent servers, so that one may fail.

Problem: a lock on one server is gone with it, and a replica that takes over may not
know the lock, because it is told a moment late. Redlock asks N servers that know
nothing of each other, all at the same time. Whoever has a majority soon enough holds
the lock. Three traps: a server that does not answer must cost milliseconds, not the
lease; time spent asking is gone from the lease; and a try that failed must be undone
on all servers, also on those that seemed not to grant it, whose reply may be lost.

Keys
    lock    string on each server, the same random token. TTL `ttl_ms`.
    wake    list on each server, of the lock that this builds on. TTL `ttl_ms`.

Commands (on N servers at once)
    acquire   1 round trip   SET NX PX, O(1); a failed try releases at once
    release   1 round trip   EVALSHA distributed_lock/release, O(1)
    wait      tries again after a random delay, so that rivals do not march in step

Guarantees: while a majority is up and keeps what it was told, one holder at a time,
for `validity_ms` from the end of `acquire`: the lease less the time that asking took,
less what the clocks may drift apart. A minority may be down, stopped or slow.

Limits: it rests on clocks that run at about the same speed. A server that restarts
without what it had granted lets a second holder in, unless it stays out for longer
than `ttl_ms`, or writes every grant to disk first. A server that was silent while a
try was undone may keep its grant until the lease ends, and refuses all others so
long. There is no number for fencing: N counters that know nothing of each other give
none that only grows. If a late write does harm, take a resource that can refuse it.
The clients' own timeouts decide how long a silent server holds up a try: give them a
few hundredths of the lease at most. No majority: fails closed, nobody gets the lock.

Source: https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/ and
https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html
"""

import contextvars
import random
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import redis
from redis.exceptions import RedisError

from webapp.patterns.distributed_lock import DistributedLock, Lease, LockKeys

_RETRY_MS = 50  # the longest delay before another try
_CLOCK_MS = 2  # what TTLs are rounded by

# Kept, because starting threads for each call would take longer than asking.
_threads = ThreadPoolExecutor(32, thread_name_prefix="redlock")


@dataclass(frozen=True)
class Grant:
    """What one server said."""

    granted: bool
    us: int  # until it had answered, or was given up
    error: str = ""


@dataclass(frozen=True)
class Attempt:
    token: str
    grants: tuple[Grant, ...]  # in the order of the clients
    validity_ms: int  # for which it is held from now on; 0: it is not held

    @property
    def held(self) -> bool:
        return self.validity_ms > 0

    @property
    def granted(self) -> int:
        return sum(grant.granted for grant in self.grants)


@dataclass(frozen=True)
class Redlock:
    ttl_ms: int = 10_000
    drift: float = 0.01  # share of the lease by which clocks may run apart

    def acquire(self, clients: Sequence[redis.Redis], keys: LockKeys) -> Attempt:
        """Ask all servers at once; without a majority in time, undo it on all."""
        token, began = secrets.token_hex(16), time.monotonic()
        grants = _at_once(clients, lambda client: self._ask(client, keys, token))
        elapsed_ms = (time.monotonic() - began) * 1000
        left_ms = int(self.ttl_ms * (1 - self.drift) - _CLOCK_MS - elapsed_ms)
        attempt = Attempt(token, grants, validity_ms=max(left_ms, 0))
        if attempt.granted > len(clients) // 2 and attempt.held:
            return attempt
        self.release(clients, keys, token=token)
        return Attempt(token, grants, validity_ms=0)

    def wait(
        self, clients: Sequence[redis.Redis], keys: LockKeys, *, for_ms: int
    ) -> Attempt:
        """Try until it is held or the time is over; the last try."""
        deadline = time.monotonic() + for_ms / 1000
        while True:
            attempt = self.acquire(clients, keys)
            left_s = deadline - time.monotonic()
            if attempt.held or left_s <= 0:
                return attempt
            time.sleep(min(random.uniform(0, _RETRY_MS / 1000), left_s))

    def release(
        self, clients: Sequence[redis.Redis], keys: LockKeys, *, token: str
    ) -> int:
        """Undo it on all servers; how many had granted it and said so."""
        lease = Lease(token, fence=0, taken_ms=0)
        lock = DistributedLock(ttl_ms=self.ttl_ms)
        freed = _at_once(
            clients,
            lambda client: _timed(lambda: lock.release(client, keys, lease)),
        )
        return sum(grant.granted for grant in freed)

    def _ask(self, client: redis.Redis, keys: LockKeys, token: str) -> Grant:
        return _timed(
            lambda: bool(client.set(keys.lock, token, nx=True, px=self.ttl_ms))
        )


def _timed(ask: Callable[[], bool]) -> Grant:
    """A server that fails has not granted; the others decide."""
    began, error, granted = time.perf_counter(), "", False
    try:
        granted = ask()
    except RedisError as failure:
        error = str(failure) or type(failure).__name__
    return Grant(granted, round((time.perf_counter() - began) * 1e6), error)


def _at_once(
    clients: Sequence[redis.Redis], ask: Callable[[redis.Redis], Grant]
) -> tuple[Grant, ...]:
    """One thread a server, each in a copy of this context."""
    futures = [
        _threads.submit(contextvars.copy_context().run, ask, client)
        for client in clients
    ]
    return tuple(future.result() for future in futures)
